//! Heartbeats: answers them with the decision head, so that a node sees whether it missed the last decision, and has
//! changes of nodes' presence and conditions recorded.
//!
//! The control plane checks nodes only when it can receive: from time to time it sends a heartbeat of its own the same
//! way, and checks the nodes when that arrives: by then, everything that nodes sent before has arrived as well. A
//! control plane that was stopped, or is disconnected from NATS, does not receive its own heartbeat, and so declares no
//! node unreachable. Only one process may serve heartbeats.
//!
//! Cancel-safety: [`Heartbeats::serve`] may be dropped at any await; commands submitted to the writer are still
//! carried out.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::FutureExt;
use otherix_runtime::{LogLimits, Runtime, Task};
use otherix_schemas::cloudevent::Actor;
use otherix_schemas::command::Command;
use otherix_schemas::decision_chain::{DecisionHead, DecisionSigner, KeyRotation, Nonce};
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::id::{CorrelationId, NodeId};
use otherix_schemas::node::{
    Heartbeat, HeartbeatAnswer, NodeCommand, NodeConditionKind, NodeConditionsChanged, REPORT_NUMBER_MAX,
    UnreachableNode,
};
use otherix_schemas::permission::Permission;
use otherix_schemas::subject::{self, HEARTBEATS};
use otherix_schemas::user::Callers;
use otherix_schemas::violations::Violations;
use otherix_transport::Connection;
use otherix_transport::service::{self, Sender, ServeError, authorize};
use otherix_transport::transport::{Message, Subscription, TransportError};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::agent_starts::{AgentStarts, LedgerPositions};
use super::conditions::Conditions;
use super::failure_detector::FailureDetector;
use super::nodes::{NodeLink, NodeLinks};
use super::{NodeTelemetry, TelemetrySink};
use crate::domain::{Rejection, Roster};
use crate::tlog::LogHandle;
use crate::writer::{Cause, CommandRequest, Durable, Refusal, WriterHandle};

/// The actor of what the control plane records by itself.
const SYSTEM: &str = "system";

/// When something was last received from each node.
#[derive(Clone)]
pub(super) struct NodePresence {
    detector: Arc<Mutex<FailureDetector>>,
    roster: watch::Receiver<Roster>,
    starts: Arc<Mutex<AgentStarts>>,
    conditions: Arc<Mutex<Conditions>>,
    telemetry: TelemetrySink,
    links: NodeLinks,
    runtime: Arc<dyn Runtime>,
}

impl NodePresence {
    pub(super) fn new(
        detector: FailureDetector,
        (starts, conditions): (AgentStarts, Conditions),
        roster: watch::Receiver<Roster>,
        (telemetry, links): (TelemetrySink, NodeLinks),
        runtime: Arc<dyn Runtime>,
    ) -> Self {
        let (detector, starts) = (Arc::new(Mutex::new(detector)), Arc::new(Mutex::new(starts)));
        let conditions = Arc::new(Mutex::new(conditions));
        Self { detector, starts, conditions, roster, telemetry, links, runtime }
    }

    /// Something was received from a node. Returns whether it is recorded as reachable.
    ///
    /// # Errors
    /// If it is not a member of the cluster.
    pub(super) fn received_from(&self, node: NodeId) -> Result<bool, Rejection> {
        let is_reachable = {
            let roster = self.roster.borrow();
            *roster.members.get(&node).ok_or_else(|| roster.unknown(node))?
        };
        // The wall clock is only for display.
        self.lock().received(node, Instant::now(), self.runtime.now().ok());
        Ok(is_reachable)
    }

