//! What readers are shown of a network.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::stored::EgressV1;
use crate::id::{NetworkId, NodeId};
use crate::network::{NetworkKind, NetworkSpec};
use crate::outcome::OutcomeStatus;
use crate::position::Position;
use crate::timestamp::Timestamp;
use crate::value::{Ipv4Subnet, Mtu, Nat, NetworkName, NodeName, VlanId, Vni};

/// The way out of a network, as it is shown.
pub type EgressView = EgressV1;

/// A network with how it fares. What it does not have is `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkView {
    /// The id.
    pub id: NetworkId,
    /// The name.
    pub name: NetworkName,
    /// The kind.
    #[serde(rename = "type")]
    pub kind: NetworkKind,
    /// The bridge on each node.
    pub bridge_name: String,
    /// Whether the bridge is ours.
    pub managed: bool,
    /// The way out.
    pub egress: EgressView,
    /// The VLAN on the bridge.
    pub vlan: Option<VlanId>,
    /// The MTU in bytes.
    pub mtu: Mtu,
    /// The subnet.
    pub subnet: Option<Ipv4Subnet>,
    /// The node's address in the subnet.
    pub gateway: Option<Ipv4Addr>,
    /// An overlay's id on the wire.
    pub vni: Option<Vni>,
    /// The position of the last decision about the network.
    pub generation: Position,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last decided about.
    pub updated_at: Timestamp,
    /// When it was deleted; a deleted network stays readable until every node has removed it.
    pub deleted_at: Option<Timestamp>,
    /// How it fares.
    pub status: NetworkStatus,
}

/// How a network fares on the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkStatus {
    /// One for each node that has reported; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<NodeStatus>>,
    /// The nodes that are to report and have not, by name; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreported: Option<Vec<SilentNode>>,
    /// Nodes that are ready for this generation.
    pub ready: u64,
    /// Nodes that have reported.
    pub reported: u64,
    /// Nodes that are to report: all of the cluster; for a deleted network those that have to remove it, or have.
    pub expected: u64,
    /// What works against the network without being ours to change.
    pub warnings: Vec<String>,
}

/// How a network fares on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStatus {
    /// The node.
    pub node_id: NodeId,
    /// Its name.
    pub node_name: NodeName,
    /// How the network fares.
    pub status: OutcomeStatus,
    /// What it waits for, or what is wrong.
    pub error: Option<String>,
    /// The generation that the node speaks of.
    pub observed_generation: Position,
    /// When the node's word was recorded.
    pub reconciled_at: Timestamp,
    /// Whether the node is heard of.
    pub reachable: bool,
    /// Whether somebody who waits for the network waits for this node: it was of the cluster, and reachable, at the
    /// position of the generation. For a deleted network: whether the node has yet to confirm the removal.
    pub awaited: bool,
}

/// A node that is to report on a network and has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SilentNode {
    /// The node.
    pub node_id: NodeId,
    /// Its name.
    pub node_name: NodeName,
    /// Whether the node is heard of.
    pub reachable: bool,
    /// As [`NodeStatus::awaited`].
    pub awaited: bool,
}

/// The points in time of a network's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
}

impl NetworkView {
    /// The view of a network that is as `spec` says.
    pub fn new(id: NetworkId, name: NetworkName, spec: &NetworkSpec, generation: Position, life: Lifetime) -> Self {
        let nat = spec.nat();
        Self {
            id,
            name,
            kind: spec.kind(),
            bridge_name: spec.bridge_name(),
            managed: spec.managed(),
            egress: if nat.is_some() { EgressView::Nat } else { EgressView::None },
            vlan: spec.vlan(),
            mtu: spec.mtu(),
            subnet: spec.subnet(),
            gateway: nat.map(Nat::gateway),
            vni: spec.vni(),
            generation,
            created_at: life.created_at,
            updated_at: life.deleted_at.unwrap_or(life.created_at),
            deleted_at: life.deleted_at,
            status: NetworkStatus::default(),
        }
    }

    /// The same view with this status.
    #[must_use]
    pub fn with_status(self, status: NetworkStatus) -> Self {
        Self { status, ..self }
    }
}
