//! What ends the relay, what it is in doubt about, and how it tells of trouble that stays.

use std::time::{Duration, Instant};

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use otherix_schemas::cloudevent::DecodeError;
use otherix_schemas::error::Causes;
use otherix_schemas::position::Position;

use super::durables::DurablesError;
use super::survey::SurveyError;
use crate::store::StoreError;

/// Pause after a failure; doubled with each further one, up to the other.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// A trouble that stays is told again so often.
const REMIND: Duration = Duration::from_secs(30);

/// Why the relay ended.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The stream has events that the journal lacks.
    #[error(
        "the stream is at sequence {stream}, ahead of the journal at position {journal}: the journal was restored from an older backup"
    )]
    Ahead {
        /// Where the stream is.
        stream: Position,
        /// Where the journal is.
        journal: Position,
    },
    /// The stream has an event where the journal has another one.
    #[error("the stream has an event at position {position} that is not the journal's: each has what the other lacks")]
    Diverged {
        /// Where.
        position: Position,
    },
    /// The journal cannot be read.
    #[error("cannot read the journal")]
    Journal(#[from] StoreError),
    /// An event of the journal cannot be read.
    #[error("the journal's event at position {position} cannot be read")]
    Decode {
        /// Where.
        position: Position,
        /// Why.
        #[source]
        source: DecodeError,
    },
}

impl RelayError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Ahead { .. } => Some(
                "two ways out: `otherixd journal adopt` takes the missing events over from the stream; \
                 `otherixd restore --new-epoch` gives them up. Both say what they would do with --dry-run",
            ),
            Self::Diverged { .. } => Some(
                "put the journal back that the stream is a copy of, or give the stream's events up with \
                 `otherixd restore --new-epoch` (which says what it would do with --dry-run)",
            ),
            Self::Journal(_) | Self::Decode { .. } => None,
        }
    }
}

/// What is not known any more, and must be looked at again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Doubt {
    #[error("a publish was not acknowledged")]
    Publish(#[source] PublishError),
    #[error("an event went to sequence {found} instead of {expected}")]
    Sequence { expected: Position, found: u64 },
    #[error("the stream cannot be looked at")]
    Stream(#[source] async_nats::Error),
    #[error("the connection was lost, and acknowledgements with it")]
    Reconnected,
    #[error("the stream is not as it was left")]
    Changed,
    #[error("the stream cannot be compared with the journal")]
    Survey(#[source] SurveyError),
    #[error("the stream's durable consumers cannot be kept")]
    Durables(#[source] DurablesError),
    #[error(transparent)]
    Ended(#[from] RelayError),
}

impl Doubt {
    /// Whether the server does not do its part, without saying why.
    pub(super) fn is_silence(&self) -> bool {
        match self {
            Self::Publish(error) => error.kind() == PublishErrorKind::TimedOut,
            Self::Stream(_) | Self::Survey(_) => true,
            Self::Sequence { .. } | Self::Reconnected | Self::Changed | Self::Durables(_) | Self::Ended(_) => false,
        }
    }
}

/// What goes wrong again and again: told when it changes, and now and then.
#[derive(Default)]
pub(super) struct Trouble {
    told: Option<(String, Instant)>,
    pause: Duration,
}

impl Trouble {
    /// Tells of a doubt, and waits before the next attempt.
    pub(super) async fn pause(&mut self, doubt: &Doubt) {
        let text = Causes(doubt).to_string();
        let new = self.told.as_ref().is_none_or(|(told, at)| *told != text || at.elapsed() >= REMIND);
        if new {
            tracing::warn!(doubt = text, "looking at the stream again");
            self.told = Some((text, Instant::now()));
        }
        self.pause = (self.pause * 2).clamp(RETRY, RETRY_MAX);
        tokio::time::sleep(self.pause).await;
    }
}
