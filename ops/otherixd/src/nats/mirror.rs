//! The clients' mirror of the stream: the same sequences in account `EVENTS`, so that people can read it without rights
//! in the account where it is written. Owns the mirror's definition; the server fills it.
//!
//! Cancel-safety: [`Mirror::ensure`] may be dropped at any await and called again.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use async_nats::jetstream::context::{CreateStreamError, DeleteStreamError, GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, External, Info, Source};
use async_nats::jetstream::{Context, ErrorCode};
use otherix_commands::relay::durables::{self, DurablesError};
use otherix_commands::relay::{Notes, RelayError, StreamLimits, Survey, SurveyError, survey};
use otherix_commands::store::{EventStore, StoreError};
use otherix_schemas::position::Position;
use otherix_schemas::subject::STREAM;
use otherix_transport::JetStream;

use super::accounts::{MIRROR_API, MIRROR_DELIVER};
use super::consumers::MirrorTurn;

/// The account's name in the relay's notes.
pub(super) const ACCOUNT: &str = "clients";

/// Metadata of the mirror that identifies its source: a recreated stream may have other events at the same sequences.
const SOURCE_CREATED: &str = "otherix.source-created";

#[derive(Debug, thiserror::Error)]
pub(crate) enum MirrorError {
    #[error("cannot read the state of stream `{STREAM}` in account {account}")]
    State {
        account: &'static str,
        #[source]
        source: GetStreamError,
    },
    #[error("cannot remove the outdated mirror of `{STREAM}`")]
    Remove(#[source] DeleteStreamError),
    #[error("cannot create the mirror of `{STREAM}`")]
    Create(#[source] CreateStreamError),
    #[error(transparent)]
    Durables(#[from] DurablesError),
    #[error("cannot compare the clients' mirror with the journal")]
    Survey(#[from] SurveyError),
    #[error("cannot read the journal")]
    Journal(#[from] StoreError),
    /// The mirror has events that the journal lacks.
    #[error(transparent)]
    Lost(#[from] RelayError),
}

/// Maintains the clients' mirror.
pub(crate) struct Mirror<J> {
    control: Context,
    events: Context,
    journal: Arc<J>,
    notes: Notes,
    turn: MirrorTurn,
}

/// Last sequences of the mirror and of its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MirrorProgress {
    pub(crate) mirror: u64,
    pub(crate) stream: u64,
}

impl<J: EventStore> Mirror<J> {
    /// `control` is a connection to the account of the stream, `events` to the account of the mirror, `turn` is shared
    /// with what changes consumers on it.
    pub(crate) fn new(
        control: &JetStream,
        events: &JetStream,
        journal: Arc<J>,
        notes: Notes,
        turn: MirrorTurn,
    ) -> Self {
        Self { control: control.context(), events: events.context(), journal, notes, turn }
    }

    /// Fails if the mirror has an event that the journal lacks.
    pub(crate) async fn inspect(&self) -> Result<(), MirrorError> {
        let head = self.journal.head().await?;
        match self.state().await? {
            Some(mirror) if mirror.state.last_sequence > head.get() => self.compare(head).await.map(drop),
            Some(_) | None => Ok(()),
        }
    }

    /// Creates the mirror if it is missing. One with another source, definition or content is recreated; clients'
    /// durable consumers keep their position.
    ///
    /// To be called once the stream exists, after it was recreated, and periodically.
    pub(crate) async fn ensure(&self) -> Result<MirrorProgress, MirrorError> {
        let _turn = self.turn.lock().await;
        // The mirror is read first: then only an incorrect mirror can be ahead of its source.
        let mirror = self.state().await?;
        let source = self.control.get_stream(STREAM).await;
        let source = source.map_err(|source| MirrorError::State { account: "CONTROL", source })?;
        let source = source.cached_info();
        let expected = definition(source);
        let mut progress = MirrorProgress {
            mirror: mirror.as_ref().map_or(0, |info| info.state.last_sequence),
            stream: source.state.last_sequence,
        };
        if source.state.messages == 0 {
            // There is nothing to mirror: a stream with limits may have deleted all.
            progress.stream = progress.mirror;
        }
        if let Some(mirror) = mirror.as_ref().filter(|mirror| has_other_limits(mirror, &expected)) {
            let limited = StreamLimits::of(&expected).apply(mirror.config.clone());
            self.events.update_stream(limited).await.map_err(MirrorError::Create)?;
        }
        if !mirror.as_ref().is_some_and(|mirror| matches(mirror, &expected, source)) {
            if mirror.is_some() {
                tracing::warn!("the clients' mirror of the events is outdated; recreating it");
                let survey = self.compare(self.journal.head().await?).await?;
                let differs = survey.differs.map(|differs| differs.position);
                durables::save(&self.events, &self.notes, ACCOUNT, differs).await?;
                self.events.delete_stream(STREAM).await.map_err(MirrorError::Remove)?;
            }
            self.events.create_stream(expected).await.map_err(MirrorError::Create)?;
            progress.mirror = 0;
        }
        durables::restore(&self.events, &self.notes, ACCOUNT).await?;
        Ok(progress)
    }

    async fn state(&self) -> Result<Option<Info>, MirrorError> {
        match self.events.get_stream(STREAM).await {
            Ok(mirror) => Ok(Some(mirror.cached_info().clone())),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(source) => Err(MirrorError::State { account: "EVENTS", source }),
        }
    }

    /// Compares the mirror with the journal: the mirror may have the only copy of an acknowledged event.
    async fn compare(&self, head: Position) -> Result<Survey, MirrorError> {
        let survey = survey(&self.events, self.journal.as_ref()).await?;
        match survey.lost {
            Some(lost) if lost > head => Err(RelayError::Ahead { stream: survey.last, journal: head }.into()),
            Some(position) => Err(RelayError::Diverged { position }.into()),
            None => Ok(survey),
        }
    }
}

/// Whether the error means that the stream does not exist.
pub(crate) fn is_not_found(error: &GetStreamError) -> bool {
    match error.kind() {
        GetStreamErrorKind::JetStream(error) => error.error_code() == ErrorCode::STREAM_NOT_FOUND,
        GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName | GetStreamErrorKind::Request => false,
    }
}

fn definition(source: &Info) -> Config {
    Config {
        name: STREAM.to_owned(),
        mirror: Some(Source {
            name: STREAM.to_owned(),
            external: Some(External {
                api_prefix: MIRROR_API.to_owned(),
                delivery_prefix: Some(MIRROR_DELIVER.to_owned()),
            }),
            ..Source::default()
        }),
        // `mirror_direct` alone answers only after a message has arrived since the server was started.
        allow_direct: true,
        mirror_direct: true,
        storage: source.config.storage,
        num_replicas: source.config.num_replicas,
        metadata: HashMap::from([(SOURCE_CREATED.to_owned(), source.created.to_string())]),
        ..StreamLimits::of(&source.config).apply(Config::default())
    }
}

/// Whether the mirror has other limits than its source, which may be changed. One without limits that had some lacks
/// events, and so does its source, which is made again.
fn has_other_limits(mirror: &Info, expected: &Config) -> bool {
    StreamLimits::of(&mirror.config) != StreamLimits::of(expected) && StreamLimits::of(expected).is_limited()
}

/// Whether the mirror has the expected definition, and can be a copy of the source. Other limits than no limits are
/// changed without making it again.
fn matches(mirror: &Info, expected: &Config, source: &Info) -> bool {
    let actual = &mirror.config;
    actual.mirror == expected.mirror
        && (actual.allow_direct, actual.mirror_direct) == (expected.allow_direct, expected.mirror_direct)
        && actual.metadata.get(SOURCE_CREATED) == expected.metadata.get(SOURCE_CREATED)
        && (StreamLimits::of(expected).is_limited() || !StreamLimits::of(actual).is_limited())
        && actual.max_messages < 1
        && actual.max_messages_per_subject < 1
        && can_be_prefix(mirror, source, StreamLimits::of(expected).is_limited())
}

/// Whether the mirror's messages can be a prefix of the stream's. With limits, each deletes its oldest ones by itself.
fn can_be_prefix(mirror: &Info, source: &Info, is_limited: bool) -> bool {
    let (mirror, source) = (&mirror.state, &source.state);
    match mirror.last_sequence.cmp(&source.last_sequence) {
        Ordering::Less | Ordering::Equal if is_limited => true,
        Ordering::Less => mirror.messages <= source.messages,
        Ordering::Equal => (mirror.messages, mirror.first_sequence) == (source.messages, source.first_sequence),
        Ordering::Greater => false,
    }
}
