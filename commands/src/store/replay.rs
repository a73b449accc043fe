//! Folds a store's events into the state, and verifies on the way that each event follows the one before.
//!
//! [`load`] begins at the state snapshot, if there is one that can be trusted, and reads only the events after it.
//! [`replay`] reads everything from the first event.

use otherix_schemas::cloudevent::{DecodeError, EventEnvelope, Header};
use otherix_schemas::cluster::ClusterEvent;
use otherix_schemas::decision_chain::ChainDigest;
use otherix_schemas::event::{Event, Family};
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::value::UserId;
use serde::Deserialize;

use super::error::DAMAGED;
use super::snapshot::{self, SnapshotError};
use super::{Digest, Entry, EventStore, IdempotencyRecord, StoreError};
use crate::config::StoreIdentity;
use crate::domain::State;

/// Events read at once.
const PAGE: u32 = 1000;

/// The state at a position, with what the next event is verified against.
#[derive(Clone, Debug)]
pub struct Replayed {
    pub state: State,
    /// Digest of the last event.
    pub digest: Digest,
    /// Digest of the decisions.
    pub decisions: ChainDigest,
    /// Epoch of the last event.
    pub epoch: Epoch,
}

/// A store's events cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot decode the event at position {position} of the journal")]
    Decode { position: Position, source: DecodeError },
    /// A column, the digest or the order of events is not what the events say.
    #[error("the journal was altered: `{column}` at position {position} is not what the events say")]
    Altered { position: Position, column: &'static str },
    /// An idempotency record answers with an event that is missing.
    #[error("the answer to `{user}` under key `{key}` names an event after the journal's end at position {head}")]
    Idempotency { user: UserId, key: String, head: Position },
    /// The state snapshot is intact, but not the state that the events lead to.
    #[error("the state snapshot at position {position} is not the state that the events lead to")]
    Snapshot { position: Position, source: SnapshotError },
}

impl LoadError {
    /// Returns what an operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Decode { .. } => Some(
                "if a newer otherixd wrote the event, run that version; otherwise restore journal.db from a backup",
            ),
            Self::Altered { .. } | Self::Idempotency { .. } => Some(DAMAGED),
            Self::Snapshot { .. } => Some(
                "the events themselves are intact: stop otherixd, run `sqlite3 journal.db 'DELETE FROM snapshots'`, \
                 and start it again; it replays all events",
            ),
        }
    }
}

impl Default for Replayed {
    fn default() -> Self {
        Self { state: State::default(), digest: Digest::GENESIS, decisions: ChainDigest::START, epoch: Epoch::FIRST }
    }
}

impl Replayed {
    /// Verifies that `entry` follows, and applies it.
    ///
    /// # Errors
    /// If it does not follow, or its columns are not what its bytes say; nothing is applied then.
    pub fn apply(&mut self, identity: StoreIdentity, entry: &Entry) -> Result<(), LoadError> {
        let position = entry.position;
        let (envelope, body_type) =
            EventEnvelope::decode_with_type(&entry.body).map_err(|source| LoadError::Decode { position, source })?;
        self.verify(identity, entry, &envelope, &body_type)?;
        self.digest = entry.digest;
        if envelope.event.family() == Family::Decision {
            self.decisions = self.decisions.after(&entry.body);
        }
        self.epoch = envelope.header.epoch;
        self.state.evolve(&envelope);
        Ok(())
    }

    fn verify(
        &self,
        identity: StoreIdentity,
        entry: &Entry,
        envelope: &EventEnvelope,
        body_type: &str,
    ) -> Result<(), LoadError> {
        let Entry { position, stream_id, stream_version, event_id, type_name, body, recorded_at, digest } = entry;
        let header = &envelope.header;
        let stream = envelope.event.stream_id();
        let (follows, is_of_epoch) = self.continues(identity, envelope);
        let checks = [
            ("position", follows && header.position == *position),
            ("decisionprev", header.decision_prev == self.state.decision_head()),
            ("stream_id", *stream_id == stream.to_string()),
            (
                "stream_version",
                *stream_version == header.stream_version && header.stream_version == self.state.next_version(stream),
            ),
            ("event_id", *event_id == header.id),
            ("type", type_name == body_type),
            ("recorded_at", *recorded_at == header.time && self.state.time() <= Some(header.time)),
            ("source", header.cluster == identity.cluster),
            ("epoch", is_of_epoch && header.epoch <= identity.epoch),
            ("digest", *digest == self.digest.chain(body)),
        ];
        match checks.into_iter().find(|(_, holds)| !holds) {
            None => Ok(()),
            Some((column, _)) => Err(LoadError::Altered { position: *position, column }),
        }
    }

