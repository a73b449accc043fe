//! The desired state: what the decisions require of this node, by network and NIC.

mod bridge;
mod machine;
mod overlay;
mod tap;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use otherix_schemas::id::{ClusterId, NetworkId, NicId, NodeId, VmId};
use otherix_schemas::network::{Egress, NetworkSpec, Ownership};
use otherix_schemas::position::Position;
use serde::{Deserialize, Serialize};

pub use self::bridge::DesiredBridge;
pub use self::machine::{DesiredMachine, DesiredMove, DesiredVm, MachineNic, MeshPair, Restart};
pub use self::overlay::{DesiredOverlay, DesiredVtep};
pub use self::tap::{DesiredLease, DesiredTap, GATEWAY_MAC};
use super::cluster_view::{ClusterView, DecidedNetwork, NetworkState};
use super::firewall::ClusterAddresses;
use super::ip::{Address, Gateway};

/// Why a node that is not part of the mesh cannot provide an overlay.
const NOT_IN_MESH: &str =
    "this node is not part of the mesh, which overlay networks require: nothing was created on this node";

/// The desired state of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Only devices of this cluster are created, repaired and removed.
    pub cluster: ClusterId,
    /// Absent while the node is not part of the mesh.
    #[serde(default)]
    pub mesh: Option<DesiredMesh>,
    /// All known networks, including deleted ones.
    pub networks: BTreeMap<NetworkId, DesiredNetwork>,
    /// The addresses that networks' bridges had as gateways and must not have any more.
    #[serde(default)]
    pub former_addresses: BTreeMap<NetworkId, BTreeSet<Address>>,
    /// All known NICs of this node, including detached ones.
    #[serde(default)]
    pub nics: BTreeMap<NicId, DesiredNic>,
    /// All VMs of this node whose machines it runs, including deleted ones.
    #[serde(default)]
    pub vms: BTreeMap<VmId, DesiredVm>,
    /// The node is a member of the cluster.
    #[serde(default)]
    pub is_member: bool,
    /// The node is part of another cluster now, which determines what is node-wide, such as the packet filter.
    #[serde(default)]
    pub has_left: bool,
    /// What guests behind NAT do not reach. The decisions say which nodes there are; the agent adds the NATS servers.
    #[serde(default)]
    pub cluster_addresses: ClusterAddresses,
}

/// What a network requires of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredNetwork {
    pub generation: Position,
    pub want: Want,
}

/// What a network requires of a node, by its type and ownership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// A managed bridge.
    Bridge(DesiredBridge),
    /// A managed bridge, and a VTEP as a port of it.
    Overlay(DesiredOverlay),
    /// An unmanaged bridge: checked, never changed.
    Unmanaged(DesiredBridge),
    /// Something that this node cannot provide, for this reason. No device is created.
    Unsupported(String),
    /// Nothing: the network is deleted.
    Nothing,
}

/// What the mesh requires of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredMesh {
    /// The mesh address of this node.
    pub address: Ipv4Addr,
}

/// What a NIC requires of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredNic {
    pub generation: Position,
    /// Absent if the NIC is detached.
    pub tap: Option<DesiredTap>,
}

impl Desired {
    /// Sets the UDP port of VXLAN, which is a setting of the agent.
    pub fn set_vxlan_port(&mut self, port: u16) {
        for network in self.networks.values_mut() {
            if let Want::Overlay(overlay) = &mut network.want {
                overlay.vtep.port = port;
            }
        }
    }

    /// Returns the mesh addresses of the nodes with NICs of the overlays that this node has NICs of.
    pub fn watched_nodes(&self) -> BTreeSet<Ipv4Addr> {
        let networks: BTreeSet<_> =
            self.nics.values().filter_map(|nic| nic.tap.as_ref()).map(|tap| tap.network).collect();
        let overlays = networks.iter().filter_map(|id| match &self.networks.get(id)?.want {
            Want::Overlay(overlay) => Some(overlay),
            Want::Nothing | Want::Unsupported(_) | Want::Bridge(_) | Want::Unmanaged(_) => None,
        });
        overlays.flat_map(|overlay| overlay.flood.iter().copied()).collect()
    }

