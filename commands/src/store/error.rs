//! Errors of event stores. Causes are boxed, so that no type of a database is part of the interface.

use std::io;
use std::path::PathBuf;

use otherix_schemas::position::{Epoch, Position};

/// The cause of a store's error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What to do about a damaged store.
pub(super) const DAMAGED: &str = "restore journal.db from a backup (without journal.db-wal and journal.db-shm), then \
     run `otherixd journal adopt` to take the missing events over from the stream";

/// An operation on an event store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another writer has appended to the store, or begun a new epoch.
    #[error("the event store is at position {found} in epoch {epoch}, not at position {expected}")]
    Fenced { expected: Position, found: Position, epoch: Epoch },
    /// The disk did not confirm that the data is durable (a failed fsync). No later answer of it can be trusted.
    #[error("the disk did not confirm that the event store's data is durable")]
    NotDurable(#[source] BoxError),
    #[error("the event store's file is damaged")]
    Damaged(#[source] BoxError),
    /// Any other failure. Whether the operation took effect is unknown.
    #[error("the event store is unavailable")]
    Unavailable(#[source] BoxError),
    /// A stored value that otherix never writes.
    #[error("the event store holds a malformed value at position {position}")]
    Malformed { position: Position, source: BoxError },
}

impl StoreError {
    /// Returns what an operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Damaged(_) => Some(DAMAGED),
            Self::NotDurable(_) => {
                Some("check the disk; all acknowledged events are in the journal, and the next start verifies them")
            }
            Self::Fenced { .. } => {
                Some("another process writes to this journal now; no event acknowledged by this one is lost")
            }
            Self::Unavailable(_) | Self::Malformed { .. } => None,
        }
    }
}

/// An event store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("there is no journal `{}`", .0.display())]
    Missing(PathBuf),
    #[error("cannot open the journal's lock file `{}`", path.display())]
    LockFile { path: PathBuf, source: io::Error },
    #[error(
        "another process{} has locked the journal `{}`",
        holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default(),
        journal.display()
    )]
    Locked {
        journal: PathBuf,
        /// The process id in the lock file, if there is one.
        holder: Option<u32>,
    },
    #[error("cannot read and write the journal `{}`", path.display())]
    Access { path: PathBuf, source: BoxError },
    /// The file is damaged, or no database.
    #[error("the journal `{}` is damaged", path.display())]
    Damaged { path: PathBuf, source: BoxError },
    #[error("the journal `{}` has schema version {version}, which this otherixd does not know", path.display())]
    Newer { path: PathBuf, version: i64 },
    #[error("cannot open the journal")]
    Unavailable(#[source] BoxError),
    #[error("cannot migrate the journal's schema")]
    Migrate(#[source] BoxError),
    /// The row with cluster and epoch is malformed.
    #[error("the journal does not say which cluster it belongs to")]
    Identity,
}

impl OpenError {
    /// Returns what an operator can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing(_) => {
                "name the state folder with --state; `otherixd run` creates a journal in an empty folder"
            }
            Self::Locked { .. } => "stop the otherixd that uses this state folder, or use another folder",
            Self::LockFile { .. } | Self::Access { .. } => {
                "otherixd must own the state folder and be able to write to it: check owner, mode and mount options"
            }
            Self::Damaged { .. } | Self::Identity => DAMAGED,
            Self::Newer { .. } => "run the newer otherixd; to go back, restore a backup made by the older one",
            Self::Unavailable(_) | Self::Migrate(_) => "check the disk and its free space",
        }
    }
}
