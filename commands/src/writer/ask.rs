//! What the writer is asked, and what it answers.

use bytes::Bytes;
use otherix_schemas::command::Command;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::id::CorrelationId;
use otherix_schemas::value::UserId;
use tokio::sync::{mpsc, oneshot};

use crate::domain::Rejection;
use crate::journal::Digest;

/// A command, and who wants it.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What is to be decided.
    pub command: Command,
    /// Who asks.
    pub actor: UserId,
    /// Ties together all that follows from it.
    pub correlation_id: CorrelationId,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// Makes it safe to ask again.
    pub key: Option<IdempotencyKey>,
}

/// An idempotency key with what it was used for. It counts for the user who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The key.
    pub key: String,
    /// The request.
    pub fingerprint: Digest,
}

/// Why there is no success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The command does not go with the state.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The key was used for another request.
    #[error("the idempotency key was used for another request in the last 24 hours")]
    KeyReused,
    /// Nothing happened: it can be asked again.
    #[error("nothing was stored, and nothing happened: {0}")]
    Unavailable(String),
    /// The writer ended meanwhile: it may have happened.
    #[error("the control plane ended, and it is not known whether this was stored")]
    Unsettled,
}

impl From<Refusal> for ErrorBody {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::Rejected(rejection) => return rejection.into(),
            Refusal::KeyReused => ErrorCode::IdempotencyKeyMismatch,
            Refusal::Unavailable(_) | Refusal::Unsettled => ErrorCode::Unavailable,
        };
        Self::new(code, refusal.to_string())
    }
}

/// The answer's JSON, or why there is none.
pub(super) type Outcome = Result<Bytes, Refusal>;

/// A command on its way to the writer.
pub(super) struct Envelope {
    pub(super) ask: Ask,
    pub(super) reply: oneshot::Sender<Outcome>,
}

/// Asks the writer.
#[derive(Clone, Debug)]
pub struct WriterHandle {
    pub(super) asks: mpsc::Sender<Envelope>,
}

impl WriterHandle {
    /// Asks, and waits for the answer. May be dropped: the command is carried out all the same.
    ///
    /// # Errors
    /// When the command is refused, or the writer has ended.
    pub async fn ask(&self, ask: Ask) -> Outcome {
        let stopping = |_| Refusal::Unavailable("the control plane is stopping".to_owned());
        let (reply, answer) = oneshot::channel();
        self.asks.send(Envelope { ask, reply }).await.map_err(stopping)?;
        // Taken but not answered: the process is about to end.
        answer.await.unwrap_or(Err(Refusal::Unsettled))
    }
}
