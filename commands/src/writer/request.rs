//! Requests to the writer, and its answers.

use std::collections::BTreeMap;

use bytes::Bytes;
use otherix_schemas::cloudevent::Actor;
use otherix_schemas::command::Command;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::event::Event;
use otherix_schemas::id::{CorrelationId, EventId};
use otherix_schemas::node::{NodeEvent, NodeReconciled};
use otherix_schemas::position::Position;
use otherix_schemas::user::{Caller, CallerError};
use otherix_tlog::tile::ENTRY_MAX;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::domain::Rejection;
use crate::store::Digest;

/// A command with its origin.
#[derive(Clone, Debug)]
pub struct CommandRequest {
    pub command: Command,
    pub actor: Actor,
    /// As whom it was admitted; `None` for the control plane's own commands.
    pub caller: Option<Caller>,
    pub correlation_id: CorrelationId,
    pub cause: Cause,
    /// Makes the command safe to repeat.
    pub key: Option<IdempotencyKey>,
}

/// What the events of a command result from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// The W3C trace context of the request.
    pub traceparent: Option<String>,
    /// The decisions that a report is about, by position. Of these, the newest that an outcome is about is its cause.
    pub decisions: BTreeMap<Position, DecisionOrigin>,
}

/// What an outcome repeats of the decision that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionOrigin {
    pub event: EventId,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

impl Cause {
    /// The decision that an event is about, if it is an outcome.
    pub(super) fn decision(&self, event: &Event) -> Option<&DecisionOrigin> {
        let Event::Node(NodeEvent::Reconciled(NodeReconciled { results, .. })) = event else { return None };
        let known = results.iter().filter_map(|result| self.decisions.get_key_value(&result.generation));
        known.max_by_key(|(position, _)| **position).map(|(_, origin)| origin)
    }
}

/// A client's idempotency key, with the digest of the request it was sent with. Each user has keys of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    pub key: String,
    pub fingerprint: Digest,
}

/// The reason why a command did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The caller was admitted, and lost the right before its command was decided.
    #[error(transparent)]
    Caller(#[from] CallerError),
    #[error("your role was changed before the command was decided: obtain the new credential first")]
    RoleChanged,
    #[error("the idempotency key was used for another request in the last 24 hours")]
    KeyReused,
    /// An event of so many bytes fits no entry of the transparency log, and no verifier would take it.
    #[error(
        "an event of {0} bytes cannot be recorded, but of at most {ENTRY_MAX}: shorten the texts, in which a line \
         feed, a quotation mark or a backslash takes two bytes, and another control character six"
    )]
    TooLong(usize),
    /// The command had no effect, and can be repeated.
    #[error("nothing was changed: {0}")]
    Unavailable(String),
    /// The writer ended while the command was in progress.
    #[error("the control plane ended; whether the command took effect is unknown")]
    Unsettled,
}

impl From<Refusal> for ErrorBody {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::Rejected(rejection) => return rejection.into(),
            Refusal::Caller(_) => ErrorCode::Unauthenticated,
            Refusal::RoleChanged => ErrorCode::PermissionDenied,
            Refusal::TooLong(_) => ErrorCode::ValidationFailed,
            Refusal::KeyReused => ErrorCode::IdempotencyKeyMismatch,
            Refusal::Unavailable(_) | Refusal::Unsettled => ErrorCode::Unavailable,
        };
        Self::new(code, refusal.to_string())
    }
}

/// The answer's JSON, or the reason why there is none.
pub(super) type CommandResult = Result<Bytes, Refusal>;

/// A request in the writer's queue.
pub(super) struct Queued {
    pub(super) request: CommandRequest,
    /// Whether the command is decided only, and has no effect.
    pub(super) dry_run: bool,
    /// When it was submitted.
    pub(super) begun: Instant,
    pub(super) reply: oneshot::Sender<CommandResult>,
}

/// Submits commands to the writer.
#[derive(Clone, Debug)]
pub struct WriterHandle {
    pub(super) queue: mpsc::Sender<Queued>,
}

impl WriterHandle {
    /// Submits a command, and waits until its outcome is durable. If this is dropped, the command is still
    /// carried out.
    ///
    /// # Errors
    /// If the command is refused, or the writer has ended.
    pub async fn execute(&self, request: CommandRequest) -> CommandResult {
        self.submit(request, false).await
    }

    /// Decides a command after all that were submitted before, and records nothing, not even its idempotency key.
    /// Returns what [`WriterHandle::execute`] would now.
    ///
    /// # Errors
    /// If the command would be refused, or the writer has ended.
    pub async fn try_out(&self, request: CommandRequest) -> CommandResult {
        self.submit(CommandRequest { key: None, ..request }, true).await
    }

    async fn submit(&self, request: CommandRequest, dry_run: bool) -> CommandResult {
        let stopping = |_| Refusal::Unavailable("the control plane is stopping".to_owned());
        let (reply, answer) = oneshot::channel();
        self.queue.send(Queued { request, dry_run, begun: Instant::now(), reply }).await.map_err(stopping)?;
        // Queued but not answered: the process is about to end.
        answer.await.unwrap_or(Err(Refusal::Unsettled))
    }
}

#[cfg(test)]
mod tests {
    use otherix_schemas::id::{NetworkId, NodeId};
    use otherix_schemas::node::NodeReachable;
    use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_outcome_is_caused_by_the_newest_decision_that_what_was_recorded_is_about() {
        let origin = |number| {
            let event = EventId::new(Uuid::from_u128(u128::from(number)));
            (Position::new(number), DecisionOrigin { event, traceparent: None })
        };
        // The report was about 9, too, of which nothing was new.
        let cause = Cause { decisions: [5, 7, 9].map(origin).into(), ..Cause::default() };
        let node_id = NodeId::new(Uuid::from_u128(1));
        let outcome = |generations: &[u64]| {
            let network = ResourceRef::Network(NetworkId::new(Uuid::from_u128(2)));
            let result = |generation: &u64| ResourceOutcome::new(network, Position::new(*generation), Outcome::Ready);
            let results = generations.iter().map(result).collect();
            Event::from(NodeReconciled { node_id, incarnation: 1, sequence: 1, results })
        };
        let found = |event: &Event| cause.decision(event).map(|origin| origin.event.uuid().as_u128());
        assert_eq!(found(&outcome(&[5])), Some(5));
        assert_eq!(found(&outcome(&[7, 5, 8])), Some(7));
        assert_eq!(found(&outcome(&[8])), None);
        assert_eq!(found(&NodeReachable { node_id }.into()), None, "the report itself shows that the node is there");
    }
}
