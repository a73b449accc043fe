//! Reads a journal from its beginning, checks all of it, and gives the state at its end.

use otherix_schemas::cloudevent::{DecodeError, Recorded};
use otherix_schemas::event::stored::Stored;
use otherix_schemas::position::Position;

use super::{Digest, Entry, Journal, JournalError};
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
}

/// Reads and checks everything.
///
/// # Errors
/// When the journal cannot be read or was altered.
pub async fn load<J: Journal>(journal: &J) -> Result<Loaded, LoadError> {
    let mut loaded = Loaded { state: State::default(), digest: Digest::GENESIS };
    loop {
        let page = journal.read(loaded.state.position(), PAGE).await?;
        if page.is_empty() {
            return Ok(loaded);
        }
        for entry in page {
            let position = entry.position;
            let recorded = Recorded::decode(&entry.body).map_err(|source| LoadError::Decode { position, source })?;
            verify(journal, &loaded, &entry, &recorded)?;
            loaded.digest = entry.digest;
            loaded.state.evolve(&recorded);
        }
    }
}

fn verify<J: Journal>(journal: &J, before: &Loaded, entry: &Entry, recorded: &Recorded) -> Result<(), LoadError> {
    let Entry { position, stream_id, stream_version, event_id, type_name, body, recorded_at, digest } = entry;
    let header = &recorded.header;
    let identity = journal.identity();
    let checks = [
        ("position", *position == before.state.position().next() && header.position == *position),
        ("decisionprev", header.decision_prev == before.state.decision_head()),
        ("stream_id", *stream_id == recorded.event.stream_id().to_string()),
        ("stream_version", *stream_version == header.stream_version),
        ("event_id", *event_id == header.id),
        ("type", *type_name == Stored::from(&recorded.event).type_name()),
        ("recorded_at", *recorded_at == header.time && before.state.time() <= Some(header.time)),
        ("source", header.cluster == identity.cluster),
        ("epoch", header.epoch <= identity.epoch),
        ("digest", *digest == before.digest.chain(body)),
    ];
    match checks.into_iter().find(|(_, holds)| !holds) {
        None => Ok(()),
        Some((column, _)) => Err(LoadError::Altered { position: *position, column }),
    }
}
