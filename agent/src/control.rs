//! What the agent says to the control plane: it joins, reports, and gives signs of life; and what it hears: the decisions.
//!
//! Nothing here gives up: every failure is logged and tried again, with growing pauses.
//!
//! Cancel-safety: each future may be dropped; a request that was sent may have been carried out, and is safe to repeat.

use std::collections::BTreeSet;
use std::time::Duration;

use otherix_schemas::error::{Causes, ErrorCode, REMOVED_NODE};
use otherix_schemas::id::{EventId, NodeId};
use otherix_schemas::node::{
    Heartbeat, HeartbeatAnswer, JoinAnswer, JoinNode, JoinRequest, MeshOffer, MeshPeerStatus, NodeReport, ReportNode,
    ReportReceipt,
};
use otherix_schemas::position::Position;
use otherix_schemas::subject;
use otherix_schemas::value::NodeName;
use otherix_transport::Connection;
use otherix_transport::feed::{Feed, FeedError, Item, Scope};
use otherix_transport::request::{CallError, CallOptions};
use tokio::sync::{mpsc, watch};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(4);

/// How often a sign of life is given.
const HEARTBEAT: Duration = otherix_schemas::node::HEARTBEAT_INTERVAL;

/// Pause before a node that was removed asks again: only a control plane that was restored would not refuse it.
pub const REMOVED_RETRY: Duration = Duration::from_secs(60);

/// Most reasons that are said why a node cannot join: there are few.
const SAID: usize = 64;

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

/// What the control plane said to a node that joined, or asked again.
#[derive(Clone, Debug)]
pub struct Membership {
    /// How often it had been asked for when the question was put.
    pub asked: u64,
    /// How far the node had folded the decisions when the question was put.
    pub position: Position,
    /// The answer.
    pub joined: JoinAnswer,
}

/// A node that joins.
#[derive(Clone, Debug)]
pub struct Joining {
    /// Which.
    pub node_id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// What it offers to the mesh.
    pub offers: watch::Receiver<Option<MeshOffer>>,
}

impl Joining {
    fn request(&mut self) -> JoinRequest {
        JoinRequest { node_id: self.node_id, name: self.name.clone(), mesh: *self.offers.borrow_and_update() }
    }
}

/// What the tasks that speak with the control plane share with the agent.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The last decision that was folded.
    pub folded: watch::Sender<Position>,
    /// The last decision there is, as far as the control plane has told.
    pub head: watch::Sender<Position>,
    /// Counts the reasons to ask which cluster, epoch and decisions there are now.
    pub asks: watch::Sender<u64>,
}

impl Shared {
    /// Nothing is known yet.
    pub fn new() -> Self {
        let (folded, head) = (watch::Sender::new(Position::ZERO), watch::Sender::new(Position::ZERO));
        Self { folded, head, asks: watch::Sender::new(0) }
    }

