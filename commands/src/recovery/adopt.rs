//! Appends events to the event store that only the stream has, byte for byte. The stream must otherwise be a copy of
//! the store, and each event must be one that can follow.
//!
//! Cancel-safety: events appended before the future is dropped stay, and the rest can be adopted later.

use async_nats::jetstream::Context;
use otherix_schemas::cloudevent::{DecodeError, EventEnvelope};
use otherix_schemas::position::{Epoch, Position};

use crate::config::StoreIdentity;
use crate::relay::{StreamMessage, StreamReader, SurveyError, survey};
use crate::store::{Batch, Entry, EventStore, LoadError, Replayed, StoreError, replay};

/// Events in one transaction.
const BATCH: usize = 500;

/// What would be adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdoptPlan {
    /// The store's last event.
    pub head: Position,
    /// The last event that it would have.
    pub until: Position,
    /// Number of events.
    pub events: u64,
    /// The epoch that it would be in.
    pub epoch: Epoch,
    /// Number of messages after the store's head that are no events, and would be left out.
    pub foreign: u64,
}

/// Nothing more was adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The store itself cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Survey(#[from] SurveyError),
    #[error("the stream differs from the journal at position {position}: {what}")]
    Differs { position: Position, what: &'static str },
    #[error("the stream's event at position {position} cannot follow the journal's: `{what}` does not fit")]
    Unfit { position: Position, what: &'static str },
    #[error("cannot decode the stream's event at position {position}")]
    Decode { position: Position, source: DecodeError },
    #[error("cannot store the events")]
    Store(#[from] StoreError),
}

impl AdoptError {
    /// Returns what an operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Differs { .. } => Some(
                "restore the journal that the stream is a copy of, or give up the events that only the stream has with \
                 `otherixd restore --new-epoch`",
            ),
            Self::Unfit { .. } => {
                Some("give up the events that only the stream has with `otherixd restore --new-epoch`")
            }
            Self::Decode { .. } => Some("use a version of otherixd that is as new as the one that wrote the event"),
            Self::Load(_) | Self::Survey(_) | Self::Store(_) => None,
        }
    }
}

/// Plans what would be adopted from the stream in `context`. Changes nothing.
///
/// # Errors
/// If the stream is not that of the store, or something cannot be read.
pub async fn plan<S: EventStore>(context: &Context, store: &S) -> Result<AdoptPlan, AdoptError> {
    let replayed = replay(store).await?;
    let head = replayed.state.position();
    let survey = survey(context, store).await?;
    if let Some(differs) = survey.differs.filter(|differs| differs.position <= head) {
        return Err(AdoptError::Differs { position: differs.position, what: differs.what });
    }
    let mut missing = MissingEvents::begin(context, store.identity(), replayed).await?;
    let mut events = 0;
    while missing.next().await?.is_some() {
        events += 1;
    }
    let MissingEvents { replayed, foreign, .. } = missing;
    Ok(AdoptPlan { head, until: replayed.state.position(), events, epoch: replayed.epoch, foreign })
}

/// Adopts the events that [`plan`] counts.
///
/// # Errors
/// If something cannot be read or stored. Events stored before stay.
pub async fn execute<S: EventStore>(context: &Context, store: &mut S) -> Result<(), AdoptError> {
    let replayed = replay(store).await?;
    if replayed.state.position() == Position::ZERO
        && let Some(first) = StreamReader::open(context, Position::new(1)).await?.next().await?
    {
        // An empty store replaces one that was lost, and takes over its cluster id.
        let position = first.position;
        let envelope =
            EventEnvelope::decode(&first.message.payload).map_err(|source| AdoptError::Decode { position, source })?;
        store.adopt_cluster(envelope.header.cluster).await?;
    }
    let mut missing = MissingEvents::begin(context, store.identity(), replayed).await?;
    let mut after = missing.replayed.state.position();
    let mut batch = Batch::default();
    while let Some(entry) = missing.next().await? {
        let position = entry.position;
        if missing.replayed.epoch != store.identity().epoch {
            append(store, &mut after, &mut batch).await?;
            store.begin_epoch(after, &entry, missing.replayed.epoch).await?;
            after = position;
            continue;
        }
        batch.entries.push(entry);
        if batch.entries.len() >= BATCH {
            append(store, &mut after, &mut batch).await?;
        }
    }
    append(store, &mut after, &mut batch).await
}

async fn append<S: EventStore>(store: &S, after: &mut Position, batch: &mut Batch) -> Result<(), AdoptError> {
    if let Some(last) = batch.entries.last().map(|entry| entry.position) {
        store.append(*after, batch).await?;
        *after = last;
        batch.entries.clear();
    }
    Ok(())
}

/// The stream's events after the store's head, each verified.
struct MissingEvents {
    reader: StreamReader,
    identity: StoreIdentity,
    replayed: Replayed,
    foreign: u64,
}

impl MissingEvents {
    async fn begin(context: &Context, identity: StoreIdentity, replayed: Replayed) -> Result<Self, AdoptError> {
        let reader = StreamReader::open(context, replayed.state.position().next()).await?;
        // The stream may be in a later epoch than the backup.
        let identity = StoreIdentity { epoch: Epoch::new(u32::MAX), ..identity };
        Ok(Self { reader, identity, replayed, foreign: 0 })
    }

    /// Returns the next event, verified and applied.
    async fn next(&mut self) -> Result<Option<Entry>, AdoptError> {
        while let Some(message) = self.reader.next().await? {
            if self.replayed.state.position() == Position::ZERO
                && let Ok(first) = EventEnvelope::decode(&message.message.payload)
            {
                self.identity.cluster = first.header.cluster;
            }
            if message.claims(self.identity.cluster, self.replayed.epoch) {
                return self.apply(&message).map(Some);
            }
            self.foreign += 1;
        }
        Ok(None)
    }

    fn apply(&mut self, message: &StreamMessage) -> Result<Entry, AdoptError> {
        let position = message.position;
        let body = message.message.payload.clone();
        let (envelope, type_name) =
            EventEnvelope::decode_with_type(&body).map_err(|source| AdoptError::Decode { position, source })?;
        // An old event keeps the type that it was stored with.
        let entry = Entry { type_name, ..Entry::new(&envelope, body, self.replayed.digest) };
        if !message.carries(&entry) {
            return Err(AdoptError::Unfit { position, what: "subject" });
        }
        self.replayed.apply(self.identity, &entry).map_err(|error| match error {
            LoadError::Altered { column, .. } => AdoptError::Unfit { position, what: column },
            LoadError::Decode { source, .. } => AdoptError::Decode { position, source },
            LoadError::Store(error) => error.into(),
            other @ (LoadError::Idempotency { .. } | LoadError::Snapshot { .. }) => other.into(),
        })?;
        Ok(entry)
    }
}
