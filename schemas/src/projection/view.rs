//! What requests about read models return.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::position::Position;
use crate::timestamp::Timestamp;

/// All read models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectionsView {
    /// The position of the last event.
    pub head: Position,
    /// The read models, and `history`, from which queries about the past are answered.
    pub projections: Vec<ProjectionView>,
    /// The last rebuild since the control plane started; null if there was none.
    pub rebuild: Option<RebuildView>,
}

/// How far a read model is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectionView {
    pub name: String,
    pub state: ProjectionState,
    /// The last event that was applied.
    pub position: Position,
    /// How many positions it is behind the last event.
    pub lag: u64,
    /// The last error since the control plane started, also if it is over; null if there was none.
    pub last_error: Option<ProjectionErrorView>,
}

/// Whether a read model follows the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProjectionState {
    /// It follows, and may be some events behind.
    Following,
    /// It has stopped because of its last error, and tries again.
    Stopped,
}

impl ProjectionState {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Following => "following",
            Self::Stopped => "stopped",
        }
    }
}

/// Why a read model stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectionErrorView {
    pub message: String,
    /// The last event that was applied before it.
    pub position: Position,
    /// When it was found first; null if the clock could not be read.
    pub time: Option<Timestamp>,
}

/// A rebuild of the read models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RebuildView {
    pub state: RebuildState,
    /// The last event that the new read models contain.
    pub position: Position,
    /// The last event when it was asked last.
    pub head: Position,
    /// How long it has taken until now, in milliseconds.
    pub duration_ms: u64,
    /// Why it failed; null otherwise.
    pub error: Option<String>,
}

/// How a rebuild goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RebuildState {
    Running,
    /// The new read models have replaced the old ones.
    Done,
    /// The old ones are in use.
    Failed,
}