    /// Has the cluster asked what it is now. Gives the number that an answer must have at least.
    pub fn ask(&self) -> u64 {
        self.asks.send_modify(|asks| *asks += 1);
        *self.asks.borrow()
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether the control plane refuses this node because it was removed.
pub fn is_removed(error: &CallError) -> bool {
    matches!(error, CallError::Refused(body) if body.error.details.contains_key(REMOVED_NODE))
}

/// Joins the cluster, and again whenever there is a reason to ask it: the connection was made anew, somebody asks, or the node has
/// something else to offer to the mesh. A node that has joined is told what it was told before.
pub async fn member(connection: Connection, mut node: Joining, shared: Shared, answers: mpsc::Sender<Membership>) {
    let mut connects = connection.connects();
    let mut asks = shared.asks.subscribe();
    loop {
        let membership = join(&connection, &mut node, &shared).await;
        connects.mark_unchanged();
        if membership.asked == *asks.borrow_and_update() {
            if answers.send(membership).await.is_err() {
                return;
            }
            tokio::select! {
                Ok(()) = connects.changed() => {}
                Ok(()) = asks.changed() => {}
                Ok(()) = node.offers.changed() => {}
                else => return,
            }
        }
    }
}

/// Asks until it is accepted.
async fn join(connection: &Connection, joining: &mut Joining, shared: &Shared) -> Membership {
    let mut connects = connection.connects();
    let mut pauses = Pauses::new();
    // One that is refused for good, and cut off in between, has nothing new to say either.
    let mut said = BTreeSet::new();
    loop {
        connects.mark_unchanged();
        let (asked, position) = (*shared.asks.borrow(), *shared.folded.borrow());
        let node = joining.request();
        match connection.call::<JoinNode>(&node, options()).await {
            Ok(answer) => {
                if !said.is_empty() {
                    tracing::info!("the control plane answers");
                }
                return Membership { asked, position, joined: answer.data };
            }
            Err(error) => {
                let text = Causes(&error).to_string();
                if said.len() < SAID && !said.contains(&text) {
                    cannot_join(&error, &text, &node);
                    said.insert(text);
                }
                let pause = if is_removed(&error) { REMOVED_RETRY } else { pauses.pause() };
                let _connected_or_passed = tokio::time::timeout(pause, connects.changed()).await;
            }
        }
    }
}

fn cannot_join(error: &CallError, text: &str, node: &JoinRequest) {
    let JoinRequest { node_id, name, mesh: _ } = node;
    match error {
        CallError::Refused(_) if is_removed(error) => tracing::error!(
            error = %text, node = %node_id, %name,
            hint = "to bring this machine back, stop this agent, empty its state folder and start it: it joins as a new node",
            "the cluster refuses this node for good"
        ),
        CallError::Refused(body) if body.error.code == ErrorCode::Conflict => tracing::error!(
            error = %text, node = %node_id, %name,
            hint = "a node keeps its name, and no two have the same: start this agent with another --name, or with the state \
                folder that belongs to the name",
            "the cluster refuses this node; asking on"
        ),
        CallError::Refused(_) => {
            tracing::error!(error = %text, node = %node_id, %name, "the cluster refuses this node; asking on");
        }
        CallError::NoService { .. }
        | CallError::TimedOut { .. }
        | CallError::Transport { .. }
        | CallError::Malformed(_) => {
            tracing::warn!(error = %text, "cannot join yet; asking on")
        }
    }
}

/// Sends a report once.
///
/// # Errors
/// When it is not answered, or refused.
pub async fn report(connection: Connection, report: NodeReport) -> Result<ReportReceipt, CallError> {
    Ok(connection.call::<ReportNode>(&report, options()).await?.data)
}

/// Gives signs of life for ever, and passes on how far the decisions go. A control plane that has not heard this node for a
/// while, or knows less than the node, may be another one: it is asked.
pub async fn live(connection: Connection, node: NodeId, shared: Shared, peers: watch::Receiver<Vec<MeshPeerStatus>>) {
    let subject = subject::heartbeat(node);
    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut heard = true;
    loop {
        ticks.tick().await;
        let beat = Heartbeat { position: *shared.folded.borrow(), mesh: peers.borrow().clone() };
        let answer = connection.exchange(subject.clone(), &beat, options()).await;
        let reply = answer.and_then(|message| Ok(serde_json::from_slice::<HeartbeatAnswer>(&message.payload)?));
        match reply {
            Ok(HeartbeatAnswer { decision_head }) => {
                let again = !std::mem::replace(&mut heard, true);
                if again {
                    tracing::info!("the control plane hears this node again");
                }
                if again || decision_head < beat.position {
                    shared.ask();
                }
                shared.head.send_if_modified(|known| {
                    let news = decision_head > beat.position;
                    *known = decision_head;
                    news
                });
            }
            Err(CallError::Refused(body)) if body.error.code == ErrorCode::NotFound => {
                // It has not joined yet; or the control plane was restored, and does not know it any more.
                tracing::debug!(error = %body, "the control plane does not know this node");
                shared.ask();
            }
            Err(error) if is_removed(&error) => {
                tracing::debug!(error = %error, "the control plane has removed this node");
                shared.ask();
                ticks.reset_after(REMOVED_RETRY);
            }
            Err(error) => {
                if std::mem::replace(&mut heard, false) {
                    tracing::warn!(error = %error, "the control plane does not hear this node");
                }
            }
        }
    }
}

/// Follows the decisions from behind an event on, until the connection is closed for good. An error is passed on too, and tried
/// again.
pub async fn follow(
    connection: Connection,
    (after, last): (Position, Option<EventId>),
    head: watch::Receiver<Position>,
    decisions: mpsc::Sender<Decision>,
) {
    let mut feed = loop {
        match Feed::new(connection.clone(), Scope::Decisions, after, head.clone()).await {
            Ok(feed) => break feed.anchored(last),
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
