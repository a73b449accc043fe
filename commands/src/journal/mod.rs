//! The journal: every event, durable and in order. It is the truth; the stream is its copy.
//!
//! The [`Journal`] trait is what the writer and the relay need of a database. Nothing here decides.

mod digest;
mod load;
mod open;
mod sqlite;
mod statements;

use std::future::Future;

use bytes::Bytes;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::id::EventId;
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::UserId;

use crate::config::Identity;

pub use digest::Digest;
pub use load::{LoadError, Loaded, check_handled, load};
pub use open::OpenError;
pub use sqlite::SqliteJournal;

/// An event as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub position: Position,
    /// The aggregate it belongs to.
    pub stream_id: String,
    /// Its number there.
    pub stream_version: u32,
    /// Its id.
    pub event_id: EventId,
    /// Its CloudEvents type.
    pub type_name: String,
    /// The event itself.
    pub body: Bytes,
    /// When it was decided.
    pub recorded_at: Timestamp,
    /// What vouches for it and all before it.
    pub digest: Digest,
}

impl Entry {
    /// The entry for an event with these bytes, behind one with this digest.
    pub fn new(envelope: &EventEnvelope, body: Bytes, before: Digest) -> Self {
        Self {
            position: envelope.header.position,
            stream_id: envelope.event.stream_id().to_string(),
            stream_version: envelope.header.stream_version,
            event_id: envelope.header.id,
            type_name: envelope.event.type_name().to_owned(),
            digest: before.chain(&body),
            body,
            recorded_at: envelope.header.time,
        }
    }
}

/// Positions that no event has, because a new epoch began behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last event before.
    pub kept: Position,
    /// The first event behind.
    pub next: Position,
}

impl Gap {
    /// How many positions that is.
    pub fn positions(&self) -> u64 {
        self.next.get() - self.kept.get() - 1
    }
}

/// A command that succeeded under an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handled {
    /// Who asked.
    pub user: UserId,
    /// The key.
    pub key: String,
    /// What was asked.
    pub fingerprint: Digest,
    /// What was answered.
    pub reply: Bytes,
    /// When.
    pub at: Timestamp,
}

/// What is stored in one go, or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Events, with consecutive positions.
    pub entries: Vec<Entry>,
    /// Answers to remember.
    pub handled: Vec<Handled>,
    /// Answers before this are forgotten.
    pub forget_before: Option<Timestamp>,
}

impl Batch {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.handled.is_empty()
    }
}

/// The database did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Somebody else writes to the journal: it is not as this process left it.
    #[error("the journal stands at position {found} in epoch {epoch}, not at position {expected}")]
    Fenced {
        /// Where it was left.
        expected: Position,
        /// Where it stands.
        found: Position,
        /// In which life.
        epoch: Epoch,
    },
    /// The disk did not confirm that data is durable: nothing it says can be trusted now.
    #[error("the disk did not confirm the journal's data")]
    Fsync(#[source] sqlx::Error),
    /// The database's file is damaged.
    #[error("the journal's database is damaged")]
    Damaged(#[source] sqlx::Error),
    /// Anything else; nothing may be assumed about what was stored.
    #[error("the journal's database failed")]
    Database(#[source] sqlx::Error),
    /// A stored value that no journal of ours holds.
    #[error("the journal holds a malformed value at position {position}")]
    Malformed {
        /// Where.
        position: Position,
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl JournalError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Damaged(_) => Some(open::DAMAGED),
            Self::Fsync(_) => {
                Some("check the disk; what was acknowledged is in the journal, and the next start reads all of it")
            }
            Self::Fenced { .. } => {
                Some("another process has taken the journal over; nothing that was acknowledged here is lost")
            }
            Self::Database(_) | Self::Malformed { .. } => None,
        }
    }
}

/// What the writer and the relay need of a journal.
pub trait Journal: Send + Sync + 'static {
    /// Whose journal it is.
    fn identity(&self) -> Identity;

    /// Stores a batch behind position `after`, durably, or not at all. On an error it is not known
    /// which, until [`Journal::head`] says; the same if it is dropped before its end.
    fn append(&self, after: Position, batch: &Batch) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// The position of the last event.
    fn head(&self) -> impl Future<Output = Result<Position, JournalError>> + Send;

    /// At most `limit` events behind `after`, in order.
    fn read(&self, after: Position, limit: u32) -> impl Future<Output = Result<Vec<Entry>, JournalError>> + Send;

    /// Where epochs began, oldest first.
    fn gaps(&self) -> impl Future<Output = Result<Vec<Gap>, JournalError>> + Send;

    /// The answers that are remembered, oldest first.
    fn handled(&self) -> impl Future<Output = Result<Vec<Handled>, JournalError>> + Send;
}
