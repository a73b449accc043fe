//! Events of nodes, and the shapes in which they are stored.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    NodeCapacityReported, NodeCapacityReportedV1, NodeConditionsChanged, NodeConditionsChangedV1, NodeCordoned,
    NodeCordonedV1, NodeLabelled, NodeLabelledV1, NodeUncordoned, NodeUncordonedV1,
};
use crate::event::{
    Assigned, DomainEvent, Event, EventDeclaration, EventProvenance, EventVisitor, Family, StoredError, StoredShape,
    StreamId, same_shape,
};
use crate::id::{NetworkId, NicId, NodeId};
use crate::outcome::{Outcome, ResourceOutcome, ResourceRef};
use crate::position::Position;
use crate::timestamp::Timestamp;
use crate::value::{MeshEndpoint, MeshPublicKey, NodeName};
use crate::vm::Arch;

/// Every stored shape of a node's events.
pub(crate) const EVENTS: &[EventDeclaration] = &[
    EventDeclaration::of::<NodeJoinedV1>(),
    EventDeclaration::of::<NodeChangedV1>(),
    EventDeclaration::of::<NodeUnreachableV1>(),
    EventDeclaration::of::<NodeReachableV1>(),
    EventDeclaration::of::<NodeRemovedV1>(),
    EventDeclaration::of::<NodeReconciledV1>(),
    EventDeclaration::of::<NodeReconciledV2>(),
    EventDeclaration::of::<NodeReconciledV3>(),
    EventDeclaration::of::<NodeDescribedV1>(),
    EventDeclaration::of::<NodeConditionsChangedV1>(),
    EventDeclaration::of::<NodeCordonedV1>(),
    EventDeclaration::of::<NodeUncordonedV1>(),
    EventDeclaration::of::<NodeCapacityReportedV1>(),
    EventDeclaration::of::<NodeLabelledV1>(),
];

/// An event of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeEvent {
    Joined(NodeJoined),
    Changed(NodeChanged),
    Unreachable(NodeUnreachable),
    Reachable(NodeReachable),
    Removed(NodeRemoved),
    Reconciled(NodeReconciled),
    Described(NodeDescribed),
    ConditionsChanged(NodeConditionsChanged),
    Cordoned(NodeCordoned),
    Uncordoned(NodeUncordoned),
    CapacityReported(NodeCapacityReported),
    Labelled(NodeLabelled),
}

impl NodeEvent {
    pub(crate) fn accept<V: EventVisitor>(&self, visitor: V) -> V::Output {
        match self {
            Self::Joined(event) => visitor.visit(event),
            Self::Changed(event) => visitor.visit(event),
            Self::Unreachable(event) => visitor.visit(event),
            Self::Reachable(event) => visitor.visit(event),
            Self::Removed(event) => visitor.visit(event),
            Self::Reconciled(event) => visitor.visit(event),
            Self::Described(event) => visitor.visit(event),
            Self::ConditionsChanged(event) => visitor.visit(event),
            Self::Cordoned(event) => visitor.visit(event),
            Self::Uncordoned(event) => visitor.visit(event),
            Self::CapacityReported(event) => visitor.visit(event),
            Self::Labelled(event) => visitor.visit(event),
        }
    }
}

/// A node joined the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeJoined {
    pub node_id: NodeId,
    pub name: NodeName,
}

/// A node's membership in the mesh began or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeChanged {
    pub node_id: NodeId,
    /// Replaces the previous membership.
    pub mesh: MeshPeer,
}

/// A node's membership in the mesh: how the other nodes reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeshPeer {
    /// The node's mesh address, the same for as long as the node exists and never assigned to another.
    pub address: Ipv4Addr,
    /// No other node has, or ever had, this key.
    pub public_key: MeshPublicKey,
    /// Where the node receives WireGuard's UDP packets.
    pub endpoint: MeshEndpoint,
}

/// A node sent no heartbeat for 15 s: the statuses that it reported may be out of date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeUnreachable {
    pub node_id: NodeId,
    /// The node's last request or heartbeat; `None` if there was none since the control plane started.
    pub last_heard_at: Option<Timestamp>,
}

/// An unreachable node sent a heartbeat again, at the time of the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReachable {
    pub node_id: NodeId,
}

/// A node was removed from the cluster permanently: it removes its devices, its reports are no longer awaited, and its
/// id can never join again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRemoved {
    pub node_id: NodeId,
    /// Repeated for consumers that see only this event.
    pub name: NodeName,
}

/// A node reported outcomes that differ from those recorded before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReconciled {
    pub node_id: NodeId,
    /// Number of the agent's start that sent the report.
    pub incarnation: u64,
    /// Number of the report within the incarnation.
    pub sequence: u64,
    /// The outcomes that differ from those recorded before.
    pub results: Vec<ResourceOutcome>,
}

/// A node told what kind of machine it is, for the first time or differently than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDescribed {
    pub node_id: NodeId,
    /// The architecture of the VMs that it can run.
    pub arch: Arch,
}

