//! The event store: every event, durable and in order. It is the source of truth; the stream is a copy of it.
//!
//! Writer, relay, recovery and the subcommands of `otherixd` know only the trait [`EventStore`]. A backend's own
//! constructor opens it (path, lock, migrations). Every backend passes the suite in
//! `commands/tests/event_store/conformance`. Nothing here decides anything.

mod digest;
mod error;
pub mod memory;
mod replay;
pub mod snapshot;
pub mod sqlite;

use std::future::Future;

use bytes::Bytes;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::id::{ClusterId, EventId};
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::UserId;

use crate::config::StoreIdentity;

pub use digest::Digest;
pub use error::{BoxError, OpenError, StoreError};
pub use memory::MemoryStore;
pub use replay::{LoadError, Loaded, Replayed, check_idempotency_records, load, replay};
pub use snapshot::{SnapshotError, StoredSnapshot};
pub use sqlite::SqliteStore;

/// An event as the store keeps it. Everything but `digest` is also in `body`, and copied for look-ups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub position: Position,
    /// The aggregate, as in the CloudEvent's `subject`.
    pub stream_id: String,
    pub stream_version: u32,
    pub event_id: EventId,
    /// The CloudEvent's `type`.
    pub type_name: String,
    /// The CloudEvent's bytes.
    pub body: Bytes,
    pub recorded_at: Timestamp,
    /// SHA-256 over the previous event's digest and `body`.
    pub digest: Digest,
}

impl Entry {
    /// Returns the entry for an event with these bytes that follows an event with digest `previous`.
    pub fn new(envelope: &EventEnvelope, body: Bytes, previous: Digest) -> Self {
        Self {
            position: envelope.header.position,
            stream_id: envelope.event.stream_id().to_string(),
            stream_version: envelope.header.stream_version,
            event_id: envelope.header.id,
            type_name: envelope.event.type_name().to_owned(),
            digest: previous.chain(&body),
            body,
            recorded_at: envelope.header.time,
        }
    }
}

/// Positions that no event has, because a new epoch began after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last event before the gap; zero if there is none.
    pub kept: Position,
    /// The first event after it.
    pub next: Position,
}

impl Gap {
    /// Returns how many positions are left out.
    pub fn positions(&self) -> u64 {
        self.next.get() - self.kept.get() - 1
    }
}

/// A command that succeeded under an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyRecord {
    pub user: UserId,
    pub key: String,
    /// Digest of the request.
    pub fingerprint: Digest,
    /// The answer's bytes.
    pub reply: Bytes,
    /// When the command was decided.
    pub at: Timestamp,
}

/// What one append stores: all of it or nothing.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Events with consecutive positions.
    pub entries: Vec<Entry>,
    pub idempotency: Vec<IdempotencyRecord>,
    /// Records older than this may be deleted: at least 200 of them, if there are so many, but not so many that the
    /// append is delayed.
    pub expire_before: Option<Timestamp>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.idempotency.is_empty()
    }
}

/// A durable, append-only, ordered store of events, with the idempotency records and state snapshots that belong to it.
///
/// Reads may run while an append is under way; they see each batch whole or not at all.
pub trait EventStore: Send + Sync + 'static {
    /// Returns the cluster and the current epoch.
    fn identity(&self) -> StoreIdentity;

    /// Stores a batch after position `after`, durably, or not at all.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the store's head is not `after` or its epoch is not this store's: nothing was stored.
    /// After any other error, or if the future is dropped, the outcome is unknown until [`EventStore::head`] is read.
    fn append(&self, after: Position, batch: &Batch) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Returns the position of the last event, zero if there is none.
    fn head(&self) -> impl Future<Output = Result<Position, StoreError>> + Send;

    /// Returns at most `limit` events after `after`, in order. Empty only if there are none.
    fn read(&self, after: Position, limit: u32) -> impl Future<Output = Result<Vec<Entry>, StoreError>> + Send;

    /// Like [`EventStore::read`], but only positions and CloudEvents' bytes, which is faster.
    fn read_bodies(
        &self,
        after: Position,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<(Position, Bytes)>, StoreError>> + Send {
        async move {
            let entries = self.read(after, limit).await?;
            Ok(entries.into_iter().map(|entry| (entry.position, entry.body)).collect())
        }
    }

    /// Returns where epochs began, oldest first.
    fn gaps(&self) -> impl Future<Output = Result<Vec<Gap>, StoreError>> + Send;

    /// Stores the first event of a new epoch after position `after`, makes that epoch the current one, fences all
    /// writers of the earlier one and discards the state snapshots: all of it or nothing.
    fn begin_epoch(
        &mut self,
        after: Position,
        first: &Entry,
        epoch: Epoch,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Changes the cluster of an empty store, before events are adopted. A store with events is not changed.
    fn adopt_cluster(&mut self, cluster: ClusterId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Returns the record under a user's key. It may have expired.
    fn idempotency_record(
        &self,
        user: &UserId,
        key: &str,
    ) -> impl Future<Output = Result<Option<IdempotencyRecord>, StoreError>> + Send;

    /// Returns at most `limit` records in the order of time, user and key: the first ones, or those that follow
    /// `after`.
    fn idempotency_records(
        &self,
        after: Option<&IdempotencyRecord>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<IdempotencyRecord>, StoreError>> + Send;

    /// Returns the users and keys of at most `limit` records in this order: the first ones, or those that follow
    /// `after`.
    fn idempotency_keys(
        &self,
        after: Option<(&UserId, &str)>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<(UserId, String)>, StoreError>> + Send;

    /// Returns the newest state snapshot as it was saved. The caller verifies it.
    fn snapshot(&self) -> impl Future<Output = Result<Option<StoredSnapshot>, StoreError>> + Send;

    /// Saves a state snapshot in place of older ones. Appends go on meanwhile and are hardly delayed. A save that is
    /// interrupted leaves the earlier snapshot in place.
    fn save_snapshot(&self, snapshot: &StoredSnapshot) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Deletes all state snapshots.
    fn discard_snapshots(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Does the store's background work, such as moving its log into its file. The writer polls it for as long as it
    /// runs; it never ends, and may be dropped at any await.
    fn upkeep(&self) -> impl Future<Output = std::convert::Infallible> + Send;

    /// Checks that the store's own files are intact; the events are not decoded.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if they are not.
    fn check(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Waits for running operations and closes the store.
    fn close(&self) -> impl Future<Output = ()> + Send;
}
