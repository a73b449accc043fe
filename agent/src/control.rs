//! The agent's messages to the control plane: join, reports, heartbeats, and the feed of decisions.
//!
//! Every failure is logged, and retried without limit.
//!
//! Cancel-safety: each future may be dropped. A request that was sent may have been processed, and is safe to repeat.

use std::collections::BTreeSet;
use std::time::Duration;

use otherix_runtime::{Backoff, Runtime};
use otherix_schemas::error::{Causes, ErrorCode, REMOVED_NODE};
use otherix_schemas::id::{EventId, NodeId};
use otherix_schemas::node::{
    Heartbeat, HeartbeatAnswer, JoinAnswer, JoinNode, JoinRequest, MeshOffer, MeshPeerStatus, NodeReport, ReportNode,
    ReportReceipt,
};
use otherix_schemas::position::Position;
use otherix_schemas::subject;
use otherix_schemas::value::NodeName;
use otherix_schemas::vm::Arch;
use otherix_transport::Connection;
use otherix_transport::feed::{Feed, FeedError, FeedItem, FeedScope};
use otherix_transport::request::{CallError, CallOptions};
use tokio::sync::{mpsc, watch};

/// The timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(4);

/// The interval of heartbeats.
const HEARTBEAT: Duration = otherix_schemas::node::HEARTBEAT_INTERVAL;

/// Delay before a node that was removed tries again: only a restored control plane may accept it.
pub const REMOVED_RETRY: Duration = Duration::from_secs(60);

/// Most distinct errors that are logged while the node cannot join.
const ERRORS_MAX: usize = 64;

/// Delay after an error of the feed.
const FEED_RETRY: Duration = Duration::from_secs(5);

/// Most decisions that are queued for the main loop; the feed reads no further meanwhile.
pub const DECISIONS: usize = 1024;

/// A decision, or the error that prevents the feed from reading the next one.
pub type FeedResult = Result<FeedItem, FeedError>;

/// Returns the backoff of attempts to reach the control plane or the mesh device: 0.1 s to 3 s.
pub fn backoff(runtime: &dyn Runtime) -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(3), runtime)
}

fn options() -> CallOptions {
    CallOptions { timeout: TIMEOUT, idempotency_key: None }
}

/// The answer to a membership request.
#[derive(Clone, Debug)]
pub struct MembershipAnswer {
    /// The number of the membership request that this answers.
    pub request: u64,
    /// The position of the ledger when the request was sent.
    pub position: Position,
    pub joined: JoinAnswer,
}

/// The node that joins.
#[derive(Clone, Debug)]
pub struct JoiningNode {
    pub node_id: NodeId,
    pub name: NodeName,
    /// The public key and endpoint that it offers to the mesh.
    pub offers: watch::Receiver<Option<MeshOffer>>,
}

/// The architecture of this machine, which is that of this program.
fn own_arch() -> Option<Arch> {
    match std::env::consts::ARCH {
        "x86_64" => Some(Arch::Amd64),
        "aarch64" => Some(Arch::Arm64),
        _ => None,
    }
}

impl JoiningNode {
    fn request(&mut self) -> JoinRequest {
        let mesh = *self.offers.borrow_and_update();
        JoinRequest { node_id: self.node_id, name: self.name.clone(), mesh, arch: own_arch() }
    }
}

/// The state that the main loop shares with the tasks of this module.
#[derive(Clone, Debug)]
pub struct SharedState {
    /// The position of the ledger.
    pub position: watch::Sender<Position>,
    /// The position of the last decision, according to the control plane.
    pub head: watch::Sender<Position>,
    /// The number of the current membership request.
    pub requests: watch::Sender<u64>,
    /// The incarnation of this agent.
    pub incarnation: watch::Sender<u64>,
    /// The incarnation of another agent that uses this node's id, according to the control plane.
    pub other_agent: watch::Sender<Option<u64>>,
}

impl SharedState {
    pub fn new() -> Self {
        let (position, head) = (watch::Sender::new(Position::ZERO), watch::Sender::new(Position::ZERO));
        let (incarnation, other_agent) = (watch::Sender::new(0), watch::Sender::new(None));
        Self { position, head, requests: watch::Sender::new(0), incarnation, other_agent }
    }

    /// Requests the membership again. Returns the number of the request: answers with a lower one are outdated.
    pub fn request_membership(&self) -> u64 {
        self.requests.send_modify(|requests| *requests += 1);
        *self.requests.borrow()
    }
}

