//! The shapes in which events are stored. They are frozen: a shape that has been released is never
//! changed, only followed by a newer one with an upcast beside it. Each has a golden sample in
//! `schemas/golden/`.

mod shapes;

use serde::Serialize;
use serde_json::Value;

pub use self::shapes::{
    ClusterRestoredV1, ClusterRestoredV2, EgressV1, MeshPeerV1, NetworkCreatedV1, NetworkDeletedV1, NetworkOutcomeV1,
    NicAttachedV1, NicBoundV1, NicDetachedV1, NodeChangedV1, NodeJoinedV1, NodeReachableV1, NodeReconciledV1,
    NodeReconciledV2, NodeRemovedV1, NodeUnreachableV1, VmCreatedV1, VmDeletedV1,
};
use super::{
    ClusterRestored, Event, MeshPeer, NetworkCreated, NetworkDeleted, NicAttached, NicBound, NicDetached, NodeChanged,
    NodeJoined, NodeReachable, NodeReconciled, NodeRemoved, NodeUnreachable, VmCreated, VmDeleted,
};
use crate::id::{NetworkId, NicId};
use crate::network::{BridgeSpec, Egress, NetworkKind, NetworkSpec, OverlaySpec, Ownership};
use crate::outcome::{ResourceOutcome, ResourceRef};
use crate::value::Nat;
use crate::vm::tap_name;

/// Why stored data is no event.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// A type that this version does not know: it may be newer.
    #[error("event type `{0}` is not known to this version")]
    UnknownType(String),
    /// Data that is not of the type's shape.
    #[error("data of event type `{name}` is malformed")]
    Shape {
        /// The type.
        name: String,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
    /// A network whose fields contradict each other.
    #[error("network `{0}` is inconsistent")]
    Inconsistent(NetworkId),
    /// A tap whose name is not that of its NIC.
    #[error("the tap of NIC `{0}` has another name")]
    Tap(NicId),
}

/// Each shape with the CloudEvent's `type`, once.
macro_rules! stored {
    ($($shape:ident: $type_name:literal,)*) => {
        /// What an event is stored as.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(untagged)]
        pub enum Stored {
            $(
                #[doc = concat!("`", $type_name, "`.")]
                $shape($shape),
            )*
        }

        impl Stored {
            /// The CloudEvent's `type`.
            pub fn type_name(&self) -> &'static str {
                match self {
                    $(Self::$shape(_) => $type_name,)*
                }
            }

            /// Reads the data of a CloudEvent of this type.
            ///
            /// # Errors
            /// When the type is unknown or the data is not of its shape.
            pub fn read(type_name: &str, data: Value) -> Result<Self, StoredError> {
                let shape = |source| StoredError::Shape { name: type_name.to_owned(), source };
                match type_name {
                    $($type_name => serde_json::from_value(data).map(Self::$shape).map_err(shape),)*
                    other => Err(StoredError::UnknownType(other.to_owned())),
                }
            }
        }
    };
}

stored! {
    NetworkCreatedV1: "dev.otherix.network.created.v1",
    NetworkDeletedV1: "dev.otherix.network.deleted.v1",
    VmCreatedV1: "dev.otherix.vm.created.v1",
    VmDeletedV1: "dev.otherix.vm.deleted.v1",
    NicAttachedV1: "dev.otherix.nic.attached.v1",
    NicBoundV1: "dev.otherix.nic.bound.v1",
    NicDetachedV1: "dev.otherix.nic.detached.v1",
    NodeJoinedV1: "dev.otherix.node.joined.v1",
    NodeChangedV1: "dev.otherix.node.changed.v1",
    NodeUnreachableV1: "dev.otherix.node.unreachable.v1",
    NodeReachableV1: "dev.otherix.node.reachable.v1",
    NodeRemovedV1: "dev.otherix.node.removed.v1",
    NodeReconciledV1: "dev.otherix.node.reconciled.v1",
    NodeReconciledV2: "dev.otherix.node.reconciled.v2",
    ClusterRestoredV1: "dev.otherix.cluster.restored.v1",
    ClusterRestoredV2: "dev.otherix.cluster.restored.v2",
}