impl DomainEvent for NodeChanged {
    type Stored = NodeChangedV1;

    fn stream_id(&self) -> StreamId {
        StreamId::Node(self.node_id)
    }

    fn to_stored(&self) -> NodeChangedV1 {
        let Self { node_id, mesh: MeshPeer { address, public_key, endpoint } } = self.clone();
        NodeChangedV1 { node_id, mesh: MeshPeerV1 { address, public_key, endpoint } }
    }

    fn assigned(&self) -> Assigned {
        Assigned { mesh_address: Some(self.mesh.address), ..Assigned::default() }
    }

    fn into_event(self) -> Event {
        Event::Node(NodeEvent::Changed(self))
    }
}

/// A node joined the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeJoinedV1 {
    pub node_id: NodeId,
    /// Unique among the cluster's nodes, without regard to case.
    pub name: NodeName,
}

/// A node's membership in the mesh began or changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeChangedV1 {
    pub node_id: NodeId,
    /// Replaces the previous membership.
    pub mesh: MeshPeerV1,
}

/// A node's membership in the mesh: how the other nodes reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeshPeerV1 {
    /// The node's mesh address, the same for as long as the node exists and never assigned to another.
    pub address: Ipv4Addr,
    /// No other node has, or ever had, this key.
    pub public_key: MeshPublicKey,
    /// Where the node receives WireGuard's UDP packets.
    pub endpoint: MeshEndpoint,
}

/// A node sent no heartbeat for 15 s: the statuses that it reported may be out of date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeUnreachableV1 {
    pub node_id: NodeId,
    /// The node's last request or heartbeat; null if there was none since the control plane started.
    pub last_heard_at: Option<Timestamp>,
}

/// An unreachable node sent a heartbeat again, at the time of the event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeReachableV1 {
    pub node_id: NodeId,
}

/// A node was removed from the cluster permanently: it removes its devices, and its id can never join again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeRemovedV1 {
    pub node_id: NodeId,
    pub name: NodeName,
}

/// A node reported outcomes of networks that differ from those recorded before. Superseded by version 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeReconciledV1 {
    pub node_id: NodeId,
    /// Number of the agent's start that sent the report, from 1.
    pub incarnation: u64,
    /// Number of the report within the incarnation, from 1.
    pub sequence: u64,
    /// The outcomes that differ from those recorded before.
    pub results: Vec<NetworkOutcomeV1>,
}

/// The outcome of one network on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkOutcomeV1 {
    pub network_id: NetworkId,
    /// The position of the decision that this is the outcome of.
    pub generation: Position,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A node reported outcomes of networks or NICs that differ from those recorded before. Superseded by version 3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeReconciledV2 {
    pub node_id: NodeId,
    /// Number of the agent's start that sent the report, from 1.
    pub incarnation: u64,
    /// Number of the report within the incarnation, from 1.
    pub sequence: u64,
    /// The outcomes that differ from those recorded before.
    pub results: Vec<ResourceOutcomeV2>,
}

/// The outcome of one resource on the reporting node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ResourceOutcome")]
pub struct ResourceOutcomeV2 {
    #[serde(flatten)]
    pub resource: ResourceRefV2,
    /// The position of the decision about the resource that this is the outcome of.
    pub generation: Position,
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Conditions on the node that impair the resource and that otherix does not change. At most 4 of up to 256
    /// characters are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A network or a NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ResourceRefV2 {
    #[serde(rename = "network_id")]
    Network(NetworkId),
    #[serde(rename = "nic_id")]
    Nic(NicId),
}

/// A node reported outcomes of networks, NICs or machines of VMs that differ from those recorded before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeReconciledV3 {
    pub node_id: NodeId,
    /// Number of the agent's start that sent the report, from 1.
    pub incarnation: u64,
    /// Number of the report within the incarnation, from 1.
    pub sequence: u64,
    /// The outcomes that differ from those recorded before.
    pub results: Vec<ResourceOutcome>,
}

/// A node told what kind of machine it is, for the first time or differently than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeDescribedV1 {
    pub node_id: NodeId,
    /// The architecture of the VMs that it can run.
    pub arch: Arch,
}

impl StoredShape for NodeChangedV1 {
    const TYPE: &'static str = "dev.otherix.node.changed.v1";
    const FAMILY: Family = Family::Decision;
    const SUMMARY: &'static str = "A node's membership in the mesh began or changed";
    const PROVENANCE: EventProvenance = EventProvenance {
        when: "An agent starts and offers a mesh key or an endpoint that is not recorded.",
        requests: &["node.join"],
        causes: &["node.joined", "node.reachable"],
    };
    type Event = NodeChanged;

    fn upcast(self) -> Result<NodeChanged, StoredError> {
        let Self { node_id, mesh: MeshPeerV1 { address, public_key, endpoint } } = self;
        Ok(NodeChanged { node_id, mesh: MeshPeer { address, public_key, endpoint } })
    }
}