    /// Returns whether an event has the next position, and whether it has the right epoch: the current one, unless it
    /// begins a later one after all positions that were used before.
    fn continues(&self, identity: StoreIdentity, envelope: &EventEnvelope) -> (bool, bool) {
        let Header { position, epoch, .. } = envelope.header;
        if let Event::Cluster(ClusterEvent::Restored(restored)) = &envelope.event {
            let is_kept = restored.cluster_id == identity.cluster && restored.kept == self.state.position();
            let is_beyond = restored.highest_position >= restored.kept && position == restored.highest_position.next();
            return (is_kept && is_beyond, epoch > self.epoch);
        }
        (position == self.state.position().next(), epoch == self.epoch)
    }
}

/// The state at the store's head, and how it was found.
#[derive(Debug)]
pub struct Loaded {
    pub replayed: Replayed,
    /// The position of the state snapshot it was loaded from; zero if all events were replayed.
    pub snapshot: Position,
    /// Why there is a state snapshot that was not used.
    pub rejected: Option<SnapshotError>,
}

/// Returns the state at the store's head: from the state snapshot if it can be trusted, otherwise from the first event.
/// Events before the snapshot are not verified.
///
/// # Errors
/// If the store cannot be read, or an event after the snapshot was altered.
pub async fn load<S: EventStore>(store: &S) -> Result<Loaded, LoadError> {
    let (begin, rejected) = match snapshot::load(store).await? {
        Ok(begin) => (begin.unwrap_or_default(), None),
        Err(error) => (Replayed::default(), Some(error)),
    };
    let snapshot = begin.state.position();
    Ok(Loaded { replayed: replay_from(store, begin, |_| Ok(())).await?, snapshot, rejected })
}

/// Returns the state at the store's head, verifying every event from the first. The state snapshot, if there is one
/// that can be read, must be the state that the events lead to.
///
/// # Errors
/// If the store cannot be read, an event was altered, or the snapshot differs.
pub async fn replay<S: EventStore>(store: &S) -> Result<Replayed, LoadError> {
    // One that is unreadable is never used either.
    let snapshot = snapshot::load(store).await?.ok().flatten();
    replay_from(store, Replayed::default(), |replayed| match &snapshot {
        Some(snapshot) if snapshot.state.position() == replayed.state.position() => {
            snapshot::compare(snapshot, replayed)
                .map_err(|source| LoadError::Snapshot { position: replayed.state.position(), source })
        }
        Some(_) | None => Ok(()),
    })
    .await
}

async fn replay_from<S: EventStore>(
    store: &S,
    mut replayed: Replayed,
    mut check: impl FnMut(&Replayed) -> Result<(), LoadError>,
) -> Result<Replayed, LoadError> {
    let identity = store.identity();
    let mut page = store.read(replayed.state.position(), PAGE).await?;
    while let Some(last) = page.last().map(|entry| entry.position) {
        // The store reads the next page while this one is applied.
        let apply = async {
            for entry in &page {
                replayed.apply(identity, entry)?;
                check(&replayed)?;
            }
            Ok::<_, LoadError>(())
        };
        let (next, applied) = futures::join!(store.read(last, PAGE), apply);
        applied?;
        page = next?;
    }
    if replayed.epoch != identity.epoch {
        return Err(LoadError::Altered { position: replayed.state.position(), column: "epoch" });
    }
    Ok(replayed)
}

/// Checks the idempotency records, which are not part of the digest chain: each answer names an event that exists.
///
/// # Errors
/// If one does not: it was altered, or the store has lost its last events.
pub async fn check_idempotency_records<S: EventStore>(store: &S, head: Position) -> Result<(), LoadError> {
    let mut last: Option<IdempotencyRecord> = None;
    loop {
        let page = store.idempotency_records(last.as_ref(), PAGE).await?;
        for record in &page {
            let answer: Option<AnswerMeta> = serde_json::from_slice(&record.reply).ok();
            if answer.is_none_or(|answer| answer.meta.position > head) {
                return Err(LoadError::Idempotency { user: record.user.clone(), key: record.key.clone(), head });
            }
        }
        last = page.into_iter().next_back();
        if last.is_none() {
            return Ok(());
        }
    }
}

/// What every answer has.
#[derive(Deserialize)]
struct AnswerMeta {
    meta: MetaPosition,
}

#[derive(Deserialize)]
struct MetaPosition {
    position: Position,
}