impl From<&Event> for Stored {
    fn from(event: &Event) -> Self {
        match event.clone() {
            Event::NetworkCreated(NetworkCreated { network_id, name, spec }) => {
                let nat = spec.nat();
                Self::NetworkCreatedV1(NetworkCreatedV1 {
                    network_id,
                    name,
                    kind: spec.kind(),
                    bridge_name: spec.bridge_name(),
                    managed: spec.managed(),
                    egress: if nat.is_some() { EgressV1::Nat } else { EgressV1::None },
                    subnet: spec.subnet(),
                    gateway: nat.map(Nat::gateway),
                    mtu: spec.mtu(),
                    vlan: spec.vlan(),
                    vni: spec.vni(),
                })
            }
            Event::NetworkDeleted(NetworkDeleted { network_id, name }) => {
                Self::NetworkDeletedV1(NetworkDeletedV1 { network_id, name })
            }
            Event::VmCreated(VmCreated { vm_id, name, image_url, arch, node_id }) => {
                Self::VmCreatedV1(VmCreatedV1 { vm_id, name, image_url, arch, node_id })
            }
            Event::VmDeleted(VmDeleted { vm_id, name }) => Self::VmDeletedV1(VmDeletedV1 { vm_id, name }),
            Event::NicAttached(NicAttached { nic_id, vm_id, network_id, mac }) => {
                Self::NicAttachedV1(NicAttachedV1 { nic_id, vm_id, network_id, mac, tap: tap_name(nic_id) })
            }
            Event::NicBound(NicBound { nic_id, node_id }) => Self::NicBoundV1(NicBoundV1 { nic_id, node_id }),
            Event::NicDetached(NicDetached { nic_id, vm_id, network_id }) => {
                Self::NicDetachedV1(NicDetachedV1 { nic_id, vm_id, network_id })
            }
            Event::NodeJoined(NodeJoined { node_id, name }) => Self::NodeJoinedV1(NodeJoinedV1 { node_id, name }),
            Event::NodeChanged(NodeChanged { node_id, mesh }) => {
                Self::NodeChangedV1(NodeChangedV1 { node_id, mesh: mesh.into() })
            }
            Event::NodeUnreachable(NodeUnreachable { node_id, last_heard_at }) => {
                Self::NodeUnreachableV1(NodeUnreachableV1 { node_id, last_heard_at })
            }
            Event::NodeReachable(NodeReachable { node_id }) => Self::NodeReachableV1(NodeReachableV1 { node_id }),
            Event::NodeRemoved(NodeRemoved { node_id, name }) => Self::NodeRemovedV1(NodeRemovedV1 { node_id, name }),
            Event::NodeReconciled(NodeReconciled { node_id, incarnation, sequence, results }) => {
                Self::NodeReconciledV2(NodeReconciledV2 { node_id, incarnation, sequence, results })
            }
            Event::ClusterRestored(event) => Self::ClusterRestoredV2(event.into()),
        }
    }
}

impl TryFrom<Stored> for Event {
    type Error = StoredError;
    fn try_from(stored: Stored) -> Result<Self, StoredError> {
        Ok(match stored {
            Stored::NetworkCreatedV1(v1) => Self::NetworkCreated(v1.try_into()?),
            Stored::NetworkDeletedV1(NetworkDeletedV1 { network_id, name }) => {
                Self::NetworkDeleted(NetworkDeleted { network_id, name })
            }
            Stored::VmCreatedV1(VmCreatedV1 { vm_id, name, image_url, arch, node_id }) => {
                Self::VmCreated(VmCreated { vm_id, name, image_url, arch, node_id })
            }
            Stored::VmDeletedV1(VmDeletedV1 { vm_id, name }) => Self::VmDeleted(VmDeleted { vm_id, name }),
            Stored::NicAttachedV1(NicAttachedV1 { nic_id, vm_id, network_id, mac, tap }) => {
                if tap != tap_name(nic_id) {
                    return Err(StoredError::Tap(nic_id));
                }
                Self::NicAttached(NicAttached { nic_id, vm_id, network_id, mac })
            }
            Stored::NicBoundV1(NicBoundV1 { nic_id, node_id }) => Self::NicBound(NicBound { nic_id, node_id }),
            Stored::NicDetachedV1(NicDetachedV1 { nic_id, vm_id, network_id }) => {
                Self::NicDetached(NicDetached { nic_id, vm_id, network_id })
            }
            Stored::NodeJoinedV1(NodeJoinedV1 { node_id, name }) => Self::NodeJoined(NodeJoined { node_id, name }),
            Stored::NodeChangedV1(NodeChangedV1 { node_id, mesh }) => {
                Self::NodeChanged(NodeChanged { node_id, mesh: mesh.into() })
            }
            Stored::NodeUnreachableV1(NodeUnreachableV1 { node_id, last_heard_at }) => {
                Self::NodeUnreachable(NodeUnreachable { node_id, last_heard_at })
            }
            Stored::NodeReachableV1(NodeReachableV1 { node_id }) => Self::NodeReachable(NodeReachable { node_id }),
            Stored::NodeRemovedV1(NodeRemovedV1 { node_id, name }) => Self::NodeRemoved(NodeRemoved { node_id, name }),
            Stored::NodeReconciledV1(NodeReconciledV1 { node_id, incarnation, sequence, results }) => {
                let results = results.into_iter().map(ResourceOutcome::from).collect();
                Self::NodeReconciled(NodeReconciled { node_id, incarnation, sequence, results })
            }
            Stored::NodeReconciledV2(NodeReconciledV2 { node_id, incarnation, sequence, results }) => {
                Self::NodeReconciled(NodeReconciled { node_id, incarnation, sequence, results })
            }
            Stored::ClusterRestoredV1(v1) => Self::ClusterRestored(v1.into()),
            Stored::ClusterRestoredV2(v2) => Self::ClusterRestored(v2.into()),
        })
    }
}

