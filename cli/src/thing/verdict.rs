//! What a look at a thing says to somebody who waits for it. Pure: judges a view, looks at nothing else.

use std::time::Duration;

use otherix_schemas::error::ErrorCode;
use otherix_schemas::outcome::OutcomeStatus;
use otherix_schemas::value::NodeName;

use super::Made;
use crate::exit::Exit;
use crate::failure::Failure;

/// What a look says.
pub(crate) enum Verdict {
    /// It is as wanted.
    Done,
    /// It will never be as wanted, or somebody must act first.
    Failed(Failure),
    /// More may come.
    NotYet(Progress),
}

/// How far it is.
pub(crate) struct Progress {
    /// So many are done.
    pub(crate) done: u64,
    /// Of so many.
    pub(crate) of: u64,
    /// The same in words.
    pub(crate) words: String,
}

/// Whether it is ready. `now` is none when it is not found any more.
pub(super) fn readiness<T: Made>(last: &T, now: Option<&T>) -> Verdict {
    if let Some(view) = now.filter(|view| !view.is_deleted()) {
        return view.readiness();
    }
    let message = format!("{} {} was deleted while it was waited for", T::WHAT, last.name());
    Verdict::Failed(Failure::new(Exit::Conflict, ErrorCode::Conflict, message))
}

/// Whether it is removed. `now` is none when it is not found any more: then it is.
pub(super) fn removal<T: Made>(_: &T, now: Option<&T>) -> Verdict {
    now.map_or(Verdict::Done, Made::removal)
}

/// A node could not do its part; `failed` names it and says why.
pub(crate) fn failed<T: Made>(view: &T, failed: &str) -> Verdict {
    let (what, exists, with) = if view.is_deleted() {
        ("could not be removed", "deleted", " with its UUID")
    } else {
        ("failed", "created", "")
    };
    let message = format!("{} {} {what} on {failed}", T::WHAT, view.name());
    let hint = format!("it is {exists}, and is tried again; `otherix {} get`{with} shows how it fares", T::COMMAND);
    Verdict::Failed(with_status(Failure::new(Exit::NodeFailed, ErrorCode::Conflict, message).hint(hint), view))
}

/// `node-1: why`, for [`failed`].
pub(crate) fn why(node: &NodeName, reachable: bool, error: Option<&str>) -> String {
    let unreachable = if reachable { "" } else { " (unreachable)" };
    let error = error.map(|error| format!(": {error}")).unwrap_or_default();
    format!("{node}{unreachable}{error}")
}

/// What is missing, and why. `words` stand for it when the thing could not be looked at.
pub(super) fn timed_out<T: Made>(last: &T, words: Option<&str>, timeout: Duration) -> Failure {
    let wanted = if last.is_deleted() { OutcomeStatus::Removed } else { OutcomeStatus::Ready };
    let missing = words.map_or_else(|| last.missing(), str::to_owned);
    let (what, name, on, wanted) = (T::WHAT, last.name(), T::WHERE, wanted.as_str());
    let message = format!("{what} {name} is not {wanted}{on} after {timeout:?}: {missing}");
    let hint = format!("it is still tried; `otherix {} get {}` shows how it fares", T::COMMAND, last.id());
    with_status(Failure::new(Exit::TimedOut, ErrorCode::Unavailable, message).hint(hint), last)
}

fn with_status<T: Made>(mut failure: Failure, view: &T) -> Failure {
    failure.body = failure.body.with_detail("status", view.status());
    failure
}
