//! Follows a journal from its beginning, checks that each event is what must come next, and gives the state at its end.

use otherix_schemas::cloudevent::{DecodeError, EventEnvelope, Header};
use otherix_schemas::cluster::ClusterEvent;
use otherix_schemas::event::Event;
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::value::UserId;
use serde::Deserialize;

use super::open::DAMAGED;
use super::{Digest, Entry, Journal, JournalError};
use crate::config::Identity;
use crate::domain::State;

/// Events read at once.
const PAGE: u32 = 1000;

/// What a journal amounts to.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The state at the end.
    pub state: State,
    /// The digest of the last event.
    pub digest: Digest,
    /// The epoch of the last event.
    pub epoch: Epoch,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The database.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// An event that cannot be read.
    #[error("the journal's event at position {position} cannot be read")]
    Decode {
        /// Where.
        position: Position,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// A column, the digest, or the order of events is not what the event itself says.
    #[error("the journal was altered: `{column}` at position {position} is not what the events say")]
    Altered {
        /// Where.
        position: Position,
        /// What.
        column: &'static str,
    },
    /// An answer that is remembered under an idempotency key rests on an event that there is not.
    #[error("`{user}` was answered under key `{key}` with more than the journal has, which ends at position {head}")]
    Handled {
        /// Who was answered.
        user: UserId,
        /// Under which key.
        key: String,
        /// The journal's end.
        head: Position,
    },
}

impl LoadError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Journal(error) => error.hint(),
            Self::Decode { .. } => {
                Some("if a newer otherixd wrote it, run that one; else it was altered: restore a backup")
            }
            Self::Altered { .. } | Self::Handled { .. } => Some(DAMAGED),
        }
    }
}

impl Default for Loaded {
    fn default() -> Self {
        Self { state: State::default(), digest: Digest::GENESIS, epoch: Epoch::FIRST }
    }
}

impl Loaded {
    /// Takes in the event that follows, if it is one that can: nothing is left out, and everything that is said of it is what
    /// it says itself.
    ///
    /// # Errors
    /// When it does not follow; nothing has changed then.
    pub fn follow(&mut self, identity: Identity, entry: &Entry) -> Result<(), LoadError> {
        let position = entry.position;
        let (envelope, is_type) =
            EventEnvelope::decode_with_type(&entry.body).map_err(|source| LoadError::Decode { position, source })?;
        self.verify(identity, entry, &envelope, &is_type)?;
        self.digest = entry.digest;
        self.epoch = envelope.header.epoch;
        self.state.evolve(&envelope);
        Ok(())
    }

    fn verify(
        &self,
        identity: Identity,
        entry: &Entry,
        envelope: &EventEnvelope,
        is_type: &str,
    ) -> Result<(), LoadError> {
        let Entry { position, stream_id, stream_version, event_id, type_name, body, recorded_at, digest } = entry;
        let header = &envelope.header;
        let stream = envelope.event.stream_id();
        let (follows, of_the_epoch) = self.continues(identity, envelope);
        let checks = [
            ("position", follows && header.position == *position),
            ("decisionprev", header.decision_prev == self.state.decision_head()),
            ("stream_id", *stream_id == stream.to_string()),
            (
                "stream_version",
                *stream_version == header.stream_version && header.stream_version == self.state.next_version(stream),
            ),
            ("event_id", *event_id == header.id),
            ("type", type_name == is_type),
            ("recorded_at", *recorded_at == header.time && self.state.time() <= Some(header.time)),
            ("source", header.cluster == identity.cluster),
            ("epoch", of_the_epoch && header.epoch <= identity.epoch),
            ("digest", *digest == self.digest.chain(body)),
        ];
        match checks.into_iter().find(|(_, holds)| !holds) {
            None => Ok(()),
            Some((column, _)) => Err(LoadError::Altered { position: *position, column }),
        }
    }

    /// Whether an event is at the next position, and of the right epoch: the one that there is, unless it begins another,
    /// behind all positions that were given before.
    fn continues(&self, identity: Identity, envelope: &EventEnvelope) -> (bool, bool) {
        let Header { position, epoch, .. } = envelope.header;
        if let Event::Cluster(ClusterEvent::Restored(restored)) = &envelope.event {
            let kept = restored.cluster_id == identity.cluster && restored.kept == self.state.position();
            let beyond = restored.highest_position >= restored.kept && position == restored.highest_position.next();
            return (kept && beyond, epoch > self.epoch);
        }
        (position == self.state.position().next(), epoch == self.epoch)
    }
}

/// Checks the answers that are remembered under idempotency keys, which are not part of the chain: each rests on an event that
/// there is.
///
/// # Errors
/// When one does not: it was altered, or the journal has lost its last events.
pub async fn check_handled<J: Journal>(journal: &J, head: Position) -> Result<(), LoadError> {
    for handled in journal.handled().await? {
        let answer: Option<Answered> = serde_json::from_slice(&handled.reply).ok();
        if answer.is_none_or(|answer| answer.meta.position > head) {
            return Err(LoadError::Handled { user: handled.user, key: handled.key, head });
        }
    }
    Ok(())
}

/// What every answer has.
#[derive(Deserialize)]
struct Answered {
    meta: Rests,
}

#[derive(Deserialize)]
struct Rests {
    position: Position,
}

/// Reads and checks everything.
///
/// # Errors
/// When the journal cannot be read or was altered.
pub async fn load<J: Journal>(journal: &J) -> Result<Loaded, LoadError> {
    let identity = journal.identity();
    let mut loaded = Loaded::default();
    loop {
        let page = journal.read(loaded.state.position(), PAGE).await?;
        if page.is_empty() {
            break;
        }
        for entry in page {
            loaded.follow(identity, &entry)?;
        }
    }
    if loaded.epoch != identity.epoch {
        return Err(LoadError::Altered { position: loaded.state.position(), column: "epoch" });
    }
    Ok(loaded)
}
