//! What the agent says to the control plane: it joins, reports, and gives signs of life; and what it hears: the decisions.
//!
//! Nothing here gives up: every failure is logged and tried again, with growing pauses.
//!
//! Cancel-safety: each future may be dropped; a request that was sent may have been carried out, and is safe to repeat.

use std::time::Duration;

use otherix_schemas::id::NodeId;
use otherix_schemas::outcome::{NodeReport, ReportReceipt};
use otherix_schemas::position::Position;
use otherix_schemas::request::{Heartbeat, HeartbeatReply, JoinNode, Joined};
use otherix_schemas::subject::{self, Request};
use otherix_transport::Connection;
use otherix_transport::feed::{Feed, FeedError, Item, Scope};
use otherix_transport::request::{CallError, CallOptions};
use tokio::sync::{mpsc, watch};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(4);

/// How often a sign of life is given.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Pause after a feed that cannot go on.
const FEED_RETRY: Duration = Duration::from_secs(5);

/// Most decisions that wait to be folded; more wait in the feed.
pub const DECISIONS: usize = 1024;

/// A decision on its way to be folded, or why the next cannot be read.
pub type Decision = Result<Item, FeedError>;

/// Growing pauses between attempts.
#[derive(Debug)]
pub struct Pauses {
    next: Duration,
}

impl Pauses {
    const FIRST: Duration = Duration::from_millis(100);
    const LAST: Duration = Duration::from_secs(3);

    /// From the shortest.
    pub fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// The pause to make now.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(Self::LAST);
        pause
    }
}

impl Default for Pauses {
    fn default() -> Self {
        Self::new()
    }
}

fn options() -> CallOptions {
    CallOptions { timeout: TIMEOUT, idempotency_key: None }
}

/// Joins the cluster: asks until it is accepted.
pub async fn join(connection: &Connection, node: &JoinNode) -> Joined {
    let mut pauses = Pauses::new();
    let mut said = None;
    loop {
        match connection.call(Request::NodeJoin, node, options()).await {
            Ok(answer) => return answer.data,
            Err(error) => {
                let text = error.to_string();
                if said.as_ref() != Some(&text) {
                    match &error {
                        CallError::Refused(_) => {
                            tracing::error!(error = %text, "the cluster refuses this node; asking on")
                        }
                        CallError::NoService { .. }
                        | CallError::TimedOut { .. }
                        | CallError::Nats { .. }
                        | CallError::Malformed(_) => tracing::warn!(error = %text, "cannot join yet; asking on"),
                    }
                    said = Some(text);
                }
                tokio::time::sleep(pauses.pause()).await;
            }
        }
    }
}

/// Sends a report once.
///
/// # Errors
/// When it is not answered, or refused.
pub async fn report(connection: Connection, report: NodeReport) -> Result<ReportReceipt, CallError> {
    Ok(connection.call(Request::NodeReport, &report, options()).await?.data)
}

/// Gives signs of life for ever, and passes on how far the decisions go.
pub async fn live(
    connection: Connection,
    node: NodeId,
    position: watch::Receiver<Position>,
    head: watch::Sender<Position>,
) {
    let subject = subject::heartbeat(node);
    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut heard = true;
    loop {
        ticks.tick().await;
        let beat = Heartbeat { position: *position.borrow() };
        let answer = connection.exchange(subject.clone(), &beat, options()).await;
        let reply = answer.and_then(|message| Ok(serde_json::from_slice::<HeartbeatReply>(&message.payload)?));
        match reply {
            Ok(HeartbeatReply { decision_head }) => {
                if !std::mem::replace(&mut heard, true) {
                    tracing::info!("the control plane hears this node again");
                }
                head.send_if_modified(|known| {
                    let news = decision_head > beat.position;
                    *known = decision_head;
                    news
                });
            }
            Err(error) => {
                if std::mem::replace(&mut heard, false) {
                    tracing::warn!(error = %error, "the control plane does not hear this node");
                }
            }
        }
    }
}

/// Follows the decisions from the first on, until the connection is closed for good. An error is passed on too, and tried
/// again.
pub async fn follow(connection: Connection, head: watch::Receiver<Position>, decisions: mpsc::Sender<Decision>) {
    let mut feed = loop {
        match Feed::new(connection.clone(), Scope::Decisions, Position::ZERO, head.clone()).await {
            Ok(feed) => break feed,
            Err(error) => {
                tracing::warn!(error = %error, "cannot follow the decisions yet");
                tokio::time::sleep(FEED_RETRY).await;
            }
        }
    };
    loop {
        let item = feed.next().await;
        let (stuck, closed) = (item.is_err(), matches!(item, Err(FeedError::Closed)));
        if decisions.send(item).await.is_err() || closed {
            return;
        }
        if stuck {
            tokio::time::sleep(FEED_RETRY).await;
        }
    }
}
