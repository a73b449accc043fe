//! The shapes in which events are stored. They are frozen: a shape that has been released is never
//! changed, only followed by a newer one with an upcast beside it. Each has a golden sample in
//! `schemas/golden/`.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    ClusterRestored, Event, NetworkCreated, NetworkDeleted, NodeJoined, NodeReachable, NodeReconciled, NodeUnreachable,
};
use crate::id::{ClusterId, NetworkId, NodeId};
use crate::network::{BridgeSpec, Egress, NetworkKind, NetworkSpec, OverlaySpec, Ownership};
use crate::outcome::NetworkOutcome;
use crate::position::Position;
use crate::timestamp::Timestamp;
use crate::value::{Ipv4Subnet, Mtu, Nat, NetworkName, NodeName, VlanId, Vni};

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
    pub results: Vec<NetworkOutcome>,
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
}

const NETWORK_CREATED_V1: &str = "dev.otherix.network.created.v1";
const NETWORK_DELETED_V1: &str = "dev.otherix.network.deleted.v1";
const NODE_JOINED_V1: &str = "dev.otherix.node.joined.v1";
const NODE_UNREACHABLE_V1: &str = "dev.otherix.node.unreachable.v1";
const NODE_REACHABLE_V1: &str = "dev.otherix.node.reachable.v1";
const NODE_RECONCILED_V1: &str = "dev.otherix.node.reconciled.v1";
const CLUSTER_RESTORED_V1: &str = "dev.otherix.cluster.restored.v1";

/// What an event is stored as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Stored {
    /// See [`NetworkCreatedV1`].
    NetworkCreatedV1(NetworkCreatedV1),
    /// See [`NetworkDeletedV1`].
    NetworkDeletedV1(NetworkDeletedV1),
    /// See [`NodeJoinedV1`].
    NodeJoinedV1(NodeJoinedV1),
    /// See [`NodeUnreachableV1`].
    NodeUnreachableV1(NodeUnreachableV1),
    /// See [`NodeReachableV1`].
    NodeReachableV1(NodeReachableV1),
    /// See [`NodeReconciledV1`].
    NodeReconciledV1(NodeReconciledV1),
    /// See [`ClusterRestoredV1`].
    ClusterRestoredV1(ClusterRestoredV1),
}

impl Stored {
    /// The CloudEvent's `type`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::NetworkCreatedV1(_) => NETWORK_CREATED_V1,
            Self::NetworkDeletedV1(_) => NETWORK_DELETED_V1,
            Self::NodeJoinedV1(_) => NODE_JOINED_V1,
            Self::NodeUnreachableV1(_) => NODE_UNREACHABLE_V1,
            Self::NodeReachableV1(_) => NODE_REACHABLE_V1,
            Self::NodeReconciledV1(_) => NODE_RECONCILED_V1,
            Self::ClusterRestoredV1(_) => CLUSTER_RESTORED_V1,
        }
    }

    /// Reads the data of a CloudEvent of this type.
    ///
    /// # Errors
    /// When the type is unknown or the data is not of its shape.
    pub fn read(type_name: &str, data: Value) -> Result<Self, StoredError> {
        let shape = |source| StoredError::Shape { name: type_name.to_owned(), source };
        match type_name {
            NETWORK_CREATED_V1 => serde_json::from_value(data).map(Self::NetworkCreatedV1).map_err(shape),
            NETWORK_DELETED_V1 => serde_json::from_value(data).map(Self::NetworkDeletedV1).map_err(shape),
            NODE_JOINED_V1 => serde_json::from_value(data).map(Self::NodeJoinedV1).map_err(shape),
            NODE_UNREACHABLE_V1 => serde_json::from_value(data).map(Self::NodeUnreachableV1).map_err(shape),
            NODE_REACHABLE_V1 => serde_json::from_value(data).map(Self::NodeReachableV1).map_err(shape),
            NODE_RECONCILED_V1 => serde_json::from_value(data).map(Self::NodeReconciledV1).map_err(shape),
            CLUSTER_RESTORED_V1 => serde_json::from_value(data).map(Self::ClusterRestoredV1).map_err(shape),
            other => Err(StoredError::UnknownType(other.to_owned())),
        }
    }
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
            Event::NodeJoined(NodeJoined { node_id, name }) => Self::NodeJoinedV1(NodeJoinedV1 { node_id, name }),
            Event::NodeUnreachable(NodeUnreachable { node_id, last_heard_at }) => {
                Self::NodeUnreachableV1(NodeUnreachableV1 { node_id, last_heard_at })
            }
            Event::NodeReachable(NodeReachable { node_id }) => Self::NodeReachableV1(NodeReachableV1 { node_id }),
            Event::NodeReconciled(NodeReconciled { node_id, incarnation, sequence, results }) => {
                Self::NodeReconciledV1(NodeReconciledV1 { node_id, incarnation, sequence, results })
            }
            Event::ClusterRestored(ClusterRestored { cluster_id, kept, highest_position, highest_vni }) => {
                Self::ClusterRestoredV1(ClusterRestoredV1 { cluster_id, kept, highest_position, highest_vni })
            }
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
            Stored::NodeJoinedV1(NodeJoinedV1 { node_id, name }) => Self::NodeJoined(NodeJoined { node_id, name }),
            Stored::NodeUnreachableV1(NodeUnreachableV1 { node_id, last_heard_at }) => {
                Self::NodeUnreachable(NodeUnreachable { node_id, last_heard_at })
            }
            Stored::NodeReachableV1(NodeReachableV1 { node_id }) => Self::NodeReachable(NodeReachable { node_id }),
            Stored::NodeReconciledV1(NodeReconciledV1 { node_id, incarnation, sequence, results }) => {
                Self::NodeReconciled(NodeReconciled { node_id, incarnation, sequence, results })
            }
            Stored::ClusterRestoredV1(ClusterRestoredV1 { cluster_id, kept, highest_position, highest_vni }) => {
                Self::ClusterRestored(ClusterRestored { cluster_id, kept, highest_position, highest_vni })
            }
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
