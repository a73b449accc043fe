//! What happened. An [`Event`] is what decisions give and what everything else is folded from;
//! [`stored`] has the frozen shapes in which events are kept for ever.

pub mod stored;

use std::net::Ipv4Addr;

use crate::id::{ClusterId, NetworkId, NicId, NodeId, VmId};
use crate::network::NetworkSpec;
use crate::outcome::ResourceOutcome;
use crate::position::Position;
use crate::timestamp::Timestamp;
use crate::value::{Endpoint, ImageUrl, MacAddress, NetworkName, NodeName, PublicKey, VmName, Vni};
use crate::vm::Arch;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A network was defined.
    NetworkCreated(NetworkCreated),
    /// A network was given up.
    NetworkDeleted(NetworkDeleted),
    /// A VM was defined, and placed.
    VmCreated(VmCreated),
    /// A VM was given up.
    VmDeleted(VmDeleted),
    /// A NIC was put on a network.
    NicAttached(NicAttached),
    /// It was decided which node a NIC's tap is on.
    NicBound(NicBound),
    /// A NIC was taken off its network, and is gone.
    NicDetached(NicDetached),
    /// A node became part of the cluster.
    NodeJoined(NodeJoined),
    /// A node's place in the mesh is another than before, or its first.
    NodeChanged(NodeChanged),
    /// A node has not been heard for a while.
    NodeUnreachable(NodeUnreachable),
    /// A node is heard again.
    NodeReachable(NodeReachable),
    /// A node is no longer part of the cluster, and never will be again.
    NodeRemoved(NodeRemoved),
    /// A node's pass changed how networks and NICs fare on it.
    NodeReconciled(NodeReconciled),
    /// A new epoch began behind a restored backup.
    ClusterRestored(ClusterRestored),
}

/// A network was defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkCreated {
    /// The network.
    pub network_id: NetworkId,
    /// Its name.
    pub name: NetworkName,
    /// What it is.
    pub spec: NetworkSpec,
}

/// A network was given up: nodes remove what they made for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkDeleted {
    /// The network.
    pub network_id: NetworkId,
    /// Its name, for readers of this event alone.
    pub name: NetworkName,
}

/// A VM was defined, and placed on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmCreated {
    /// The VM.
    pub vm_id: VmId,
    /// Its name.
    pub name: VmName,
    /// Where its disk image is.
    pub image_url: ImageUrl,
    /// What it runs on.
    pub arch: Arch,
    /// The node that it is on.
    pub node_id: NodeId,
}

/// A VM was given up; its NIC was detached before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmDeleted {
    /// The VM.
    pub vm_id: VmId,
    /// Its name, for readers of this event alone.
    pub name: VmName,
}

/// A NIC was put on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicAttached {
    /// The NIC.
    pub nic_id: NicId,
    /// The VM that it is part of.
    pub vm_id: VmId,
    /// The network that it is on.
    pub network_id: NetworkId,
    /// Its hardware address, which no other NIC of the cluster has.
    pub mac: MacAddress,
}

/// It was decided which node a NIC's tap is on; the last of these counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicBound {
    /// The NIC.
    pub nic_id: NicId,
    /// The node.
    pub node_id: NodeId,
}

/// A NIC was taken off its network, and is gone: the node removes its tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicDetached {
    /// The NIC.
    pub nic_id: NicId,
    /// The VM that it was part of.
    pub vm_id: VmId,
    /// The network that it was on.
    pub network_id: NetworkId,
}

/// A node became part of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeJoined {
    /// The node.
    pub node_id: NodeId,
    /// Its name.
    pub name: NodeName,
}

/// A node is reached through the mesh like this from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeChanged {
    /// The node.
    pub node_id: NodeId,
    /// Its whole place in the mesh.
    pub mesh: MeshPeer,
}

/// A node's place in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeshPeer {
    /// Its address there, for as long as there is the node; no other node ever has it.
    pub address: Ipv4Addr,
    /// Its public key; no other node has or ever had it.
    pub public_key: PublicKey,
    /// Where it takes WireGuard's packets.
    pub endpoint: Endpoint,
}

/// A node has not been heard for a while: what it last said of networks may not be so any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeUnreachable {
    /// The node.
    pub node_id: NodeId,
    /// When it was last heard; absent if it never was since the control plane started.
    pub last_heard_at: Option<Timestamp>,
}

/// A node that was unreachable is heard again, at the time of the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReachable {
    /// The node.
    pub node_id: NodeId,
}

/// A node is no longer part of the cluster: it removes what it has of it, and nobody waits for it. Its id never joins again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRemoved {
    /// The node.
    pub node_id: NodeId,
    /// Its name, for readers of this event alone.
    pub name: NodeName,
}

/// What a node's pass changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReconciled {
    /// The node.
    pub node_id: NodeId,
    /// The agent's start that this is from.
    pub incarnation: u64,
    /// The report of that start that this is from.
    pub sequence: u64,
    /// The outcomes that differ from what was recorded before.
    pub results: Vec<ResourceOutcome>,
}

