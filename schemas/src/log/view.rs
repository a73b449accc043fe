//! The log as requests return it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::position::Position;
use crate::timestamp::Timestamp;

/// The state of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogView {
    /// The public key that signs the checkpoints of the current epoch, as a vkey. Pin it: one that is told together
    /// with what it signs proves nothing.
    pub key: String,
    /// The newest checkpoint, a signed note; null before the first.
    pub checkpoint: Option<String>,
    /// When it was signed, by the control plane's clock; null if that was before its last start.
    pub signed_at: Option<Timestamp>,
    /// The position of the last event that it covers.
    pub position: Position,
    /// Why no checkpoints are signed any more; null if they are. Commands go on.
    pub stopped: Option<String>,
    /// The newest checkpoints that nodes keep, as they have reported.
    pub witnesses: Vec<LogWitnesses>,
    /// The number of nodes whose checkpoints do not fit into the answer.
    #[serde(default)]
    pub witnesses_omitted: u32,
}

/// A checkpoint, and the nodes that keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogWitnesses {
    /// The newest checkpoint that each of the nodes keeps, a signed note.
    pub checkpoint: String,
    pub node_ids: Vec<NodeId>,
}

/// A proof that the log has grown from one size to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogConsistency {
    /// The hashes in base64 (RFC 6962, section 2.1.2), at most 65.
    pub hashes: Vec<String>,
}

/// Tiles of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogTiles {
    /// The content of each tile in base64, in the order of the request; null for those that are not there.
    pub tiles: Vec<Option<String>>,
}
