//! Waiting for the nodes: the network is looked at when an outcome comes by, and every second in case one went unheard. A
//! control plane that is away meanwhile is waited for as well.
//!
//! Cancel-safety: nothing is changed here; a wait may be dropped at any await.

use std::time::Duration;

use async_nats::Subscriber;
use futures::{FutureExt, StreamExt};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::outcome::OutcomeStatus;
use otherix_schemas::request::NetworkById;
use otherix_schemas::subject::{self, Request};
use otherix_schemas::view::{NetworkStatus, NetworkView, NodeStatus};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::network::{count, node_status, speaks_of};

/// How long an outcome that went unheard may go unnoticed.
const LOOK: Duration = Duration::from_secs(1);

/// Ears for outcomes. Made before the request whose outcomes are waited for.
pub(super) struct Waiting {
    outcomes: Option<Subscriber>,
}

impl Waiting {
    pub(super) async fn new(client: &mut Client) -> Result<Self, Failure> {
        Ok(Self { outcomes: Some(client.listen(subject::live(subject::OUTCOMES)).await?) })
    }

    /// Returns when there may be something new. All that was heard is one reason to look.
    async fn something(&mut self, deadline: Instant) {
        let next = async {
            match &mut self.outcomes {
                Some(outcomes) => outcomes.next().await,
                None => std::future::pending().await,
            }
        };
        let look = deadline.min(Instant::now() + LOOK);
        if let Ok(None) = timeout_at(look, next).await {
            self.outcomes = None; // the connection is lost
        }
        while let Some(Some(_)) = self.outcomes.as_mut().and_then(|outcomes| outcomes.next().now_or_never()) {}
    }
}

/// What a look at the network says.
enum Verdict {
    /// It is as wanted.
    Done,
    /// It will never be as wanted, or somebody must act first.
    Failed(Failure),
    /// So many of so many nodes; more may come.
    NotYet(u64, u64, String),
}

/// Waits until every expected node is ready. Gives the network as it was seen last, and how it ended.
pub(super) async fn until_ready(
    client: Client,
    waiting: Waiting,
    created: NetworkView,
    how: (Duration, &mut Printer),
) -> (NetworkView, Result<(), Failure>) {
    watch(client, waiting, created, how, readiness).await
}

/// Waits until every node has confirmed the removal: the network is then not found any more.
pub(super) async fn until_gone(
    client: Client,
    waiting: Waiting,
    deleted: NetworkView,
    how: (Duration, &mut Printer),
) -> (NetworkView, Result<(), Failure>) {
    watch(client, waiting, deleted, how, removal).await
}

async fn watch(
    mut client: Client,
    mut waiting: Waiting,
    mut last: NetworkView,
    (timeout, printer): (Duration, &mut Printer),
    judge: fn(&NetworkView, Option<&NetworkView>) -> Verdict,
) -> (NetworkView, Result<(), Failure>) {
    let deadline = Instant::now() + timeout;
    let mut said = String::new();
    let mut seen_at_all = false;
    loop {
        let (done, of, words) = match look(&mut client, &last, deadline).await {
            Look::Seen(now) => {
                let verdict = judge(&last, now.as_deref());
                if let Some(view) = now {
                    seen_at_all = true;
                    last = *view;
                }
                match verdict {
                    Verdict::Done => return (last, Ok(())),
                    Verdict::Failed(failure) => return (last, Err(failure)),
                    Verdict::NotYet(done, of, words) => (done, of, words),
                }
            }
            Look::Refused(failure) => return (last, Err(failure)),
            Look::Blind(why) => (last.status.ready, last.status.expected, format!("{why}; waiting goes on")),
        };
        if Instant::now() >= deadline {
            let failure = timed_out(&last, seen_at_all, timeout, &words);
            return (last, Err(failure));
        }
        if words != said {
            printer.progress(done, of, &words);
            said = words;
        }
        if waiting.outcomes.is_none() {
            client.renew_until(deadline);
            waiting.outcomes = Waiting::new(&mut client).await.ok().and_then(|new| new.outcomes);
        }
        waiting.something(deadline).await;
    }
}

/// What a look gives.
enum Look {
    /// The network, or the news that it is not found.
    Seen(Option<Box<NetworkView>>),
    /// The control plane could not be asked.
    Blind(String),
    /// The control plane says no.
    Refused(Failure),
}

