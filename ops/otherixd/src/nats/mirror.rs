//! The clients' mirror of the events: the same sequences in account `CLIENTS`, so that people and nodes read the stream
//! without any right in the account where it is written. Owns the mirror's definition; the server fills it.
//!
//! Cancel-safety: [`Mirror::ensure`] may be dropped at any await and called again.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use async_nats::jetstream::context::{CreateStreamError, DeleteStreamError, GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, External, Info, Source};
use async_nats::jetstream::{Context, ErrorCode};
use otherix_commands::journal::{Journal, JournalError};
use otherix_commands::relay::durables::{self, DurablesError};
use otherix_commands::relay::{Notes, RelayError, Survey, SurveyError, survey};
use otherix_schemas::position::Position;
use otherix_schemas::subject::STREAM;
use otherix_transport::Nats;

use super::accounts::{MIRROR_API, MIRROR_DELIVER};

/// The account, as notes name it.
const ACCOUNT: &str = "clients";

/// Notes in the mirror which stream it is of: one that was made anew may have other events at the same sequences.
const SOURCE_CREATED: &str = "otherix.source-created";

/// Why there is no mirror.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MirrorError {
    /// The stream or the mirror cannot be looked at.
    #[error("cannot look at stream `{STREAM}` in account {account}")]
    Look {
        /// Whose.
        account: &'static str,
        /// Why not.
        #[source]
        source: GetStreamError,
    },
    /// The mirror that is there cannot be removed.
    #[error("cannot remove the outdated mirror of `{STREAM}`")]
    Remove(#[source] DeleteStreamError),
    /// The mirror cannot be made.
    #[error("cannot make the mirror of `{STREAM}`")]
    Make(#[source] CreateStreamError),
    /// The clients' consumers cannot be kept.
    #[error(transparent)]
    Durables(#[from] DurablesError),
    /// It cannot be compared with the journal.
    #[error("cannot compare the clients' mirror with the journal")]
    Survey(#[from] SurveyError),
    /// The journal cannot be read.
    #[error("cannot read the journal")]
    Journal(#[from] JournalError),
    /// It has events that the journal lacks.
    #[error(transparent)]
    Lost(#[from] RelayError),
}

/// Looks after the mirror.
pub(crate) struct Mirror<J> {
    control: Context,
    clients: Context,
    journal: Arc<J>,
    notes: Notes,
}

/// How far the mirror is, and the stream that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The mirror's last sequence.
    pub(crate) mirror: u64,
    /// The stream's.
    pub(crate) stream: u64,
}

impl<J: Journal> Mirror<J> {
    /// Of the stream that `control` reaches, for the account that `clients` reaches. Consumers are noted in `notes`.
    pub(crate) fn new(control: &Nats, clients: &Nats, journal: Arc<J>, notes: Notes) -> Self {
        Self { control: control.jetstream(), clients: clients.jetstream(), journal, notes }
    }

    /// Checks that the mirror has no event that the journal lacks.
    pub(crate) async fn inspect(&self) -> Result<(), MirrorError> {
        let head = self.journal.head().await?;
        match self.look().await? {
            Some(mirror) if mirror.state.last_sequence > head.get() => self.compare(head).await.map(drop),
            Some(_) | None => Ok(()),
        }
    }

    /// Makes the mirror, unless it is there. One that is of an earlier stream, is defined otherwise or is not what the stream
    /// is, is made anew; durable consumers that clients have on it go on where they were.
    ///
    /// To be called when the stream is there, again whenever it has been made anew, and now and then.
    pub(crate) async fn ensure(&self) -> Result<Progress, MirrorError> {
        // The mirror first: it can only be ahead of a stream that is looked at later if something is wrong.
        let mirror = self.look().await?;
        let source = self.control.get_stream(STREAM).await;
        let source = source.map_err(|source| MirrorError::Look { account: "CONTROL", source })?;
        let source = source.cached_info();
        let wanted = definition(source);
        let mut progress = Progress {
            mirror: mirror.as_ref().map_or(0, |info| info.state.last_sequence),
            stream: source.state.last_sequence,
        };
        if !mirror.as_ref().is_some_and(|mirror| is_faithful(mirror, &wanted, source)) {
            if mirror.is_some() {
                tracing::warn!("the clients' mirror of the events is outdated and is made anew");
                let survey = self.compare(self.journal.head().await?).await?;
                let differs = survey.differs.map(|differs| differs.position);
                durables::save(&self.clients, &self.notes, ACCOUNT, differs).await?;
                self.clients.delete_stream(STREAM).await.map_err(MirrorError::Remove)?;
            }
            self.clients.create_stream(wanted).await.map_err(MirrorError::Make)?;
            progress.mirror = 0;
        }
        durables::restore(&self.clients, &self.notes, ACCOUNT).await?;
        Ok(progress)
    }

    async fn look(&self) -> Result<Option<Info>, MirrorError> {
        match self.clients.get_stream(STREAM).await {
            Ok(mirror) => Ok(Some(mirror.cached_info().clone())),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(source) => Err(MirrorError::Look { account: "CLIENTS", source }),
        }
    }

    /// Compares the mirror with the journal. It may be the last place where an acknowledged event is.
    async fn compare(&self, head: Position) -> Result<Survey, MirrorError> {
        let survey = survey(&self.clients, self.journal.as_ref()).await?;
        match survey.lost {
            Some(lost) if lost > head => Err(RelayError::Ahead { stream: survey.last, journal: head }.into()),
            Some(position) => Err(RelayError::Diverged { position }.into()),
            None => Ok(survey),
        }
    }
}

/// Whether there simply is no such stream.
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
        mirror_direct: true,
        storage: source.config.storage,
        metadata: HashMap::from([(SOURCE_CREATED.to_owned(), source.created.to_string())]),
        ..Config::default()
    }
}

fn is_faithful(mirror: &Info, wanted: &Config, source: &Info) -> bool {
    let has = &mirror.config;
    has.mirror == wanted.mirror
        && has.mirror_direct == wanted.mirror_direct
        && has.metadata.get(SOURCE_CREATED) == wanted.metadata.get(SOURCE_CREATED)
        && has.max_age.is_zero()
        && has.max_messages < 1
        && has.max_bytes < 1
        && has.max_messages_per_subject < 1
        && is_part(mirror, source)
}

/// Whether the mirror's messages can be those of the stream up to a sequence.
fn is_part(mirror: &Info, source: &Info) -> bool {
    let (mirror, source) = (&mirror.state, &source.state);
    match mirror.last_sequence.cmp(&source.last_sequence) {
        Ordering::Less => mirror.messages <= source.messages,
        Ordering::Equal => (mirror.messages, mirror.first_sequence) == (source.messages, source.first_sequence),
        Ordering::Greater => false,
    }
}