    /// Applies what a heartbeat tells of a node. Returns what its agent has to be told.
    fn heard(&self, node_id: NodeId, heartbeat: Heartbeat, log: &LogHandle) -> Heard {
        let Heartbeat { incarnation, contradiction, set_back, started_with, saved, mesh, .. } = heartbeat;
        let log_contradiction = log.heard(node_id, heartbeat.checkpoint);
        let log_differs = heartbeat.log_contradiction.or_else(|| log_contradiction.clone()).map(|text| {
            let detail = format!("the transparency log is not what the node has kept of it: {text}");
            (NodeConditionKind::LogContradiction, detail)
        });
        let other = incarnation.and_then(|incarnation| {
            let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
            starts.heard(node_id, incarnation, Instant::now())
        });
        let ledger = started_with.zip(saved).map(|(started_with, saved)| LedgerPositions { started_with, saved });
        let older = incarnation.zip(ledger).and_then(|(incarnation, ledger)| {
            let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
            starts.ledger(node_id, incarnation, ledger)
        });
        let duplicate = incarnation.zip(other).map(|(one, other)| {
            let (lower, higher) = (one.min(other), one.max(other));
            let detail = format!(
                "two agents run as this node (incarnations {lower} and {higher}), and each reports another state"
            );
            (NodeConditionKind::DuplicateAgent, detail)
        });
        let set_back = set_back.or_else(|| older.clone()).map(|text| {
            (NodeConditionKind::SetBack, format!("the agent was started with an older copy of its state: {text}"))
        });
        let contradiction = contradiction.map(|text| {
            let detail = format!("the history of the control plane differs from what it has signed before: {text}");
            (NodeConditionKind::Contradiction, detail)
        });
        let found = duplicate.into_iter().chain(set_back).chain(contradiction).chain(log_differs);
        self.conditions().heard(node_id, found, Instant::now());
        (self.telemetry)(NodeTelemetry { node_id, mesh });
        Heard { other_agent: other, set_back: older, log_contradiction }
    }

    /// Returns the changes of conditions that are to be recorded, of all nodes or of one.
    fn changed_conditions(&self, only: Option<NodeId>) -> Vec<NodeConditionsChanged> {
        self.conditions().changes(only, &self.roster.borrow().conditions, Instant::now())
    }

    fn conditions(&self) -> MutexGuard<'_, Conditions> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Vec<UnreachableNode> {
        let members = &self.roster.borrow().members;
        self.links.retain(|node| members.contains_key(&node));
        self.starts.lock().unwrap_or_else(PoisonError::into_inner).retain(|node| members.contains_key(&node));
        self.conditions().retain(|node| members.contains_key(&node));
        self.lock().check(Instant::now(), members)
    }

    fn reachable_again(&self) -> Vec<NodeId> {
        self.lock().reachable_again(Instant::now(), &self.roster.borrow().members)
    }

    fn lock(&self) -> MutexGuard<'_, FailureDetector> {
        self.detector.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the heads of the chain of decisions are signed with.
#[derive(Clone, Debug)]
pub struct DecisionSigning {
    pub signer: Arc<DecisionSigner>,
    /// The rotations that led to this key, oldest first.
    pub rotations: Arc<[KeyRotation]>,
}

/// What heartbeats show an agent of itself.
struct Heard {
    /// The incarnation of another agent that uses the node's id.
    other_agent: Option<u64>,
    /// What shows that it was started with an older copy of its state.
    set_back: Option<String>,
    /// How the transparency log differs from what the node keeps of it.
    log_contradiction: Option<String>,
}

/// An accepted heartbeat.
struct Accepted {
    nonce: Option<Nonce>,
    heard: Heard,
}

/// What answering heartbeats depends on.
pub(super) struct Inputs {
    pub(super) durable: watch::Receiver<Durable>,
    /// Who may send them.
    pub(super) callers: watch::Receiver<Callers>,
    pub(super) signing: DecisionSigning,
    pub(super) log: LogHandle,
}

/// The subscription to heartbeats.
pub(super) struct Heartbeats {
    connection: Connection,
    durable: watch::Receiver<Durable>,
    incoming: Subscription,
    recorder: PresenceRecorder,
}

impl Heartbeats {
    /// Subscribes.
    pub(super) async fn start(
        connection: &Connection,
        presence: NodePresence,
        writer: WriterHandle,
        Inputs { durable, callers, signing, log }: Inputs,
    ) -> Result<Self, ServeError> {
        let refused = |error| ServeError::new(TransportError::new(error));
        let system = SYSTEM.parse::<Actor>().map_err(refused)?;
        let incoming = connection.subscribe_in_group(format!("{HEARTBEATS}.*"), "otherix-commands").await;
        let incoming = incoming.map_err(ServeError::new)?;
        let two_agents = LogLimits::default();
        let recorder =
            PresenceRecorder { presence, writer, callers, system, signing, log, recording: None, two_agents };
        Ok(Self { connection: connection.clone(), durable, incoming, recorder })
    }

