//! The agent's messages to the control plane: join, reports and heartbeats.
//!
//! Every failure is logged, and retried without limit.
//!
//! Cancel-safety: each future may be dropped. A request that was sent may have been processed, and is safe to repeat.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use otherix_runtime::{Backoff, Runtime};
use otherix_schemas::decision_chain::{DecisionHead, Nonce};
use otherix_schemas::error::{Causes, ErrorCode};
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{
    Heartbeat, HeartbeatAnswer, JoinAnswer, JoinNode, JoinRequest, MeshOffer, MeshPeerStatus, NodeReport, ReportNode,
    ReportReceipt,
};
use otherix_schemas::position::Position;
use otherix_schemas::subject;
use otherix_schemas::value::NodeName;
use otherix_schemas::vm::Arch;
use otherix_transport::Connection;
use otherix_transport::request::{CallError, CallOptions};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::trust::{Trust, TrustError};
use crate::witness::{LogAnswer, Witness};

/// The timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(4);

/// The interval of heartbeats.
const HEARTBEAT: Duration = otherix_schemas::node::HEARTBEAT_INTERVAL;

/// How long heartbeats tell that the agent was started with an older copy of its state.
const SET_BACK_TOLD: Duration = Duration::from_secs(3600);

/// Delay before a node that was removed tries again: only a restored control plane may accept it.
const REMOVED_RETRY: Duration = Duration::from_secs(60);

/// What to do if the credentials are not accepted.
const NOT_ACCEPTED_HINT: &str = "if the node was removed from the cluster on purpose, stop its agent, run \
    `otherix-agent leave`, and start it: it removes its devices. Otherwise create a token with `otherix node \
    join-token create --name NODE`, stop the agent, run `otherix-agent join` with it, and start the agent";

/// What to do with a machine that was removed from the cluster, and knows it.
const REMOVED_HINT: &str = "to use this machine again, stop the agent, empty its state folder and run `otherix-agent \
    join` with a new token: it joins as a new node";

/// Most distinct errors that are logged while the node cannot join.
const ERRORS_MAX: usize = 64;

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
    /// As signed by the control plane.
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
    /// By what this node knows its control plane.
    pub trust: Trust,
    /// The head of the chain of decisions in the last answer to a heartbeat.
    pub signed_head: watch::Sender<Option<DecisionHead>>,
    /// What the control plane has signed that contradicts what it has signed before.
    pub contradiction: watch::Sender<Option<String>>,
    /// What this node keeps of the transparency log.
    pub witness: Witness,
    /// What the last answer to a heartbeat told of the log.
    pub log: watch::Sender<Option<LogAnswer>>,
    /// What showed that this agent was started with an older copy of its state, and when.
    pub set_back: watch::Sender<Option<(Instant, String)>>,
    /// The last decision in the ledger with which this agent was started; `None` until it is read.
    pub started_with: watch::Sender<Option<Position>>,
    /// The last decision in the ledger on disk.
    pub saved: watch::Sender<Position>,
    /// This node was removed from the cluster, according to its ledger.
    pub is_removed: watch::Sender<bool>,
    /// What requests to this node must be signed with.
    pub challenge: watch::Sender<Nonce>,
    /// A heartbeat is to be sent at once, for the head in its answer.
    pub head_wanted: Arc<Notify>,
}

impl SharedState {
    pub fn new(trust: Trust, witness: Witness, challenge: Nonce) -> Self {
        let (position, head) = (watch::Sender::new(Position::ZERO), watch::Sender::new(Position::ZERO));
        let (incarnation, other_agent) = (watch::Sender::new(0), watch::Sender::new(None));
        let (signed_head, head_wanted) = (watch::Sender::new(None), Arc::new(Notify::new()));
        let (requests, contradiction) = (watch::Sender::new(0), watch::Sender::new(None));
        Self {
            position,
            head,
            requests,
            incarnation,
            other_agent,
            trust,
            signed_head,
            contradiction,
            witness,
            log: watch::Sender::new(None),
            set_back: watch::Sender::new(None),
            started_with: watch::Sender::new(None),
            saved: watch::Sender::new(Position::ZERO),
            is_removed: watch::Sender::new(false),
            challenge: watch::Sender::new(challenge),
            head_wanted,
        }
    }

    /// Has heartbeats tell that this agent was started with an older copy of its state. What showed it first counts.
    pub fn note_set_back(&self, text: String) {
        let is_new = self.set_back.send_if_modified(|noted| {
            let is_new = noted.is_none();
            if is_new {
                *noted = Some((Instant::now(), text.clone()));
            }
            is_new
        });
        if is_new {
            tracing::warn!(%text, "this agent was started with an older copy of its state");
        }
    }