/// A new epoch began: the journal was restored from a backup, and events behind it are given up. Whoever has taken in
/// events behind `kept` has what never happened in this life, and must begin again from the first event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRestored {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The last event of the earlier epoch that counts.
    pub kept: Position,
    /// No position up to here is given again: the earlier epoch may have used it.
    pub highest_position: Position,
    /// No VNI up to here is given again; absent if none can have been given.
    pub highest_vni: Option<Vni>,
    /// The highest address of the mesh that is known to have been given; absent if none is.
    pub highest_mesh_address: Option<Ipv4Addr>,
    /// So many addresses of the mesh behind that one may have been given besides, and are left out.
    pub mesh_addresses_left_out: u64,
}

/// Who follows an event: nodes follow decisions only, or the outcomes of N nodes would travel to N nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Concerns what nodes must do.
    Decision,
    /// Tells how it went.
    Outcome,
}

/// What an event belongs to, and is numbered within.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamId {
    /// A network's decisions.
    Network(NetworkId),
    /// A VM's decisions.
    Vm(VmId),
    /// A NIC's decisions.
    Nic(NicId),
    /// A node's joining, place in the mesh, presence, removal and outcomes.
    Node(NodeId),
    /// The beginnings of the cluster's epochs behind the first.
    Cluster(ClusterId),
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network(id) => write!(f, "network/{id}"),
            Self::Vm(id) => write!(f, "vm/{id}"),
            Self::Nic(id) => write!(f, "nic/{id}"),
            Self::Node(id) => write!(f, "node/{id}"),
            Self::Cluster(id) => write!(f, "cluster/{id}"),
        }
    }
}

impl Event {
    /// What the event belongs to; a CloudEvent's `subject`.
    pub fn stream_id(&self) -> StreamId {
        match self {
            Self::NetworkCreated(event) => StreamId::Network(event.network_id),
            Self::NetworkDeleted(event) => StreamId::Network(event.network_id),
            Self::VmCreated(event) => StreamId::Vm(event.vm_id),
            Self::VmDeleted(event) => StreamId::Vm(event.vm_id),
            Self::NicAttached(event) => StreamId::Nic(event.nic_id),
            Self::NicBound(event) => StreamId::Nic(event.nic_id),
            Self::NicDetached(event) => StreamId::Nic(event.nic_id),
            Self::NodeJoined(event) => StreamId::Node(event.node_id),
            Self::NodeChanged(event) => StreamId::Node(event.node_id),
            Self::NodeUnreachable(event) => StreamId::Node(event.node_id),
            Self::NodeReachable(event) => StreamId::Node(event.node_id),
            Self::NodeRemoved(event) => StreamId::Node(event.node_id),
            Self::NodeReconciled(event) => StreamId::Node(event.node_id),
            Self::ClusterRestored(event) => StreamId::Cluster(event.cluster_id),
        }
    }

    /// Who follows it.
    pub fn family(&self) -> Family {
        match self {
            Self::NetworkCreated(_)
            | Self::NetworkDeleted(_)
            | Self::VmCreated(_)
            | Self::VmDeleted(_)
            | Self::NicAttached(_)
            | Self::NicBound(_)
            | Self::NicDetached(_)
            | Self::NodeJoined(_)
            | Self::NodeChanged(_)
            | Self::NodeUnreachable(_)
            | Self::NodeReachable(_)
            | Self::NodeRemoved(_)
            | Self::ClusterRestored(_) => Family::Decision,
            Self::NodeReconciled(_) => Family::Outcome,
        }
    }

    /// The kind of thing it belongs to, as in subjects and types.
    pub fn aggregate(&self) -> &'static str {
        match self.stream_id() {
            StreamId::Network(_) => "network",
            StreamId::Vm(_) => "vm",
            StreamId::Nic(_) => "nic",
            StreamId::Node(_) => "node",
            StreamId::Cluster(_) => "cluster",
        }
    }

    /// The id of the thing it belongs to, as in subjects.
    pub fn aggregate_id(&self) -> String {
        match self.stream_id() {
            StreamId::Network(id) => id.to_string(),
            StreamId::Vm(id) => id.to_string(),
            StreamId::Nic(id) => id.to_string(),
            StreamId::Node(id) => id.to_string(),
            StreamId::Cluster(id) => id.to_string(),
        }
    }

    /// What happened, in the past tense, as in subjects and types.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NetworkCreated(_) | Self::VmCreated(_) => "created",
            Self::NetworkDeleted(_) | Self::VmDeleted(_) => "deleted",
            Self::NicAttached(_) => "attached",
            Self::NicBound(_) => "bound",
            Self::NicDetached(_) => "detached",
            Self::NodeJoined(_) => "joined",
            Self::NodeChanged(_) => "changed",
            Self::NodeUnreachable(_) => "unreachable",
            Self::NodeReachable(_) => "reachable",
            Self::NodeRemoved(_) => "removed",
            Self::NodeReconciled(_) => "reconciled",
            Self::ClusterRestored(_) => "restored",
        }
    }
}
