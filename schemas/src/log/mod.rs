//! The transparency log: its key, and the requests that read it. What it proves is in docs/adr/0032; trees, proofs and
//! notes are `otherix-tlog`'s.

mod key;
mod request;
mod view;

pub use self::key::{LogKeyError, SignedLogKey};
pub(crate) use self::request::REQUESTS;
pub use self::request::{ConsistencyRange, GetLog, GetLogTiles, LogTileNames, NoConditions, ProveLogConsistency};
pub use self::view::{LogConsistency, LogTiles, LogView, LogWitnesses};

/// The first part of every log's origin, `<domain>/<cluster>/<epoch>`.
pub const LOG_DOMAIN: &str = "otherix.dev";

/// The longest checkpoint that a node may send, in bytes: those of otherix have about 260.
pub const CHECKPOINT_MAX: usize = 4096;

/// The most tiles of one request.
pub const LOG_TILES_MAX: usize = 48;

/// The stream of checkpoints.
pub const CHECKPOINT_STREAM: &str = "OTHERIX_CHECKPOINTS";

/// The subject of checkpoints; the epoch follows.
pub const CHECKPOINT_SUBJECTS: &str = "otherix.log.v1.checkpoint.*";

/// The origin of the log of an epoch, which is the name of its key, too.
pub fn origin(cluster: crate::id::ClusterId, epoch: crate::position::Epoch) -> String {
    format!("{LOG_DOMAIN}/{cluster}/{epoch}")
}

/// The subject on which the checkpoints of an epoch are published.
pub fn checkpoint_subject(epoch: crate::position::Epoch) -> String {
    format!("otherix.log.v1.checkpoint.{epoch}")
}