async fn look(client: &mut Client, network: &NetworkView, deadline: Instant) -> Look {
    client.renew_until(deadline);
    match client.call::<_, NetworkView>(Request::NetworkGet, &NetworkById { id: network.id }).await {
        Ok(answer) => Look::Seen(Some(Box::new(answer.data))),
        Err(failure) => match failure.exit {
            Exit::NotFound => Look::Seen(None),
            Exit::Unreachable => Look::Blind(failure.body.error.message),
            Exit::Done
            | Exit::Unexpected
            | Exit::Usage
            | Exit::Conflict
            | Exit::Blocked
            | Exit::Denied
            | Exit::NodeFailed
            | Exit::TimedOut => Look::Refused(failure),
        },
    }
}

fn readiness(last: &NetworkView, now: Option<&NetworkView>) -> Verdict {
    let Some(view) = now.filter(|view| view.deleted_at.is_none()) else {
        let message = format!("network {} was deleted while it was waited for", last.name);
        return Verdict::Failed(Failure::new(Exit::Conflict, ErrorCode::Conflict, message));
    };
    let failed: Vec<&NodeStatus> = about(view).filter(|node| node.status == OutcomeStatus::Failed).collect();
    if !failed.is_empty() {
        let named: Vec<String> = failed.iter().map(|node| told(view, node)).collect();
        let message = format!("network {} failed on {}", view.name, named.join("; "));
        let failure = Failure::new(Exit::NodeFailed, ErrorCode::Conflict, message)
            .hint("the network exists, and the nodes try again; `otherix network get` shows how it fares");
        return Verdict::Failed(with_status(failure, view));
    }
    let NetworkStatus { ready, expected, .. } = view.status;
    if ready >= expected {
        return Verdict::Done;
    }
    Verdict::NotYet(ready, expected, format!("{ready} of {} ready", count(expected)))
}

fn removal(_: &NetworkView, now: Option<&NetworkView>) -> Verdict {
    let Some(view) = now else { return Verdict::Done };
    let expected = view.status.expected;
    let gone = about(view).filter(|node| node.status == OutcomeStatus::Removed).count();
    let gone = u64::try_from(gone).unwrap_or(u64::MAX);
    Verdict::NotYet(gone, expected, format!("removed from {gone} of {}", count(expected)))
}

/// What nodes say of the network as it is now.
fn about(view: &NetworkView) -> impl Iterator<Item = &NodeStatus> {
    view.status.nodes.iter().flatten().filter(|node| speaks_of(view, node))
}

/// The nodes that are missing, and why.
fn timed_out(last: &NetworkView, seen_at_all: bool, timeout: Duration, words: &str) -> Failure {
    let wanted = if last.deleted_at.is_some() { OutcomeStatus::Removed } else { OutcomeStatus::Ready };
    let nodes = last.status.nodes.iter().flatten();
    let mut missing: Vec<String> =
        nodes.filter(|node| node.status != wanted || !speaks_of(last, node)).map(|node| told(last, node)).collect();
    match last.status.expected.saturating_sub(last.status.reported) {
        0 => {}
        1 => missing.push("1 node has not reported".to_owned()),
        silent => missing.push(format!("{silent} nodes have not reported")),
    }
    if missing.is_empty() || !seen_at_all {
        missing = vec![words.to_owned()];
    }
    let message = format!(
        "network {} is not {} on every node after {} ms: {}",
        last.name,
        wanted.as_str(),
        timeout.as_millis(),
        missing.join("; ")
    );
    let failure = Failure::new(Exit::TimedOut, ErrorCode::Unavailable, message)
        .hint(format!("the nodes go on; `otherix network get {}` shows how it fares", last.id));
    with_status(failure, last)
}

fn with_status(mut failure: Failure, view: &NetworkView) -> Failure {
    failure.body = failure.body.with_detail("status", json!(view.status));
    failure
}

/// `node-1: failed: why`.
fn told(view: &NetworkView, node: &NodeStatus) -> String {
    let status = node_status(view, node);
    match &node.error {
        Some(error) => format!("{}: {status}: {error}", node.node_name),
        None => format!("{}: {status}", node.node_name),
    }
}