    /// Answers heartbeats and checks nodes until the connection is closed.
    pub(super) async fn serve(self) {
        let Self { connection, durable, mut incoming, mut recorder } = self;
        let mut connects = connection.connects();
        let own = format!("{HEARTBEATS}.{}", recorder.presence.runtime.uuid_v4());
        let mut ticks = tokio::time::interval(recorder.presence.lock().check_interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = incoming.next() => match message {
                    // Clients' messages have headers that name their senders: this one did not come from another
                    // account.
                    Some(message) if message.subject.as_str() == own && message.headers.is_empty() => recorder.check(),
                    Some(message) => {
                        // A panic is an error of this heartbeat alone: what it may have left undone, the next one does.
                        let answered = AssertUnwindSafe(recorder.answer(&connection, message, &durable)).catch_unwind();
                        if answered.await.is_err() {
                            tracing::error!("a heartbeat could not be handled");
                        }
                    }
                    None => return,
                },
                outcome = recorded(&mut recorder.recording) => recorder.recorded(outcome),
                Ok(()) = connects.changed() => recorder.presence.lock().interrupted(),
                _ = ticks.tick() => {
                    if let Err(error) = connection.publish(Message::new(own.clone(), Bytes::new())).await {
                        tracing::debug!(%error, "cannot send the control plane's own heartbeat");
                    }
                }
            }
        }
    }
}

/// Changes of presence and conditions that are being recorded.
type Recording = Task<Result<(), Refusal>>;

/// Waits until the changes are recorded, if there are any.
async fn recorded(recording: &mut Option<Recording>) -> Result<(), Refusal> {
    let outcome = match recording {
        Some(task) => task.await,
        None => std::future::pending().await,
    };
    *recording = None;
    outcome.unwrap_or_else(|error| Err(Refusal::Unavailable(error.to_string())))
}

/// Has changes of presence and conditions recorded, one batch at a time.
struct PresenceRecorder {
    presence: NodePresence,
    writer: WriterHandle,
    callers: watch::Receiver<Callers>,
    system: Actor,
    signing: DecisionSigning,
    log: LogHandle,
    recording: Option<Recording>,
    two_agents: LogLimits<NodeId>,
}

impl PresenceRecorder {
    async fn answer(&mut self, connection: &Connection, message: Message, durable: &watch::Receiver<Durable>) {
        let head = durable.borrow().decisions;
        let answer = match self.admit(&message) {
            Ok(Accepted { nonce, heard: Heard { other_agent, set_back, log_contradiction } }) => {
                let signed = self.signed_answer(head, nonce);
                let answer = HeartbeatAnswer { other_agent, set_back, log_contradiction, ..signed };
                let body = serde_json::to_vec(&answer).map(Bytes::from);
                body.map_err(|error| ErrorBody::new(ErrorCode::Internal, error.to_string()))
            }
            Err(error) => Err(error),
        };
        let Some(reply) = message.reply else { return };
        let (headers, body) = service::encode_answer(answer);
        let reply = Message::new(reply, body).with_headers(headers);
        if let Err(error) = connection.publish(reply).await {
            tracing::debug!(%error, "cannot answer a heartbeat");
        }
    }

    fn signed_answer(&self, head: DecisionHead, nonce: Option<Nonce>) -> HeartbeatAnswer {
        let DecisionSigning { signer, rotations } = &self.signing;
        HeartbeatAnswer {
            decision_head: head.position,
            other_agent: None,
            set_back: None,
            signed_head: nonce.map(|nonce| head.sign(signer, Some(nonce))),
            decision_key: Some(signer.public()),
            key_rotations: rotations.to_vec(),
            checkpoint: self.log.checkpoint(),
            log_key: Some(self.log.key().clone()),
            log_contradiction: None,
        }
    }

    /// Accepts a heartbeat if it is that of a member of the cluster. What any other tells of the log is compared, too.
    fn admit(&mut self, message: &Message) -> Result<Accepted, ErrorBody> {
        let accepted = self.admit_member(message);
        if accepted.is_err()
            && let Ok(Heartbeat { checkpoint: Some(note), .. }) = serde_json::from_slice(&message.payload)
        {
            self.log.heard_of_unknown_node(note);
        }
        accepted
    }

