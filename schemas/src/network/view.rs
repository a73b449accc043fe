//! A network as queries return it.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EgressV1, NetworkKind, NetworkSpec};
use crate::id::{NetworkId, NodeId};
use crate::outcome::OutcomeStatus;
use crate::position::Position;
use crate::timestamp::Timestamp;
use crate::value::{Description, GatewaySubnet, Ipv4Subnet, Labels, Metadata, Mtu, NetworkName, NodeName, VlanId, Vni};

/// A network's egress in a view.
pub type EgressView = EgressV1;

/// A network and its status. Properties that a network of its type does not have are null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkView {
    pub id: NetworkId,
    pub name: NetworkName,
    #[serde(rename = "type")]
    pub kind: NetworkKind,
    /// The bridge on each node.
    pub bridge_name: String,
    /// Whether otherix creates, repairs and removes the bridge; if not, it only checks that it exists.
    pub managed: bool,
    pub egress: EgressView,
    /// The VLAN on the bridge; null is untagged.
    pub vlan: Option<VlanId>,
    pub mtu: Mtu,
    pub subnet: Option<Ipv4Subnet>,
    /// The nodes' address in the subnet.
    pub gateway: Option<Ipv4Addr>,
    /// Whether the network assigns addresses of the subnet to its guests, which get them by DHCP.
    #[serde(default)]
    pub dhcp: bool,
    /// Whether the gateway resolves names.
    #[serde(default)]
    pub dns: bool,
    /// Whether guests may send from other addresses than those of their NICs.
    #[serde(default)]
    pub allow_spoofing: bool,
    /// The VNI of an overlay.
    pub vni: Option<Vni>,
    /// What it is for; absent if nobody has said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// Absent if there are none.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The position of the last decision about the network.
    pub generation: Position,
    pub created_at: Timestamp,
    /// The time of the last decision about the network.
    pub updated_at: Timestamp,
    /// When it was deleted. A deleted network can be queried until every node has confirmed its removal.
    pub deleted_at: Option<Timestamp>,
    pub status: NetworkStatus,
}

/// The status of a network across the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkStatus {
    /// One entry for each node that has reported; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<NetworkNodeStatus>>,
    /// Nodes that are expected to report and have not, by name; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreported: Option<Vec<UnreportedNode>>,
    /// Number of nodes that are ready for this generation.
    pub ready: u64,
    /// Number of nodes that have reported.
    pub reported: u64,
    /// Number of nodes expected to report: all of the cluster, or, for a deleted network, those that have to remove it
    /// or have removed it.
    pub expected: u64,
    /// Conditions on nodes that impair the network and that otherix does not change.
    pub warnings: Vec<String>,
}

/// The status of a network on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkNodeStatus {
    pub node_id: NodeId,
    pub node_name: NodeName,
    pub status: OutcomeStatus,
    /// What the node waits for (`pending`), or why it failed (`failed`); null otherwise.
    pub error: Option<String>,
    /// The generation that the node reported on.
    pub observed_generation: Position,
    /// When the report was recorded.
    pub reconciled_at: Timestamp,
    /// Whether the node is reachable.
    pub reachable: bool,
    /// Whether a client that waits for the network waits for this node: it was a member of the cluster, and reachable,
    /// at the position of the generation. For a deleted network: whether the node has yet to confirm the removal.
    pub awaited: bool,
}

/// A node that is expected to report on a network and has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnreportedNode {
    pub node_id: NodeId,
    pub node_name: NodeName,
    /// Whether the node is reachable.
    pub reachable: bool,
    /// Whether a client that waits for the network waits for this node; as for nodes that have reported.
    pub awaited: bool,
}

/// When a network was created and deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub created_at: Timestamp,
    pub deleted_at: Option<Timestamp>,
}

impl NetworkView {
    /// The view of a network with this spec, with an empty status.
    pub fn new(id: NetworkId, name: NetworkName, spec: &NetworkSpec, generation: Position, lifetime: Lifetime) -> Self {
        let Lifetime { created_at, deleted_at } = lifetime;
        Self {
            id,
            name,
            kind: spec.kind(),
            bridge_name: spec.bridge_name(),
            managed: spec.managed(),
            egress: if spec.nat().is_some() { EgressView::Nat } else { EgressView::None },
            vlan: spec.vlan(),
            mtu: spec.mtu(),
            subnet: spec.subnet(),
            gateway: spec.gateway_subnet().map(GatewaySubnet::gateway),
            dhcp: spec.dhcp().is_some(),
            dns: spec.dhcp().is_some_and(|dhcp| dhcp.dns),
            allow_spoofing: spec.allows_spoofing(),
            vni: spec.vni(),
            description: None,
            labels: Labels::default(),
            generation,
            created_at,
            updated_at: deleted_at.unwrap_or(created_at),
            deleted_at,
            status: NetworkStatus::default(),
        }
    }

    /// Replaces description and labels.
    #[must_use]
    pub fn with_metadata(self, metadata: Metadata) -> Self {
        let Metadata { description, labels } = metadata;
        Self { description, labels, ..self }
    }

    /// Replaces the time of the last decision.
    #[must_use]
    pub fn with_updated_at(self, updated_at: Timestamp) -> Self {
        Self { updated_at, ..self }
    }

    /// Replaces the status.
    #[must_use]
    pub fn with_status(self, status: NetworkStatus) -> Self {
        Self { status, ..self }
    }
}
