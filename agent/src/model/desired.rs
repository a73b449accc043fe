//! What the decisions require of this node, by network and NIC. What a kind of device needs of it is in the
//! `desired.rs` of that kind.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use otherix_schemas::id::{ClusterId, NetworkId, NicId, NodeId};
use otherix_schemas::network::{Egress, NetworkSpec, Ownership};
use otherix_schemas::position::Position;
use serde::{Deserialize, Serialize};

use super::view::{Network, NetworkState, View};
use crate::device::bridge::desired::{DesiredBridge, bridge, bridge_mac};
use crate::device::tap::desired::{DesiredTap, tap};
use crate::device::vtep::desired::{DesiredOverlay, overlay, remote_nics};

/// The error of an overlay on a node that is not part of the mesh.
const NOT_IN_MESH: &str =
    "this node is not part of the mesh, which overlay networks require: nothing was created on this node";

/// What the cluster requires of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Only devices of this cluster are created, repaired and removed.
    pub cluster: ClusterId,
    /// Absent while the node is not part of the mesh.
    #[serde(default)]
    pub mesh: Option<DesiredMesh>,
    /// All networks that are known, deleted ones too.
    pub networks: BTreeMap<NetworkId, DesiredNetwork>,
    /// All NICs that are, or were, on this node.
    #[serde(default)]
    pub nics: BTreeMap<NicId, DesiredNic>,
    /// The node has left this cluster. What is node-wide, such as the packet filter, is then the present cluster's.
    #[serde(default)]
    pub has_left: bool,
}

/// What a network requires of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredNetwork {
    pub generation: Position,
    pub want: Want,
}

/// What a network requires of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// A managed bridge.
    Bridge(DesiredBridge),
    /// A managed bridge, and a VTEP as a port of it.
    Overlay(DesiredOverlay),
    /// An unmanaged bridge: checked, never changed.
    Unmanaged(DesiredBridge),
    /// Something that this node cannot provide, for this reason. Nothing is created for it.
    Unsupported(String),
    /// Nothing: the network is deleted.
    Nothing,
}

/// The node's place in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredMesh {
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
    /// What a node requires that is not part of `cluster` any more: that nothing of it is left.
    pub fn nothing(cluster: ClusterId, has_left: bool) -> Self {
        Self { cluster, mesh: None, networks: BTreeMap::new(), nics: BTreeMap::new(), has_left }
    }

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
    /// The bridge, managed or unmanaged.
    pub fn bridge(&self) -> Option<&DesiredBridge> {
        match self {
            Self::Bridge(bridge) | Self::Unmanaged(bridge) => Some(bridge),
            Self::Overlay(overlay) => Some(&overlay.bridge),
            Self::Unsupported(_) | Self::Nothing => None,
        }
    }

    /// The bridge, if it is managed.
    pub fn managed(&self) -> Option<&DesiredBridge> {
        match self {
            Self::Bridge(bridge) => Some(bridge),
            Self::Overlay(overlay) => Some(&overlay.bridge),
            Self::Unmanaged(_) | Self::Unsupported(_) | Self::Nothing => None,
        }
    }
}

/// Returns what the view requires of `node`, which is one of `cluster`: nothing, once it was removed.
pub fn desired(view: &View, cluster: ClusterId, node: NodeId) -> Desired {
    if view.is_removed(node) {
        return Desired::nothing(cluster, false);
    }
    let mesh = view.mesh_peer(node).map(|peer| DesiredMesh { address: peer.address });
    let mut remote_nics = remote_nics(view, node);
    let networks = view.networks().map(|(id, network)| {
        let Network { name: _, generation, state } = network;
        let mac = bridge_mac(id, node);
        let want = match state {
            NetworkState::Defined(NetworkSpec::Bridge(spec)) => match spec.ownership {
                Ownership::Managed(Egress::None | Egress::Nat(_)) => Want::Bridge(bridge(spec, mac)),
                Ownership::Unmanaged => Want::Unmanaged(bridge(spec, None)),
            },
            NetworkState::Defined(NetworkSpec::Overlay(spec)) => match mesh {
                Some(DesiredMesh { address }) => {
                    Want::Overlay(overlay(spec, mac, address, remote_nics.remove(&id).unwrap_or_default()))
                }
                None => Want::Unsupported(NOT_IN_MESH.to_owned()),
            },
            NetworkState::Deleted => Want::Nothing,
        };
        (id, DesiredNetwork { generation: *generation, want })
    });
    let networks = networks.collect();
    let local_nics = view.nics().filter(|(_, nic)| nic.node() == Some(node));
    let nics = local_nics.map(|(id, nic)| (id, DesiredNic { generation: nic.generation(), tap: tap(id, nic) }));
    Desired { cluster, mesh, networks, nics: nics.collect(), has_left: false }
}

#[cfg(test)]
mod tests;