impl Default for SharedState {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether the control plane refuses this node because it was removed.
pub fn is_removed(error: &CallError) -> bool {
    matches!(error, CallError::Refused(body) if body.error.details.contains_key(REMOVED_NODE))
}

/// Joins the cluster; and again after a reconnect, at the request of the main loop, and when the node's offer to the
/// mesh has changed. A join is idempotent.
pub async fn keep_membership(
    connection: Connection,
    mut node: JoiningNode,
    shared: SharedState,
    answers: mpsc::Sender<MembershipAnswer>,
) {
    let mut connects = connection.connects();
    let mut requests = shared.requests.subscribe();
    loop {
        let membership = join(&connection, &mut node, &shared).await;
        connects.mark_unchanged();
        if membership.request == *requests.borrow_and_update() {
            if answers.send(membership).await.is_err() {
                return;
            }
            tokio::select! {
                Ok(()) = connects.changed() => {}
                Ok(()) = requests.changed() => {}
                Ok(()) = node.offers.changed() => {}
                else => return,
            }
        }
    }
}

/// Sends join requests until one is accepted.
async fn join(connection: &Connection, joining: &mut JoiningNode, shared: &SharedState) -> MembershipAnswer {
    let mut connects = connection.connects();
    let mut backoff = backoff(connection.runtime().as_ref());
    // Each error is logged once, even if errors alternate.
    let mut logged = BTreeSet::new();
    loop {
        connects.mark_unchanged();
        let (request, position) = (*shared.requests.borrow(), *shared.position.borrow());
        let node = joining.request();
        match connection.call::<JoinNode>(&node, options()).await {
            Ok(answer) => {
                if !logged.is_empty() {
                    tracing::info!("the control plane accepts this node");
                }
                return MembershipAnswer { request, position, joined: answer.data };
            }
            Err(error) => {
                let text = Causes(&error).to_string();
                if logged.len() < ERRORS_MAX && !logged.contains(&text) {
                    log_refusal(&error, &text, &node);
                    logged.insert(text);
                }
                let pause = if is_removed(&error) { REMOVED_RETRY } else { backoff.next_delay() };
                let _reconnected_or_elapsed = tokio::time::timeout(pause, connects.changed()).await;
            }
        }
    }
}

fn log_refusal(error: &CallError, text: &str, node: &JoinRequest) {
    let JoinRequest { node_id, name, mesh: _, arch: _ } = node;
    match error {
        CallError::Refused(_) if is_removed(error) => tracing::error!(
            error = %text, node = %node_id, %name,
            hint = "to use this machine again, stop the agent, empty its state folder and start it: it joins as a new \
                node",
            "the cluster refuses this node permanently"
        ),
        CallError::Refused(body) if body.error.code == ErrorCode::Conflict => tracing::error!(
            error = %text, node = %node_id, %name,
            hint = "node names are unique and permanent: start this agent with another --name, or with the state \
                folder that belongs to the name",
            "the cluster refuses this node: retrying"
        ),
        CallError::Refused(_) => {
            tracing::error!(error = %text, node = %node_id, %name, "the cluster refuses this node: retrying");
        }
        CallError::NoService { .. }
        | CallError::TimedOut { .. }
        | CallError::Transport { .. }
        | CallError::Malformed(_) => {
            tracing::warn!(error = %text, "cannot join yet: retrying")
        }
    }
}

/// Sends a report.
///
/// # Errors
/// [`CallError`] if it is not answered, or refused.
pub async fn report(connection: Connection, report: NodeReport) -> Result<ReportReceipt, CallError> {
    Ok(connection.call::<ReportNode>(&report, options()).await?.data)
}

/// Sends heartbeats until it is dropped, and publishes the decision head of the answers. Requests the membership again
/// after heartbeats were not answered, and when the control plane is behind the node: it may have been restored.
pub async fn send_heartbeats(
    connection: Connection,
    node: NodeId,
    shared: SharedState,
    peers: watch::Receiver<Vec<MeshPeerStatus>>,
) {
    let subject = subject::heartbeat(node);
    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_answered = true;
    loop {
        ticks.tick().await;
        let (position, incarnation) = (*shared.position.borrow(), *shared.incarnation.borrow());
        let beat = Heartbeat { position, incarnation: Some(incarnation), mesh: peers.borrow().clone() };
        let answer = connection.exchange(subject.clone(), &beat, options()).await;
        let reply = answer.and_then(|message| Ok(serde_json::from_slice::<HeartbeatAnswer>(&message.payload)?));
        match reply {
            Ok(HeartbeatAnswer { decision_head, other_agent }) => {
                shared.other_agent.send_if_modified(|before| std::mem::replace(before, other_agent) != other_agent);
                let again = !std::mem::replace(&mut is_answered, true);
                if again {
                    tracing::info!("the control plane answers heartbeats again");
                }
                if again || decision_head < beat.position {
                    shared.request_membership();
                }
                shared.head.send_if_modified(|known| {
                    let is_newer = decision_head > beat.position;
                    *known = decision_head;
                    is_newer
                });
            }
            Err(CallError::Refused(body)) if body.error.code == ErrorCode::NotFound => {
                // The node has not joined yet, or a restored control plane does not know it.
                tracing::debug!(error = %body, "the control plane does not know this node");
                shared.request_membership();
            }
            Err(error) if is_removed(&error) => {
                tracing::debug!(error = %error, "the control plane has removed this node");
                shared.request_membership();
                ticks.reset_after(REMOVED_RETRY);
            }
            Err(error) => {
                if std::mem::replace(&mut is_answered, false) {
                    tracing::warn!(error = %error, "the control plane does not answer heartbeats");
                }
            }
        }
    }
}

/// Where the feed of decisions starts.
#[derive(Clone, Copy, Debug)]
pub struct FeedStart {
    pub after: Position,
    /// The id of the event at `after`, to detect another history.
    pub last: Option<EventId>,
}

/// Sends the decisions after a position to the main loop until the connection is closed; errors too, and then tries
/// again.
pub async fn follow(
    connection: Connection,
    FeedStart { after, last }: FeedStart,
    head: watch::Receiver<Position>,
    decisions: mpsc::Sender<FeedResult>,
) {
    let mut feed = loop {
        match Feed::new(connection.clone(), FeedScope::Decisions, after, head.clone()).await {
            Ok(feed) => break feed.anchored(last),
            Err(error) => {
                tracing::warn!(error = %error, "cannot read the decisions yet");
                tokio::time::sleep(FEED_RETRY).await;
            }
        }
    };
    loop {
        let item = feed.next().await;
        let (failed, closed) = (item.is_err(), matches!(item, Err(FeedError::Closed)));
        if decisions.send(item).await.is_err() || closed {
            return;
        }
        if failed {
            tokio::time::sleep(FEED_RETRY).await;
        }
    }
}
