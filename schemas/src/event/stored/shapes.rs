//! The shapes themselves.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, NetworkId, NicId, NodeId, VmId};
use crate::network::NetworkKind;
use crate::outcome::{Outcome, ResourceOutcome};
use crate::position::Position;
use crate::timestamp::Timestamp;
use crate::value::{
    Endpoint, ImageUrl, Ipv4Subnet, MacAddress, Mtu, NetworkName, NodeName, PublicKey, VlanId, VmName, Vni,
};
use crate::vm::Arch;

/// `dev.otherix.network.created.v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkCreatedV1 {
    /// The network.
    pub network_id: NetworkId,
    /// Its name.
    pub name: NetworkName,
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: NetworkKind,
    /// The bridge on each node.
    pub bridge_name: String,
    /// Whether the bridge is ours.
    pub managed: bool,
    /// The way out.
    pub egress: EgressV1,
    /// The subnet; present with egress `nat` and for overlays.
    pub subnet: Option<Ipv4Subnet>,
    /// The node's address in the subnet; present with egress `nat`.
    pub gateway: Option<Ipv4Addr>,
    /// The MTU in bytes.
    pub mtu: Mtu,
    /// The VLAN; absent for untagged.
    pub vlan: Option<VlanId>,
    /// The VNI; present for overlays.
    pub vni: Option<Vni>,
}

/// The way out of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EgressV1 {
    /// None.
    None,
    /// Source NAT on the node.
    Nat,
}

/// `dev.otherix.network.deleted.v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkDeletedV1 {
    /// The network.
    pub network_id: NetworkId,
    /// Its name.
    pub name: NetworkName,
}

/// `dev.otherix.node.joined.v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeJoinedV1 {
    /// The node.
    pub node_id: NodeId,
    /// Its name.
    pub name: NodeName,
}

/// `dev.otherix.node.changed.v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeChangedV1 {
    /// The node.
    pub node_id: NodeId,
    /// Its whole place in the mesh.
    pub mesh: MeshPeerV1,
}

/// A node's place in the mesh in [`NodeChangedV1`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeshPeerV1 {
    /// Its address there.
    pub address: Ipv4Addr,
    /// Its public key.
    pub public_key: PublicKey,
    /// Where it takes WireGuard's packets.
    pub endpoint: Endpoint,
}

/// `dev.otherix.node.unreachable.v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeUnreachableV1 {
    /// The node.
    pub node_id: NodeId,
    /// When it was last heard; absent if it never was since the control plane started.
    pub last_heard_at: Option<Timestamp>,
}

/// `dev.otherix.node.reachable.v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeReachableV1 {
    /// The node.
    pub node_id: NodeId,
}

/// `dev.otherix.node.removed.v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeRemovedV1 {
    /// The node.
    pub node_id: NodeId,
    /// Its name.
    pub name: NodeName,
}

/// `dev.otherix.node.reconciled.v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeReconciledV1 {
    /// The node.
    pub node_id: NodeId,
    /// The agent's start that this is from.
    pub incarnation: u64,
    /// The report of that start that this is from.
    pub sequence: u64,
    /// The outcomes that differ from what was recorded before.
    pub results: Vec<NetworkOutcomeV1>,
}

/// One network's outcome in [`NodeReconciledV1`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkOutcomeV1 {
    /// The network.
    pub network_id: NetworkId,
    /// Which decision about the network this is the outcome of.
    pub generation: Position,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// `dev.otherix.node.reconciled.v2`: results may be of NICs, and have warnings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeReconciledV2 {
    /// The node.
    pub node_id: NodeId,
    /// The agent's start that this is from.
    pub incarnation: u64,
    /// The report of that start that this is from.
    pub sequence: u64,
    /// The outcomes that differ from what was recorded before.
    pub results: Vec<ResourceOutcome>,
}

/// `dev.otherix.cluster.restored.v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterRestoredV1 {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The last event of the earlier epoch that counts.
    pub kept: Position,
    /// The last position that the earlier epoch may have used.
    pub highest_position: Position,
    /// The last VNI that the earlier epoch may have given; absent if it gave none.
    pub highest_vni: Option<Vni>,
}

/// `dev.otherix.cluster.restored.v2`: addresses of the mesh are not given again either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterRestoredV2 {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The last event of the earlier epoch that counts.
    pub kept: Position,
    /// The last position that the earlier epoch may have used.
    pub highest_position: Position,
    /// The last VNI that the earlier epoch may have given; absent if it gave none.
    pub highest_vni: Option<Vni>,
    /// The highest address of the mesh that the earlier epoch is known to have given; absent if it is known of none.
    pub highest_mesh_address: Option<Ipv4Addr>,
    /// So many more it may have given.
    pub mesh_addresses_left_out: u64,
}

/// `dev.otherix.vm.created.v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmCreatedV1 {
    /// The VM.
    pub vm_id: VmId,
    /// Its name.
    pub name: VmName,
    /// Where its disk image is.
    pub image_url: ImageUrl,
    /// What it runs on.
    pub arch: Arch,
    /// The node that it is placed on.
    pub node_id: NodeId,
}

/// `dev.otherix.vm.deleted.v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmDeletedV1 {
    /// The VM.
    pub vm_id: VmId,
    /// Its name.
    pub name: VmName,
}

/// `dev.otherix.nic.attached.v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NicAttachedV1 {
    /// The NIC.
    pub nic_id: NicId,
    /// The VM that it is part of.
    pub vm_id: VmId,
    /// The network that it is on.
    pub network_id: NetworkId,
    /// Its hardware address.
    pub mac: MacAddress,
    /// The name of its tap, which follows from the id.
    pub tap: String,
}

/// `dev.otherix.nic.bound.v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NicBoundV1 {
    /// The NIC.
    pub nic_id: NicId,
    /// The node that its tap is on.
    pub node_id: NodeId,
}

/// `dev.otherix.nic.detached.v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NicDetachedV1 {
    /// The NIC.
    pub nic_id: NicId,
    /// The VM that it was part of.
    pub vm_id: VmId,
    /// The network that it was on.
    pub network_id: NetworkId,
}
