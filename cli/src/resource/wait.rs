//! `--wait`: queries the resource whenever an outcome is published, and every second in case one was missed. Continues
//! through outages of the control plane until the time limit.
//!
//! Cancel-safety: changes nothing; a wait may be dropped at any await.

use std::time::Duration;

use tokio::time::Instant;

use super::Provisioned;
use super::wait_state::{self, WaitProgress, WaitState};
use crate::client::ControlPlaneClient;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::live::LiveFeed;
use crate::output::Printer;

/// Evaluates the resource, given its last view and the current one (`None` if it is not found any more).
type Evaluate<R> = fn(&R, Option<&R>) -> WaitState;

/// Waits until the resource is ready. Returns its last view and the result of the wait.
pub(crate) async fn until_ready<R: Provisioned>(
    client: ControlPlaneClient,
    outcomes: LiveFeed,
    created: R,
    timeout: Duration,
    printer: &mut Printer,
) -> (R, Result<(), Failure>) {
    let wait = Wait { client, outcomes, timeout, evaluate: wait_state::readiness };
    wait.run(created, printer).await
}

/// Waits until every node has confirmed the removal: the resource is then not found any more.
pub(super) async fn until_removed<R: Provisioned>(
    client: ControlPlaneClient,
    outcomes: LiveFeed,
    deleted: R,
    timeout: Duration,
    printer: &mut Printer,
) -> (R, Result<(), Failure>) {
    let wait = Wait { client, outcomes, timeout, evaluate: wait_state::removal };
    wait.run(deleted, printer).await
}

struct Wait<R> {
    client: ControlPlaneClient,
    outcomes: LiveFeed,
    timeout: Duration,
    evaluate: Evaluate<R>,
}

impl<R: Provisioned> Wait<R> {
    async fn run(self, mut last: R, printer: &mut Printer) -> (R, Result<(), Failure>) {
        let result = self.poll(&mut last, printer).await;
        printer.end_progress();
        if let Some(note) = last.not_awaited().filter(|_| result.is_ok() && !printer.is_json()) {
            printer.note(&note);
        }
        (last, result)
    }

    /// Queries until the wait is over or its time limit expires; `last` is kept up to date.
    async fn poll(mut self, last: &mut R, printer: &mut Printer) -> Result<(), Failure> {
        let deadline = Instant::now() + self.timeout;
        let mut shown = WaitProgress { done: 0, of: 0, message: String::new() };
        let mut queried = false;
        loop {
            let progress = match self.query(last, deadline).await {
                QueryResult::Answered(now) => {
                    let state = (self.evaluate)(last, now.as_ref());
                    if let Some(view) = now {
                        queried = true;
                        *last = view;
                    }
                    match state {
                        WaitState::Done => return Ok(()),
                        WaitState::Failed(failure) => return Err(failure),
                        WaitState::Pending(progress) => progress,
                    }
                }
                QueryResult::Refused(failure) => return Err(failure),
                QueryResult::Unavailable(error) => WaitProgress { message: format!("{error}; still waiting"), ..shown },
            };
            if Instant::now() >= deadline {
                let unavailable = if queried { None } else { Some(progress.message.as_str()) };
                return Err(wait_state::timed_out(last, unavailable, self.timeout));
            }
            if progress.message != shown.message {
                printer.progress(progress.done, progress.of, &progress.message);
            }
            shown = progress;
            self.client.renew_until(deadline);
            self.outcomes.resubscribe_if_lost(&mut self.client).await;
            self.outcomes.changed(Some(deadline)).await;
        }
    }

    async fn query(&mut self, view: &R, deadline: Instant) -> QueryResult<R> {
        self.client.renew_until(deadline);
        match self.client.call::<R::Get>(&R::by_id(view.id())).await {
            Ok(answer) => QueryResult::Answered(Some(answer.data)),
            Err(failure) => match failure.exit {
                Exit::NotFound => QueryResult::Answered(None),
                Exit::Unreachable => QueryResult::Unavailable(failure.body.error.message),
                Exit::Success
                | Exit::Unexpected
                | Exit::Differs
                | Exit::NotCompared
                | Exit::Usage
                | Exit::Conflict
                | Exit::Blocked
                | Exit::Denied
                | Exit::NodeFailed
                | Exit::TimedOut => QueryResult::Refused(failure),
            },
        }
    }
}

/// The result of a query.
enum QueryResult<R> {
    /// The view; `None` if the resource is not found.
    Answered(Option<R>),
    /// The control plane could not be reached.
    Unavailable(String),
    Refused(Failure),
}
