//! Why the log signs nothing any more.

use otherix_schemas::error::Causes;
use otherix_schemas::id::NodeId;

/// Where a checkpoint is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointOrigin {
    /// The log's own database.
    File,
    Stream,
    Node(NodeId),
    /// A heartbeat of no member of the cluster.
    UnknownNode,
}

impl std::fmt::Display for CheckpointOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File => f.write_str("in the log's own database"),
            Self::Stream => f.write_str("on the stream of checkpoints"),
            Self::Node(node) => write!(f, "kept by node {node}"),
            Self::UnknownNode => f.write_str("in a heartbeat of a node that the journal does not have"),
        }
    }
}

/// Why the log signs nothing any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogStop {
    /// Lasts until a new epoch begins.
    #[error("the journal does not continue a checkpoint {from}: {difference}")]
    Contradiction { from: CheckpointOrigin, difference: String },
    /// Lasts until the failure is over.
    #[error("{0}")]
    Failure(String),
}

impl LogStop {
    pub(super) fn failure(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Failure(Causes(error).to_string())
    }
}
