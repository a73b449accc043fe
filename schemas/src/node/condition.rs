//! Conditions of a node as a whole: what no resource on it shows, and only an operator can resolve.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Event, EventProvenance, StreamId, same_shape};
use crate::id::NodeId;
use crate::timestamp::Timestamp;

use super::NodeEvent;

/// Longest detail of a condition, in bytes; what is longer is cut off.
pub const CONDITION_DETAIL_MAX: usize = 512;

/// What is wrong with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeConditionKind {
    /// Two agents run with the node's id: its state folder was copied.
    DuplicateAgent,
    /// The agent was started with an older copy of its state folder.
    SetBack,
    /// The control plane has signed another history than the one that the node has followed, which changes nothing.
    Contradiction,
    /// The transparency log of the control plane is not what the node has kept of it: history was changed, or taken
    /// back.
    LogContradiction,
}

/// Something that is wrong with a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeCondition {
    pub kind: NodeConditionKind,
    /// As it was when the condition began; at most 512 bytes.
    pub detail: String,
}

/// The conditions of a node have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConditionsChanged {
    pub node_id: NodeId,
    /// All that are present, one of each kind.
    pub conditions: Vec<NodeCondition>,
}

/// What is wrong with a node as a whole has changed: a condition has begun, or is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeConditionsChangedV1 {
    pub node_id: NodeId,
    /// All that are present, one of each kind.
    pub conditions: Vec<NodeCondition>,
}

same_shape!(
    NodeConditionsChanged,
    NodeConditionsChangedV1 { node_id, conditions },
    |event| StreamId::Node(event.node_id),
    |event| Event::Node(NodeEvent::ConditionsChanged(event)),
    Outcome,
    "dev.otherix.node.conditions-changed.v1",
    "A condition of a node has begun, or is over",
    EventProvenance {
        when: "The control plane finds a condition of a node, or that it is over.",
        requests: &[],
        causes: &["node.conditions-changed"]
    }
);

/// A condition of a node as queries return it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeConditionView {
    pub kind: NodeConditionKind,
    /// When it was recorded.
    pub since: Timestamp,
    /// As it was then.
    pub detail: String,
    /// What to do.
    pub hint: String,
}

impl NodeConditionKind {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DuplicateAgent => "duplicate_agent",
            Self::SetBack => "set_back",
            Self::Contradiction => "contradiction",
            Self::LogContradiction => "log_contradiction",
        }
    }

    /// What an operator should do.
    pub fn hint(self) -> &'static str {
        match self {
            Self::DuplicateAgent => {
                "on the machine that is the copy, stop the agent, empty its state folder, and let it join as a node of \
                 its own"
            }
            Self::SetBack => {
                "if the machine or its state folder was restored from a copy, nothing is left to do: the agent \
                 continues with the present state; otherwise look for a second machine with this state folder"
            }
            Self::Contradiction => {
                "the node changes nothing; if the journal was replaced on purpose, run `otherix-agent release --state \
                 DIR` on the node"
            }
            Self::LogContradiction => {
                "somebody has changed recorded events, or restored the journal without a new epoch: keep \
                 `witness.json` of the node as evidence, and compare an `otherix audit export` with older ones; if \
                 that was done on purpose, run `otherix-agent release --state DIR` on the node"
            }
        }
    }
}
