//! Takes events over from the stream that the journal lacks, byte for byte: only if the stream is otherwise what the journal
//! is, and each of them is one that can follow.
//!
//! Cancel-safety: what was taken over before the future is dropped stays, and is a proper beginning of the rest.

use async_nats::jetstream::Context;
use otherix_schemas::cloudevent::{DecodeError, EventEnvelope};
use otherix_schemas::position::{Epoch, Position};

use crate::config::Identity;
use crate::store::{Batch, Entry, EventStore, StoreError, LoadError, Replayed, SqliteStore, load};
use crate::relay::{Found, Reader, SurveyError, survey};

/// Events in one transaction.
const BATCH: usize = 500;

/// What would be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The journal's last event.
    pub behind: Position,
    /// The last event that it would have.
    pub until: Position,
    /// How many events that is.
    pub events: u64,
    /// The epoch that it would be in.
    pub epoch: Epoch,
    /// Messages behind the journal that are no events, and would be left.
    pub foreign: u64,
}

/// Why nothing is taken over.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The journal is not in order itself.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The stream cannot be read.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// Stream and journal tell different stories.
    #[error("the stream is not what the journal is at position {position}: {what}")]
    Differs {
        /// Where.
        position: Position,
        /// What is there.
        what: &'static str,
    },
    /// An event cannot follow.
    #[error("the stream's event at position {position} cannot follow: its `{what}` does not fit")]
    Unfit {
        /// Where.
        position: Position,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An event cannot be read.
    #[error("the stream's event at position {position} cannot be read")]
    Unreadable {
        /// Where.
        position: Position,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// The database.
    #[error("cannot store the events")]
    Journal(#[from] StoreError),
}

impl AdoptError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Differs { .. } => Some(
                "put the journal back that the stream is a copy of, or give up what only the stream has with \
                 `otherixd restore --new-epoch`",
            ),
            Self::Unfit { .. } => Some("give up what only the stream has with `otherixd restore --new-epoch`"),
            Self::Unreadable { .. } => Some("use an otherixd that is as new as the one that wrote the event"),
            Self::Load(_) | Self::Survey(_) | Self::Journal(_) => None,
        }
    }
}

/// Says what would be taken over from the stream in `context`. Changes nothing.
///
/// # Errors
/// When stream and journal do not go together, or something cannot be read.
pub async fn plan(context: &Context, journal: &SqliteStore) -> Result<Plan, AdoptError> {
    let loaded = load(journal).await?;
    let head = loaded.state.position();
    let survey = survey(context, journal).await?;
    if let Some(differs) = survey.differs.filter(|differs| differs.position <= head) {
        return Err(AdoptError::Differs { position: differs.position, what: differs.what });
    }
    let mut walk = Walk::begin(context, journal.identity(), loaded).await?;
    let mut events = 0;
    while walk.next().await?.is_some() {
        events += 1;
    }
    let Walk { loaded, foreign, .. } = walk;
    Ok(Plan { behind: head, until: loaded.state.position(), events, epoch: loaded.epoch, foreign })
}

/// Takes over what [`plan`] has found fit.
///
/// # Errors
/// When something cannot be read or stored; what was stored before stays.
pub async fn carry_out(context: &Context, journal: &mut SqliteStore) -> Result<(), AdoptError> {
    let loaded = load(journal).await?;
    if loaded.state.position() == Position::ZERO
        && let Some(first) = Reader::open(context, Position::new(1)).await?.next().await?
    {
        // The journal that was lost had a cluster of its own; the new one has decided nothing yet.
        let position = first.position;
        let envelope = EventEnvelope::decode(&first.message.payload)
            .map_err(|source| AdoptError::Unreadable { position, source })?;
        journal.adopt_cluster(envelope.header.cluster).await?;
    }
    let mut walk = Walk::begin(context, journal.identity(), loaded).await?;
    let mut after = walk.loaded.state.position();
    let mut batch = Batch::default();
    while let Some(entry) = walk.next().await? {
        let position = entry.position;
        if walk.loaded.epoch != journal.identity().epoch {
            store(journal, &mut after, &mut batch).await?;
            journal.begin_epoch(after, &entry, walk.loaded.epoch).await?;
            after = position;
            continue;
        }
        batch.entries.push(entry);
        if batch.entries.len() >= BATCH {
            store(journal, &mut after, &mut batch).await?;
        }
    }
    store(journal, &mut after, &mut batch).await
}

async fn store(journal: &SqliteStore, after: &mut Position, batch: &mut Batch) -> Result<(), AdoptError> {
    if let Some(last) = batch.entries.last().map(|entry| entry.position) {
        journal.append(*after, batch).await?;
        *after = last;
        batch.entries.clear();
    }
    Ok(())
}

/// Goes through the stream behind the journal's end, and checks every event.
struct Walk {
    reader: Reader,
    identity: Identity,
    loaded: Replayed,
    foreign: u64,
}

impl Walk {
    async fn begin(context: &Context, identity: Identity, loaded: Replayed) -> Result<Self, AdoptError> {
        let reader = Reader::open(context, loaded.state.position().next()).await?;
        // The stream may be of a later epoch than the backup.
        let identity = Identity { epoch: Epoch::new(u32::MAX), ..identity };
        Ok(Self { reader, identity, loaded, foreign: 0 })
    }

    /// The next event, checked and taken in.
    async fn next(&mut self) -> Result<Option<Entry>, AdoptError> {
        while let Some(found) = self.reader.next().await? {
            if self.loaded.state.position() == Position::ZERO
                && let Ok(first) = EventEnvelope::decode(&found.message.payload)
            {
                self.identity.cluster = first.header.cluster;
            }
            if found.claims(self.identity.cluster, self.loaded.epoch) {
                return self.take(&found).map(Some);
            }
            self.foreign += 1;
        }
        Ok(None)
    }

    fn take(&mut self, found: &Found) -> Result<Entry, AdoptError> {
        let position = found.position;
        let body = found.message.payload.clone();
        let (envelope, type_name) =
            EventEnvelope::decode_with_type(&body).map_err(|source| AdoptError::Unreadable { position, source })?;
        // An event of old keeps the type under which it was stored.
        let entry = Entry { type_name, ..Entry::new(&envelope, body, self.loaded.digest) };
        if !found.carries(&entry) {
            return Err(AdoptError::Unfit { position, what: "subject" });
        }
        self.loaded.follow(self.identity, &entry).map_err(|error| match error {
            LoadError::Altered { column, .. } => AdoptError::Unfit { position, what: column },
            LoadError::Decode { source, .. } => AdoptError::Unreadable { position, source },
            LoadError::Store(error) => error.into(),
            other @ LoadError::IdempotencyRecord { .. } => other.into(),
        })?;
        Ok(entry)
    }
}
