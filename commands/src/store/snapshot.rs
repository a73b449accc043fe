//! State snapshots: the writer's state at a position, serialised, so that a start need not replay the events before it.
//!
//! A snapshot is derived data. It is used only if it is intact and fits the store in every respect, and ignored
//! otherwise: then all events are replayed. See docs/adr/0013.

use bytes::Bytes;
use otherix_schemas::decision_chain::ChainDigest;
use otherix_schemas::id::EventId;
use otherix_schemas::position::Position;

use super::{Digest, Entry, EventStore, Replayed, StoreError};
use crate::config::StoreIdentity;
use crate::domain::State;

/// The version of the encoding. Raise it whenever the serialised form of [`State`], or the meaning of a value in it,
/// changes; a test compares the form with that of a checked-in snapshot.
pub const FORMAT: u32 = 12;

/// A snapshot as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    pub format: u32,
    /// Cluster and epoch of the store when it was saved.
    pub identity: StoreIdentity,
    pub position: Position,
    /// Id and digest of the event at `position`.
    pub event_id: EventId,
    pub event_digest: Digest,
    /// Digest of all other fields.
    pub sha256: Digest,
    /// The digest of the decisions and the state, serialised.
    pub bytes: Bytes,
}

/// A snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("it has format {0}, and this version reads format {FORMAT}")]
    Format(u32),
    #[error("it is of cluster {} in epoch {}", .0.cluster, .0.epoch)]
    Identity(StoreIdentity),
    #[error("its bytes do not have its digest")]
    Digest,
    #[error("there is no event at its position {0}")]
    Ahead(Position),
    #[error("the event at its position {0} is another one")]
    Event(Position),
    #[error("it cannot be decoded")]
    Decode(#[source] postcard::Error),
    /// The decoded state is of another position.
    #[error("it holds the state at position {0}")]
    Position(Position),
    #[error("its `{0}` is not what the events lead to")]
    Differs(&'static str),
}

impl StoredSnapshot {
    /// Serialises a state and the digest of its decisions. `last` is the store's last event that is applied to it.
    ///
    /// # Errors
    /// If a value has no serialised form.
    pub fn new(
        identity: StoreIdentity,
        state: &State,
        decisions: ChainDigest,
        last: &Entry,
    ) -> Result<Self, postcard::Error> {
        let mut snapshot = Self {
            format: FORMAT,
            identity,
            position: last.position,
            event_id: last.event_id,
            event_digest: last.digest,
            sha256: Digest::GENESIS,
            bytes: postcard::to_allocvec(&(decisions.bytes(), state))?.into(),
        };
        snapshot.sha256 = snapshot.digest();
        Ok(snapshot)
    }

    /// Returns the digest of all fields but `sha256`.
    pub fn digest(&self) -> Digest {
        let Self {
            format,
            identity: StoreIdentity { cluster, epoch },
            position,
            event_id,
            event_digest,
            sha256: _,
            bytes,
        } = self;
        Digest::of(&[
            &format.to_be_bytes(),
            cluster.uuid().as_bytes(),
            &epoch.get().to_be_bytes(),
            &position.get().to_be_bytes(),
            event_id.uuid().as_bytes(),
            event_digest.as_bytes(),
            bytes,
        ])
    }

    /// Checks the snapshot against the store's identity and its event at the snapshot's position, and decodes it.
    fn verify(&self, identity: StoreIdentity, entry: Option<&Entry>) -> Result<Replayed, SnapshotError> {
        if self.format != FORMAT {
            return Err(SnapshotError::Format(self.format));
        }
        if self.identity != identity {
            return Err(SnapshotError::Identity(self.identity));
        }
        if self.digest() != self.sha256 {
            return Err(SnapshotError::Digest);
        }
        let entry = entry.ok_or(SnapshotError::Ahead(self.position))?;
        if (entry.position, entry.event_id, entry.digest) != (self.position, self.event_id, self.event_digest) {
            return Err(SnapshotError::Event(self.position));
        }
        let (decisions, state): ([u8; 32], State) = postcard::from_bytes(&self.bytes).map_err(SnapshotError::Decode)?;
        if state.position() != self.position {
            return Err(SnapshotError::Position(state.position()));
        }
        // The current epoch is that of the last event: begin_epoch discards snapshots.
        Ok(Replayed { state, digest: self.event_digest, decisions: decisions.into(), epoch: self.identity.epoch })
    }
}

/// Loads and verifies the store's newest snapshot. Returns none if there is none.
///
/// # Errors
/// The outer error if the store cannot be read, the inner one if the snapshot cannot be used.
pub async fn load<S: EventStore>(store: &S) -> Result<Result<Option<Replayed>, SnapshotError>, StoreError> {
    let Some(snapshot) = store.snapshot().await? else { return Ok(Ok(None)) };
    let before = Position::new(snapshot.position.get().saturating_sub(1));
    let entry = store.read(before, 1).await?.pop();
    Ok(snapshot.verify(store.identity(), entry.as_ref()).map(Some))
}

/// Saves a snapshot of the state after all events that are in the store up to its position.
///
/// # Errors
/// If the store fails, or its event at that position is not the state's last.
pub async fn save<S: EventStore>(store: &S, replayed: &Replayed) -> Result<(), StoreError> {
    let position = replayed.state.position();
    if position == Position::ZERO {
        return Ok(());
    }
    let last = store.read(Position::new(position.get() - 1), 1).await?.pop();
    let last = last.filter(|last| (last.position, last.digest) == (position, replayed.digest));
    let Some(last) = last else {
        return Err(StoreError::Malformed { position, source: "not the last event of the state".into() });
    };
    let snapshot = StoredSnapshot::new(store.identity(), &replayed.state, replayed.decisions, &last)
        .map_err(|source| StoreError::Malformed { position, source: source.into() })?;
    store.save_snapshot(&snapshot).await
}

/// Compares a snapshot with what all events up to its position lead to.
///
/// # Errors
/// If they differ.
pub fn compare(snapshot: &Replayed, replayed: &Replayed) -> Result<(), SnapshotError> {
    let Replayed { state, digest, decisions, epoch } = snapshot;
    let checks = [
        ("digest", *digest == replayed.digest),
        ("epoch", *epoch == replayed.epoch),
        ("state", *state == replayed.state),
        ("decisions", *decisions == replayed.decisions),
    ];
    match checks.into_iter().find(|(_, is_same)| !is_same) {
        None => Ok(()),
        Some((what, _)) => Err(SnapshotError::Differs(what)),
    }
}