impl StoredShape for NodeReconciledV1 {
    const TYPE: &'static str = "dev.otherix.node.reconciled.v1";
    const FAMILY: Family = Family::Outcome;
    const SUMMARY: &'static str = "A node reported outcomes of networks";
    const PROVENANCE: EventProvenance = EventProvenance::SUPERSEDED;
    type Event = NodeReconciled;

    fn upcast(self) -> Result<NodeReconciled, StoredError> {
        let Self { node_id, incarnation, sequence, results } = self;
        let results = results
            .into_iter()
            .map(|NetworkOutcomeV1 { network_id, generation, outcome }| {
                ResourceOutcome::new(ResourceRef::Network(network_id), generation, outcome)
            })
            .collect();
        Ok(NodeReconciled { node_id, incarnation, sequence, results })
    }
}

impl StoredShape for NodeReconciledV2 {
    const TYPE: &'static str = "dev.otherix.node.reconciled.v2";
    const FAMILY: Family = Family::Outcome;
    const SUMMARY: &'static str = "A node reported outcomes of networks or NICs";
    const PROVENANCE: EventProvenance = EventProvenance::SUPERSEDED;
    type Event = NodeReconciled;

    fn upcast(self) -> Result<NodeReconciled, StoredError> {
        let Self { node_id, incarnation, sequence, results } = self;
        let results = results
            .into_iter()
            .map(|ResourceOutcomeV2 { resource, generation, outcome, warnings }| {
                let resource = match resource {
                    ResourceRefV2::Network(id) => ResourceRef::Network(id),
                    ResourceRefV2::Nic(id) => ResourceRef::Nic(id),
                };
                // Version 2 predates machines.
                ResourceOutcome { resource, generation, outcome, warnings, machine: None }
            })
            .collect();
        Ok(NodeReconciled { node_id, incarnation, sequence, results })
    }
}

/// Implements an event of a node whose stored shape has the same fields.
macro_rules! node_event {
    (
        $event:ident, $variant:ident, $stored:ident { $($field:ident),* }, $family:ident, $type:literal,
        $summary:literal, $provenance:expr
    ) => {
        same_shape!(
            $event, $stored { $($field),* }, |event| StreamId::Node(event.node_id),
            |event| Event::Node(NodeEvent::$variant(event)), $family, $type, $summary, $provenance
        );
    };
}

node_event!(
    NodeJoined,
    Joined,
    NodeJoinedV1 { node_id, name },
    Decision,
    "dev.otherix.node.joined.v1",
    "A node joined the cluster",
    EventProvenance {
        when: "The agent of a machine that has redeemed a join token starts for the first time.",
        requests: &["node.join"],
        causes: &[]
    }
);
node_event!(
    NodeUnreachable,
    Unreachable,
    NodeUnreachableV1 { node_id, last_heard_at },
    Decision,
    "dev.otherix.node.unreachable.v1",
    "A node became unreachable",
    EventProvenance {
        when: "The control plane has received nothing from the node for 15 s.",
        requests: &[],
        causes: &["node.unreachable"]
    }
);
node_event!(
    NodeReachable,
    Reachable,
    NodeReachableV1 { node_id },
    Decision,
    "dev.otherix.node.reachable.v1",
    "A node is reachable again",
    EventProvenance {
        when: "A node that was unreachable sends a heartbeat, a report, or a join request.",
        requests: &["node.join", "node.report"],
        causes: &["node.reachable", "node.unreachable"]
    }
);
node_event!(
    NodeRemoved,
    Removed,
    NodeRemovedV1 { node_id, name },
    Decision,
    "dev.otherix.node.removed.v1",
    "A node was removed from the cluster",
    EventProvenance { when: "A node is removed.", requests: &["node.delete"], causes: &[] }
);
node_event!(
    NodeReconciled,
    Reconciled,
    NodeReconciledV3 { node_id, incarnation, sequence, results },
    Outcome,
    "dev.otherix.node.reconciled.v3",
    "A node reported outcomes of networks, NICs or machines",
    EventProvenance {
        when: "A node reports outcomes that differ from the recorded ones: after a decision, after a repair, or \
            because something on the node has changed.",
        requests: &["node.report"],
        causes: &[
            "network.created",
            "network.deleted",
            "nic.attached",
            "nic.bound",
            "nic.detached",
            "vm.created",
            "vm.instructed",
            "vm.move-started",
            "vm.moved",
            "vm.move-cancelled",
            "vm.deleted",
            "node.reachable"
        ]
    }
);
node_event!(
    NodeDescribed,
    Described,
    NodeDescribedV1 { node_id, arch },
    Outcome,
    "dev.otherix.node.described.v1",
    "A node told what kind of machine it is",
    EventProvenance {
        when: "An agent starts and tells an architecture that is not recorded.",
        requests: &["node.join"],
        causes: &["node-key.changed", "node.changed", "node.joined", "node.reachable"]
    }
);