    fn admit_member(&mut self, message: &Message) -> Result<Accepted, ErrorBody> {
        let (sender, now) = (Sender::attested(&message.headers), self.presence.runtime.now().ok());
        let caller = authorize(sender.as_ref(), Permission::NodeReport, &self.callers.borrow(), now)?;
        let not_its_own = || {
            let text = format!("`{}` is no heartbeat of `{}`", message.subject, caller.name);
            ErrorBody::new(ErrorCode::PermissionDenied, text)
        };
        let is_own = message.subject == subject::heartbeat(&caller.key);
        let node = caller.node_id().filter(|_| is_own).ok_or_else(not_its_own)?;
        let heartbeat: Heartbeat = serde_json::from_slice(&message.payload)
            .map_err(|error| Violations::one("position", format!("cannot be decoded: {error}")))?;
        let (incarnation, nonce, challenge) = (heartbeat.incarnation, heartbeat.nonce, heartbeat.challenge);
        if incarnation.is_some_and(|incarnation| incarnation > REPORT_NUMBER_MAX) {
            return Err(Violations::one("incarnation", format!("is at most {REPORT_NUMBER_MAX}")).into());
        }
        let is_reachable = self.presence.received_from(node).map_err(|rejection| ErrorBody::from(&rejection))?;
        self.presence.links.heard(node, NodeLink { key: caller.key, challenge });
        let heard = self.presence.heard(node, heartbeat, &self.log);
        if let Some((hits, other)) = heard.other_agent.and_then(|other| Some((self.two_agents.hit(node)?, other))) {
            tracing::warn!(%node, incarnation, other, hits, "two agents use the id of one node");
        }
        if self.recording.is_none() {
            let conditions = self.presence.changed_conditions(Some(node));
            if !is_reachable || !conditions.is_empty() {
                self.record(Vec::new(), conditions);
            }
        }
        Ok(Accepted { nonce, heard })
    }

    fn check(&mut self) {
        let unreachable = self.presence.check();
        self.log.retain(|node| self.presence.roster.borrow().members.contains_key(&node));
        self.record_all(unreachable);
    }

    fn record_all(&mut self, unreachable: Vec<UnreachableNode>) {
        if self.recording.is_none() {
            let conditions = self.presence.changed_conditions(None);
            self.record(unreachable, conditions);
        }
    }

    /// Records nodes that are unreachable, or reachable again, and changed conditions. While that is in progress,
    /// further changes wait for its end, or the next check: however many nodes change at once, they are few batches.
    fn record(&mut self, unreachable: Vec<UnreachableNode>, conditions: Vec<NodeConditionsChanged>) {
        if self.recording.is_some() {
            return;
        }
        let reachable = self.presence.reachable_again();
        // One line each, however many they are: the events name them all.
        if let Some(UnreachableNode { node_id, .. }) = unreachable.first() {
            tracing::warn!(nodes = unreachable.len(), first = %node_id, "nodes are unreachable");
        }
        if let Some(node_id) = reachable.first() {
            tracing::info!(nodes = reachable.len(), first = %node_id, "nodes are reachable again");
        }
        if let Some(NodeConditionsChanged { node_id, conditions: first }) = conditions.first() {
            let nodes = conditions.len();
            tracing::warn!(nodes, first = %node_id, conditions = ?first, "conditions of nodes have changed");
        }
        let mut commands = Vec::new();
        if !(unreachable.is_empty() && reachable.is_empty()) {
            commands.push(NodeCommand::RecordPresence { unreachable, reachable });
        }
        if !conditions.is_empty() {
            commands.push(NodeCommand::RecordConditions(conditions));
        }
        if commands.is_empty() {
            return;
        }
        let requests = commands.into_iter().map(|command| CommandRequest {
            command: Command::Node(command),
            actor: self.system.clone(),
            caller: None,
            correlation_id: CorrelationId::new(self.presence.runtime.uuid_v7()),
            cause: Cause::default(),
            key: None,
        });
        let (requests, writer) = (requests.collect::<Vec<_>>(), self.writer.clone());
        let recording = async move {
            let executed = requests.into_iter().map(|request| writer.execute(request));
            futures::future::try_join_all(executed).await.map(|_| ())
        };
        self.recording = Some(self.presence.runtime.spawn("record presence", recording));
    }

    /// What changed meanwhile is recorded at once; what was refused is tried again at the next check.
    fn recorded(&mut self, outcome: Result<(), Refusal>) {
        match outcome {
            Ok(()) => self.record_all(Vec::new()),
            Err(error) => tracing::warn!(%error, "cannot record presence and conditions of nodes"),
        }
    }
}
