//! What ends the relay, what interrupts it, and how interruptions are logged.

use std::time::Duration;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use otherix_runtime::{Backoff, Runtime};
use otherix_schemas::cloudevent::DecodeError;
use otherix_schemas::error::Causes;
use otherix_schemas::position::Position;
use tokio::time::Instant;

use super::durables::DurablesError;
use super::survey::SurveyError;
use crate::store::StoreError;

/// Delays before the relay continues after an interruption.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// How often a persistent interruption is logged.
const REMIND: Duration = Duration::from_secs(30);

/// The relay ended.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error(
        "the stream is at sequence {stream}, ahead of the journal at position {journal}: the journal was restored from \
         an older backup"
    )]
    Ahead { stream: Position, journal: Position },
    #[error("the stream's event at position {position} is not the journal's: each has events that the other lacks")]
    Diverged { position: Position },
    #[error("cannot read the journal")]
    Store(#[from] StoreError),
    #[error("cannot decode the event at position {position} of the journal")]
    Decode { position: Position, source: DecodeError },
    #[error("cannot encode the signed head of the decisions")]
    Head(#[source] serde_json::Error),
}

impl RelayError {
    /// Returns what an operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Ahead { .. } => Some(
                "`otherixd journal adopt` appends the missing events to the journal; `otherixd restore --new-epoch` \
                 gives them up. With --dry-run, both only print what they would do",
            ),
            Self::Diverged { .. } => Some(
                "restore the journal that the stream is a copy of, or give up the stream's events with \
                 `otherixd restore --new-epoch` (with --dry-run it only prints what it would do)",
            ),
            Self::Store(_) | Self::Decode { .. } | Self::Head(_) => None,
        }
    }
}

/// The state of the stream is no longer known, and has to be determined again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayInterruption {
    #[error("a publish was not acknowledged")]
    Publish(#[source] PublishError),
    #[error("an event was stored at sequence {found} instead of {expected}")]
    Sequence { expected: Position, found: u64 },
    #[error("cannot inspect the stream")]
    Stream(#[source] async_nats::Error),
    #[error("the connection was lost, and acknowledgements with it")]
    Reconnected,
    #[error("the stream was changed by another client")]
    Changed,
    #[error("cannot compare the stream with the journal")]
    Survey(#[source] SurveyError),
    #[error("cannot keep the stream's durable consumers")]
    Durables(#[source] DurablesError),
    /// It cannot continue.
    #[error(transparent)]
    Ended(#[from] RelayError),
}

impl RelayInterruption {
    /// Returns whether the server did not store a message without giving a reason. If it was not the last of a burst,
    /// the last one is refused because it does not follow.
    pub(super) fn is_unanswered(&self) -> bool {
        match self {
            Self::Publish(error) => {
                matches!(error.kind(), PublishErrorKind::TimedOut | PublishErrorKind::WrongLastSequence)
            }
            Self::Stream(_) | Self::Survey(_) => true,
            Self::Sequence { .. } | Self::Reconnected | Self::Changed | Self::Durables(_) | Self::Ended(_) => false,
        }
    }
}

/// Waits after interruptions, and logs them: each kind once, and from time to time if it persists.
pub(super) struct Retry {
    logged: Option<(String, Instant)>,
    backoff: Backoff,
}

impl Retry {
    pub(super) fn new(runtime: &dyn Runtime) -> Self {
        Self { logged: None, backoff: Backoff::new(RETRY, RETRY_MAX, runtime) }
    }

    /// The relay made progress.
    pub(super) fn reset(&mut self) {
        self.logged = None;
        self.backoff.reset();
    }

    /// Logs an interruption, and waits before the next attempt.
    pub(super) async fn wait(&mut self, interruption: &RelayInterruption) {
        let text = Causes(interruption).to_string();
        if self.logged.as_ref().is_none_or(|(logged, at)| *logged != text || at.elapsed() >= REMIND) {
            tracing::warn!(reason = text, "the relay was interrupted and inspects the stream again");
            self.logged = Some((text, Instant::now()));
        }
        self.backoff.sleep().await;
    }
}
