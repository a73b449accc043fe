//! What happened. An [`Event`] is what decisions give and what everything else is folded from;
//! [`stored`] has the frozen shapes in which events are kept for ever.

pub mod stored;

use crate::id::{NetworkId, NodeId};
use crate::network::NetworkSpec;
use crate::outcome::NetworkOutcome;
use crate::value::{NetworkName, NodeName};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A network was defined.
    NetworkCreated(NetworkCreated),
    /// A network was given up.
    NetworkDeleted(NetworkDeleted),
    /// A node became part of the cluster.
    NodeJoined(NodeJoined),
    /// A node's pass changed how networks fare on it.
    NodeReconciled(NodeReconciled),
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

/// A node became part of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeJoined {
    /// The node.
    pub node_id: NodeId,
    /// Its name.
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
    pub results: Vec<NetworkOutcome>,
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
    /// A node's joining and outcomes.
    Node(NodeId),
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network(id) => write!(f, "network/{id}"),
            Self::Node(id) => write!(f, "node/{id}"),
        }
    }
}

impl Event {
    /// What the event belongs to; a CloudEvent's `subject`.
    pub fn stream_id(&self) -> StreamId {
        match self {
            Self::NetworkCreated(event) => StreamId::Network(event.network_id),
            Self::NetworkDeleted(event) => StreamId::Network(event.network_id),
            Self::NodeJoined(event) => StreamId::Node(event.node_id),
            Self::NodeReconciled(event) => StreamId::Node(event.node_id),
        }
    }

    /// Who follows it.
    pub fn family(&self) -> Family {
        match self {
            Self::NetworkCreated(_) | Self::NetworkDeleted(_) | Self::NodeJoined(_) => Family::Decision,
            Self::NodeReconciled(_) => Family::Outcome,
        }
    }

    /// The kind of thing it belongs to, as in subjects and types.
    pub fn aggregate(&self) -> &'static str {
        match self.stream_id() {
            StreamId::Network(_) => "network",
            StreamId::Node(_) => "node",
        }
    }

    /// The id of the thing it belongs to, as in subjects.
    pub fn aggregate_id(&self) -> String {
        match self.stream_id() {
            StreamId::Network(id) => id.to_string(),
            StreamId::Node(id) => id.to_string(),
        }
    }

    /// What happened, in the past tense, as in subjects and types.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NetworkCreated(_) => "created",
            Self::NetworkDeleted(_) => "deleted",
            Self::NodeJoined(_) => "joined",
            Self::NodeReconciled(_) => "reconciled",
        }
    }
}
