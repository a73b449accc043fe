//! `--wait`: queries the resource whenever an outcome is published, and every second in case one was missed. Continues
//! through outages of the control plane until the time limit.
//!
//! Cancel-safety: changes nothing; a wait may be dropped at any await.

use std::time::Duration;

use futures::FutureExt;
use otherix_schemas::subject;
use otherix_transport::transport::Subscription;
use tokio::time::{Instant, timeout_at};

use super::Provisioned;
use super::wait_state::{self, WaitProgress, WaitState};
use crate::client::ControlPlaneClient;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;

/// Longest time between queries, and so the delay if an outcome is missed.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A subscription to live outcomes, made before the request whose outcomes are awaited.
pub(super) struct OutcomeFeed {
    /// `None` while the connection is lost.
    outcomes: Option<Subscription>,
}

impl OutcomeFeed {
    pub(super) async fn subscribe(client: &mut ControlPlaneClient) -> Result<Self, Failure> {
        Ok(Self { outcomes: Some(client.subscribe(subject::live(subject::OUTCOMES)).await?) })
    }

    /// Returns when an outcome has arrived or the next query is due. Queued outcomes count as one.
    async fn changed(&mut self, deadline: Instant) {
        let next = async {
            match &mut self.outcomes {
                Some(outcomes) => outcomes.next().await,
                None => std::future::pending().await,
            }
        };
        let poll = deadline.min(Instant::now() + POLL_INTERVAL);
        if let Ok(None) = timeout_at(poll, next).await {
            self.outcomes = None;
        }
        while let Some(Some(_)) = self.outcomes.as_mut().and_then(|outcomes| outcomes.next().now_or_never()) {}
    }

    async fn resubscribe_if_lost(&mut self, client: &mut ControlPlaneClient, deadline: Instant) {
        if self.outcomes.is_none() {
            client.renew_until(deadline);
            self.outcomes = Self::subscribe(client).await.ok().and_then(|feed| feed.outcomes);
        }
    }
}

/// Evaluates the resource, given its last view and the current one (`None` if it is not found any more).
type Evaluate<R> = fn(&R, Option<&R>) -> WaitState;

/// Waits until the resource is ready. Returns its last view and the result of the wait.
pub(super) async fn until_ready<R: Provisioned>(
    client: ControlPlaneClient,
    outcomes: OutcomeFeed,
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
    outcomes: OutcomeFeed,
    deleted: R,
    timeout: Duration,
    printer: &mut Printer,
) -> (R, Result<(), Failure>) {
    let wait = Wait { client, outcomes, timeout, evaluate: wait_state::removal };
    wait.run(deleted, printer).await
}

struct Wait<R> {
    client: ControlPlaneClient,
    outcomes: OutcomeFeed,
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
            self.outcomes.resubscribe_if_lost(&mut self.client, deadline).await;
            self.outcomes.changed(deadline).await;
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