impl TryFrom<NetworkCreatedV1> for NetworkCreated {
    type Error = StoredError;
    fn try_from(v1: NetworkCreatedV1) -> Result<Self, StoredError> {
        let inconsistent = || StoredError::Inconsistent(v1.network_id);
        let spec = match (v1.kind, v1.vni, v1.subnet) {
            (NetworkKind::Overlay, Some(vni), Some(subnet)) => {
                NetworkSpec::Overlay(OverlaySpec { vni, subnet, mtu: v1.mtu })
            }
            (NetworkKind::Bridge, None, subnet) => NetworkSpec::Bridge(BridgeSpec {
                bridge_name: v1.bridge_name.parse().map_err(|_| inconsistent())?,
                ownership: match (v1.managed, v1.egress, subnet, v1.gateway) {
                    (false, EgressV1::None, None, None) => Ownership::Unmanaged,
                    (true, EgressV1::None, None, None) => Ownership::Managed(Egress::None),
                    (true, EgressV1::Nat, Some(subnet), Some(gateway)) => {
                        Ownership::Managed(Egress::Nat(Nat::new(subnet, Some(gateway)).map_err(|_| inconsistent())?))
                    }
                    _ => return Err(inconsistent()),
                },
                mtu: v1.mtu,
                vlan: v1.vlan,
            }),
            _ => return Err(inconsistent()),
        };
        let created = Self { network_id: v1.network_id, name: v1.name.clone(), spec };
        // Whatever the shape can say beyond the network, such as an overlay's gateway, must be as the network has it.
        if Stored::from(&Event::NetworkCreated(created.clone())) == Stored::NetworkCreatedV1(v1.clone()) {
            Ok(created)
        } else {
            Err(inconsistent())
        }
    }
}

impl From<NetworkOutcomeV1> for ResourceOutcome {
    fn from(v1: NetworkOutcomeV1) -> Self {
        let NetworkOutcomeV1 { network_id, generation, outcome } = v1;
        Self::new(ResourceRef::Network(network_id), generation, outcome)
    }
}

impl From<ClusterRestored> for ClusterRestoredV2 {
    fn from(event: ClusterRestored) -> Self {
        let ClusterRestored {
            cluster_id,
            kept,
            highest_position,
            highest_vni,
            highest_mesh_address,
            mesh_addresses_left_out,
        } = event;
        Self { cluster_id, kept, highest_position, highest_vni, highest_mesh_address, mesh_addresses_left_out }
    }
}

impl From<ClusterRestoredV1> for ClusterRestored {
    /// From a time without a mesh.
    fn from(v1: ClusterRestoredV1) -> Self {
        let ClusterRestoredV1 { cluster_id, kept, highest_position, highest_vni } = v1;
        let (highest_mesh_address, mesh_addresses_left_out) = (None, 0);
        Self { cluster_id, kept, highest_position, highest_vni, highest_mesh_address, mesh_addresses_left_out }
    }
}

impl From<ClusterRestoredV2> for ClusterRestored {
    fn from(v2: ClusterRestoredV2) -> Self {
        let ClusterRestoredV2 {
            cluster_id,
            kept,
            highest_position,
            highest_vni,
            highest_mesh_address,
            mesh_addresses_left_out,
        } = v2;
        Self { cluster_id, kept, highest_position, highest_vni, highest_mesh_address, mesh_addresses_left_out }
    }
}

impl From<MeshPeer> for MeshPeerV1 {
    fn from(peer: MeshPeer) -> Self {
        let MeshPeer { address, public_key, endpoint } = peer;
        Self { address, public_key, endpoint }
    }
}

impl From<MeshPeerV1> for MeshPeer {
    fn from(v1: MeshPeerV1) -> Self {
        let MeshPeerV1 { address, public_key, endpoint } = v1;
        Self { address, public_key, endpoint }
    }
}