    /// Requests the membership again. Returns the number of the request: answers with a lower one are outdated.
    pub fn request_membership(&self) -> u64 {
        self.requests.send_modify(|requests| *requests += 1);
        *self.requests.borrow()
    }
}

/// Joins the cluster; and again after a reconnect, at the request of the main loop, and when the node's offer to the
/// mesh has changed. A join is idempotent.
pub async fn keep_membership(heartbeats: Heartbeats, mut node: JoiningNode, answers: mpsc::Sender<MembershipAnswer>) {
    let Heartbeats { connection, shared, .. } = &heartbeats;
    let mut connects = connection.connects();
    let mut requests = shared.requests.subscribe();
    loop {
        let membership = join(&heartbeats, &mut node).await;
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
async fn join(heartbeats: &Heartbeats, joining: &mut JoiningNode) -> MembershipAnswer {
    let Heartbeats { connection, shared, .. } = heartbeats;
    let mut connects = connection.connects();
    let mut backoff = backoff(connection.runtime().as_ref());
    // Each error is logged once, even if errors alternate.
    let mut logged = BTreeSet::new();
    loop {
        connects.mark_unchanged();
        let (request, position) = (*shared.requests.borrow(), *shared.position.borrow());
        let node = joining.request();
        let joined = match connection.call::<JoinNode>(&node, options()).await {
            // What it says of the decisions counts only as signed.
            Ok(_) => heartbeats.send().await,
            Err(error) => Err(error.into()),
        };
        match joined {
            Ok((DecisionHead { cluster, epoch, position: decision_head, digest: _ }, _)) => {
                if !logged.is_empty() {
                    tracing::info!("the control plane accepts this node");
                }
                return MembershipAnswer { request, position, joined: JoinAnswer { cluster, epoch, decision_head } };
            }
            Err(HeartbeatError::Trust(error)) => {
                let text = Causes(&error).to_string();
                if logged.len() < ERRORS_MAX && logged.insert(text.clone()) {
                    tracing::error!(error = %text, "this node does not follow the control plane: retrying");
                }
                let _reconnected_or_elapsed = tokio::time::timeout(backoff.next_delay(), connects.changed()).await;
            }
            Err(HeartbeatError::Call(error)) => {
                let text = Causes(&error).to_string();
                if logged.len() < ERRORS_MAX && !logged.contains(&text) {
                    log_refusal(&error, &text, &node);
                    logged.insert(text);
                }
                let is_final = matches!(error, CallError::Refused(_)) && *shared.is_removed.borrow();
                let pause = if is_final { REMOVED_RETRY } else { backoff.next_delay() };
                let _reconnected_or_elapsed = tokio::time::timeout(pause, connects.changed()).await;
            }
        }
    }
}

fn log_refusal(error: &CallError, text: &str, node: &JoinRequest) {
    let JoinRequest { node_id, name, mesh: _, arch: _ } = node;
    match error {
        CallError::Refused(body) if body.error.code == ErrorCode::Conflict => tracing::error!(
            error = %text, node = %node_id, %name,
            hint = "a node keeps the name that it joined with: start this agent without --name, or with the state \
                folder of the node that has the name",
            "the cluster refuses this node: retrying"
        ),
        // The task of the heartbeats logs it.
        CallError::Refused(body) if body.error.code == ErrorCode::Unauthenticated => {
            tracing::debug!(error = %text, "cannot join");
        }
        CallError::Refused(body) if body.error.code == ErrorCode::PermissionDenied => tracing::error!(
            error = %text, node = %node_id, %name,
            hint = "these are the credentials of another node, or of no node: run `otherix-agent join` on this machine \
                with a token that names the node",
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

/// A heartbeat was not answered by this node's control plane.
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// What heartbeats are sent with.
#[derive(Clone, Debug)]
pub struct Heartbeats {
    pub connection: Connection,
    pub shared: SharedState,
    /// The status of the mesh's peers.
    pub peers: watch::Receiver<Vec<MeshPeerStatus>>,
}

impl Heartbeats {
    /// Sends a heartbeat. Publishes and returns the signed head of the answer, and whether it is behind the ledger.
    ///
    /// # Errors
    /// [`HeartbeatError`] if it is not answered, refused, or not signed by this node's control plane.
    async fn send(&self) -> Result<(DecisionHead, bool), HeartbeatError> {
        let Self { connection, shared, peers } = self;
        let (position, incarnation) = (*shared.position.borrow(), *shared.incarnation.borrow());
        let nonce = Nonce::new(*connection.runtime().uuid_v4().as_bytes());
        let mesh = peers.borrow().clone();
        let contradiction = shared.contradiction.borrow().clone();
        let set_back = shared.set_back.borrow().clone();
        let set_back = set_back.filter(|(at, _)| at.elapsed() < SET_BACK_TOLD).map(|(_, text)| text);
        let started_with = *shared.started_with.borrow();
        let beat = Heartbeat {
            position,
            incarnation: Some(incarnation),
            nonce: Some(nonce),
            contradiction,
            checkpoint: shared.witness.checkpoint(),
            log_contradiction: shared.witness.contradiction(),
            set_back,
            started_with,
            saved: started_with.map(|started| started.max(*shared.saved.borrow())),
            challenge: Some(*shared.challenge.borrow()),
            mesh,
        };
        let message = connection.exchange(subject::heartbeat(&connection.user()), &beat, options()).await?;
        let answer: HeartbeatAnswer = serde_json::from_slice(&message.payload).map_err(CallError::from)?;
        let head = shared.trust.accept(&answer, nonce)?;
        shared.log.send_replace(Some(LogAnswer {
            checkpoint: answer.checkpoint,
            key: answer.log_key,
            contradiction: answer.log_contradiction,
            cluster: head.cluster,
            epoch: head.epoch,
        }));
        if let Some(text) = answer.set_back {
            shared.note_set_back(text);
        }
        let other_agent = answer.other_agent;
        shared.other_agent.send_if_modified(|before| std::mem::replace(before, other_agent) != other_agent);
        shared.signed_head.send_replace(Some(head));
        shared.head.send_if_modified(|known| {
            *known = head.position;
            head.position > position
        });
        Ok((head, head.position < position))
    }
}

/// How the last heartbeat ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HeartbeatState {
    Answered,
    Unanswered,
    /// The credentials are not accepted. That lasts while the server is unreachable.
    NotAccepted,
    /// They are not accepted, and the ledger says why: the node was removed.
    Removed,
}

/// Sends heartbeats until it is dropped, at once if a head is wanted. Requests the membership again after heartbeats
/// were not answered, and when the control plane is behind the node: it may have been restored.
pub async fn send_heartbeats(heartbeats: Heartbeats) {
    let shared = &heartbeats.shared;
    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut state = HeartbeatState::Answered;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.head_wanted.notified() => {}
        }
        match heartbeats.send().await {
            Ok((_, is_behind)) => {
                let again = std::mem::replace(&mut state, HeartbeatState::Answered) != HeartbeatState::Answered;
                if again {
                    tracing::info!("the control plane answers heartbeats again");
                }
                if again || is_behind {
                    shared.request_membership();
                }
            }
            Err(HeartbeatError::Call(CallError::Refused(body))) if body.error.code == ErrorCode::NotFound => {
                // The node has not joined yet, or a restored control plane does not know it.
                tracing::debug!(error = %body, "the control plane does not know this node");
                shared.request_membership();
            }
            Err(HeartbeatError::Trust(error)) => {
                if std::mem::replace(&mut state, HeartbeatState::Unanswered) == HeartbeatState::Answered {
                    let error = Causes(&error);
                    tracing::error!(%error, "a heartbeat was not answered by this node's control plane");
                }
            }
            Err(HeartbeatError::Call(CallError::Refused(body))) if body.error.code == ErrorCode::Unauthenticated => {
                let is_removed = *shared.is_removed.borrow();
                let (refused, hint, text) = if is_removed {
                    ticks.reset_after(REMOVED_RETRY);
                    (HeartbeatState::Removed, REMOVED_HINT, "the cluster refuses this node permanently: it was removed")
                } else {
                    let text = "the cluster does not accept this node's credentials: retrying";
                    (HeartbeatState::NotAccepted, NOT_ACCEPTED_HINT, text)
                };
                if std::mem::replace(&mut state, refused) != refused {
                    tracing::error!(error = %body, hint, "{text}");
                }
            }
            Err(HeartbeatError::Call(error)) => {
                if state == HeartbeatState::Answered {
                    state = HeartbeatState::Unanswered;
                    tracing::warn!(error = %Causes(&error), "the control plane does not answer heartbeats");
                }
            }
        }
    }
}
