//! Determines whether a wait is over. Pure: depends on views only.

use std::time::Duration;

use otherix_schemas::error::ErrorCode;
use otherix_schemas::outcome::OutcomeStatus;
use otherix_schemas::value::NodeName;

use super::Provisioned;
use crate::exit::Exit;
use crate::failure::Failure;

/// The state of a wait.
pub(crate) enum WaitState {
    /// The resource is ready or removed, as waited for.
    Done,
    /// Further waiting is useless.
    Failed(Failure),
    Pending(WaitProgress),
}

/// The progress of a wait.
pub(crate) struct WaitProgress {
    pub(crate) done: u64,
    pub(crate) of: u64,
    pub(crate) message: String,
}

/// The state of a wait for readiness. `now` is `None` if the resource is not found any more.
pub(super) fn readiness<R: Provisioned>(last: &R, now: Option<&R>) -> WaitState {
    if let Some(view) = now.filter(|view| !view.is_deleted()) {
        return view.readiness();
    }
    let message = format!("{} `{}` was deleted during the wait", R::NOUN, last.name());
    WaitState::Failed(Failure::new(Exit::Conflict, ErrorCode::Conflict, message))
}

/// The state of a wait for removal. `now` is `None` if the resource is not found any more: then it is removed.
pub(super) fn removal<R: Provisioned>(_: &R, now: Option<&R>) -> WaitState {
    now.map_or(WaitState::Done, Provisioned::removal)
}

/// The state after nodes reported a failure; `failures` lists them and their errors.
pub(crate) fn failed<R: Provisioned>(view: &R, failures: &str) -> WaitState {
    let (noun, command) = (R::NOUN, R::COMMAND);
    let (what, attempt) = if view.is_deleted() { ("could not be removed", "the removal") } else { ("failed", "it") };
    let message = format!("{noun} `{}` {what} on {failures}", view.name());
    let hint = format!("nodes retry {attempt}; run `otherix {command} get {}` to see the status", view.id());
    WaitState::Failed(with_status(Failure::new(Exit::NodeFailed, ErrorCode::Conflict, message).hint(hint), view))
}

/// A failed node and its error, for [`failed`].
pub(crate) fn node_failure(node: &NodeName, reachable: bool, error: Option<&str>) -> String {
    let unreachable = if reachable { "" } else { " (unreachable)" };
    let error = error.map(|error| format!(": {error}")).unwrap_or_default();
    format!("`{node}`{unreachable}{error}")
}

/// The failure of a wait that exceeded its time limit. `pending` replaces the view's description of what is pending.
pub(super) fn timed_out<R: Provisioned>(last: &R, pending: Option<&str>, timeout: Duration) -> Failure {
    let goal = if last.is_deleted() { OutcomeStatus::Removed } else { OutcomeStatus::Ready };
    let pending = pending.map_or_else(|| last.pending(), str::to_owned);
    let (noun, name, scope, goal) = (R::NOUN, last.name(), R::WHERE, goal.as_str());
    let message = format!("{noun} `{name}` is not {goal}{scope} after {timeout:?}: {pending}");
    let hint = format!("nodes continue; run `otherix {} get {}` to see the status", R::COMMAND, last.id());
    with_status(Failure::new(Exit::TimedOut, ErrorCode::Unavailable, message).hint(hint), last)
}

fn with_status<R: Provisioned>(mut failure: Failure, view: &R) -> Failure {
    *failure.body = (*failure.body).with_detail("status", view.status());
    failure
}