    /// Returns the desired state of a node that is not part of `cluster` any more: no devices of it.
    pub fn nothing(cluster: ClusterId, has_left: bool) -> Self {
        let cluster_addresses = ClusterAddresses::default();
        Self {
            cluster,
            mesh: None,
            networks: BTreeMap::new(),
            former_addresses: BTreeMap::new(),
            nics: BTreeMap::new(),
            vms: BTreeMap::new(),
            is_member: false,
            has_left,
            cluster_addresses,
        }
    }

    /// Returns the overlays that this node is to have.
    pub fn overlays(&self) -> impl Iterator<Item = &DesiredOverlay> {
        self.networks.values().filter_map(|network| match &network.want {
            Want::Overlay(overlay) => Some(overlay),
            Want::Bridge(_) | Want::Unmanaged(_) | Want::Unsupported(_) | Want::Nothing => None,
        })
    }

    /// The bridges, managed and unmanaged.
    pub fn bridges(&self) -> impl Iterator<Item = &DesiredBridge> {
        self.networks.values().filter_map(|network| network.want.bridge())
    }
}

impl Want {
    /// Returns the bridge, managed or unmanaged.
    pub fn bridge(&self) -> Option<&DesiredBridge> {
        match self {
            Self::Bridge(bridge) | Self::Unmanaged(bridge) => Some(bridge),
            Self::Overlay(overlay) => Some(&overlay.bridge),
            Self::Unsupported(_) | Self::Nothing => None,
        }
    }

    /// Returns the bridge, if it is managed.
    pub fn managed_bridge(&self) -> Option<&DesiredBridge> {
        match self {
            Self::Bridge(bridge) => Some(bridge),
            Self::Overlay(overlay) => Some(&overlay.bridge),
            Self::Unmanaged(_) | Self::Unsupported(_) | Self::Nothing => None,
        }
    }
}

/// Returns the desired state of `node`, a member of `cluster`: no devices, once it was removed from it.
pub fn desired(view: &ClusterView, cluster: ClusterId, node: NodeId) -> Desired {
    if view.is_removed(node) {
        return Desired::nothing(cluster, false);
    }
    let mesh = view.mesh_peer(node).map(|peer| DesiredMesh { address: peer.address });
    let mut remote_nics = overlay::remote_nics(view, node);
    let networks = view.networks().map(|(id, network)| {
        let DecidedNetwork { generation, state, .. } = network;
        let mac = bridge::mac(id, node);
        let want = match state {
            NetworkState::Defined(NetworkSpec::Bridge(spec)) => match spec.ownership {
                Ownership::Managed(Egress::None | Egress::Nat(_)) => Want::Bridge(DesiredBridge::of(spec, mac)),
                Ownership::Unmanaged => Want::Unmanaged(DesiredBridge::of(spec, None)),
            },
            NetworkState::Defined(NetworkSpec::Overlay(spec)) => match mesh {
                Some(DesiredMesh { address }) => {
                    let remote = remote_nics.remove(&id).unwrap_or_default();
                    Want::Overlay(DesiredOverlay::of(spec, mac, address, remote))
                }
                None => Want::Unsupported(NOT_IN_MESH.to_owned()),
            },
            NetworkState::Deleted => Want::Nothing,
        };
        (id, DesiredNetwork { generation: *generation, want })
    });
    let networks = networks.collect();
    let former = view.networks().map(|(id, network)| (id, former_addresses(network)));
    let former_addresses = former.filter(|(_, addresses)| !addresses.is_empty()).collect();
    let local_nics = view.nics().filter(|(_, nic)| nic.node() == Some(node));
    let nics = local_nics.map(|(id, nic)| {
        let tap = DesiredTap::of(id, nic, view.network(nic.attached.network_id));
        (id, DesiredNic { generation: nic.generation(), tap })
    });
    let vms = machine::desired(view, node);
    let nodes = view.mesh_peers().map(|(_, peer)| *peer.endpoint.socket_addr().ip()).collect();
    let cluster_addresses = ClusterAddresses { nodes, nats: BTreeSet::new() };
    let nics = nics.collect();
    Desired {
        cluster,
        mesh,
        networks,
        former_addresses,
        nics,
        vms,
        is_member: true,
        has_left: false,
        cluster_addresses,
    }
}

fn former_addresses(network: &DecidedNetwork) -> BTreeSet<Address> {
    network.former_gateways().map(|gateway| Gateway::from(gateway).bridge_address()).collect()
}

#[cfg(test)]
mod tests;
