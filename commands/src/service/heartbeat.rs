//! Signs of life: answers them with the head of the decisions, so that a node sees that it missed the last one, and has it
//! recorded when nodes fall silent or are heard again.
//!
//! It judges by what it hears of itself: now and then it sends a sign of life of its own the way of all others, and looks at
//! the nodes when that arrives, for then all that nodes said before has arrived as well. A control plane that was stopped, or
//! is cut off from NATS, does not hear itself, and so condemns nobody. One process may serve heartbeats.
//!
//! Cancel-safety: [`Beats::serve`] may be dropped at any await; what was asked of the writer is carried out all the same.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use otherix_schemas::command::Command;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::id::{CorrelationId, NodeId};
use otherix_schemas::node::{Heartbeat, HeartbeatAnswer, NodeCommand, UnreachableNode};
use otherix_schemas::permission::{Permission, Role};
use otherix_schemas::subject::HEARTBEATS;
use otherix_schemas::value::UserId;
use otherix_schemas::violations::Violations;
use otherix_transport::Connection;
use otherix_transport::service::{self, ServeError};
use otherix_transport::transport::{Message, Subscription, TransportError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use super::HearPeers;
use super::hearing::Hearing;
use crate::clock;
use crate::domain::{Rejection, Roster};
use crate::writer::{Ask, Durable, Refusal, WriterHandle};

/// As whom the control plane records what it finds by itself.
const SYSTEM: &str = "system";

/// What is known of the nodes.
#[derive(Clone)]
pub(super) struct Nodes {
    hearing: Arc<Mutex<Hearing>>,
    roster: watch::Receiver<Arc<Roster>>,
    peers: HearPeers,
}

impl Nodes {
    pub(super) fn new(hearing: Hearing, roster: watch::Receiver<Arc<Roster>>, peers: HearPeers) -> Self {
        Self { hearing: Arc::new(Mutex::new(hearing)), roster, peers }
    }

    /// Something came from a node. Gives whether it counts as reachable.
    ///
    /// # Errors
    /// When it is not of the cluster.
    pub(super) fn hear(&self, node: NodeId) -> Result<bool, Rejection> {
        let reachable = {
            let roster = self.roster.borrow();
            *roster.members.get(&node).ok_or_else(|| roster.stranger(node))?
        };
        // Without a clock for people it was heard all the same.
        self.lock().hear(node, Instant::now(), clock::now().ok());
        Ok(reachable)
    }

    fn lock(&self) -> MutexGuard<'_, Hearing> {
        self.hearing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Signs of life as they come.
pub(super) struct Beats {
    connection: Connection,
    durable: watch::Receiver<Durable>,
    arriving: Subscription,
    presence: Presence,
}

impl Beats {
    /// Subscribes to them.
    pub(super) async fn start(
        connection: &Connection,
        nodes: Nodes,
        writer: WriterHandle,
        durable: watch::Receiver<Durable>,
    ) -> Result<Self, ServeError> {
        let refused = |error| ServeError::new(TransportError::new(error));
        let system = UserId::parse(SYSTEM).map_err(refused)?;
        let arriving = connection.subscribe_in_group(format!("{HEARTBEATS}.*"), "otherix-commands").await;
        let arriving = arriving.map_err(ServeError::new)?;
        let presence = Presence { nodes, writer, system, asking: JoinSet::new() };
        Ok(Self { connection: connection.clone(), durable, arriving, presence })
    }

    /// Answers and judges until the connection is closed.
    pub(super) async fn serve(self) {
        let Self { connection, durable, mut arriving, mut presence } = self;
        let mut connects = connection.connects();
        let own = format!("{HEARTBEATS}.{}", connection.runtime().uuid_v4());
        let mut ticks = tokio::time::interval(presence.nodes.lock().look_every());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                beat = arriving.next() => match beat {
                    // Clients' messages name their senders: this one crossed no accounts.
                    Some(beat) if beat.subject.as_str() == own && beat.headers.is_empty() => presence.look(),
                    Some(beat) => presence.answer(&connection, beat, &durable).await,
                    None => return,
                },
                Some(asked) = presence.asking.join_next() => presence.asked(asked.unwrap_or(Ok(Bytes::new()))),
                Ok(()) = connects.changed() => presence.nodes.lock().begin_anew(),
                _ = ticks.tick() => {
                    if let Err(error) = connection.publish(Message::new(own.clone(), Bytes::new())).await {
                        tracing::debug!(error = %error, "the control plane cannot listen to itself");
                    }
                }
            }
        }
    }
}

struct Presence {
    nodes: Nodes,
    writer: WriterHandle,
    system: UserId,
    /// What is being recorded: one thing at a time.
    asking: JoinSet<Result<Bytes, Refusal>>,
}

impl Presence {
    async fn answer(&mut self, connection: &Connection, beat: Message, durable: &watch::Receiver<Durable>) {
        let answer = self.admit(&beat).and_then(|()| {
            let reply = HeartbeatAnswer { decision_head: durable.borrow().decision_head };
            let body = serde_json::to_vec(&reply).map(Bytes::from);
            body.map_err(|error| ErrorBody::new(ErrorCode::Internal, error.to_string()))
        });
        let Some(reply) = beat.reply else { return };
        let (headers, body) = service::encode_answer(answer);
        let reply = Message::new(reply, body).with_headers(headers);
        if let Err(error) = connection.publish(reply).await {
            tracing::debug!(error = %error, "a heartbeat could not be answered");
        }
    }

    /// Takes a sign of life in, if it is one of a node of the cluster.
    fn admit(&mut self, beat: &Message) -> Result<(), ErrorBody> {
        let sender = service::attested_sender(&beat.headers)
            .ok_or_else(|| ErrorBody::new(ErrorCode::Unauthenticated, "it is not known who sends this heartbeat"))?;
        let permission = Permission::NodeReport;
        if !Role::of(&sender).is_some_and(|role| role.has(permission)) {
            let text = format!("user `{sender}` lacks the permission `{}`", permission.as_str());
            return Err(
                ErrorBody::new(ErrorCode::PermissionDenied, text).with_detail("permission", permission.as_str())
            );
        }
        let name = beat.subject.rsplit('.').next().unwrap_or_default();
        let unknown = || ErrorBody::new(ErrorCode::NotFound, format!("there is no node `{name}`"));
        let node: NodeId = name.parse().map_err(|_| unknown())?;
        let Heartbeat { position: _, mesh } = serde_json::from_slice(&beat.payload)
            .map_err(|error| Violations::one("position", format!("cannot be read: {error}")))?;
        let reachable = self.nodes.hear(node).map_err(|stranger| ErrorBody::from(&stranger))?;
        (self.nodes.peers)(node, mesh);
        if !reachable {
            self.record(Vec::new());
        }
        Ok(())
    }

    fn look(&mut self) {
        let roster = Arc::clone(&self.nodes.roster.borrow());
        let silent = self.nodes.lock().silent(Instant::now(), &roster.members);
        self.record(silent);
    }

    /// Has it recorded who fell silent, and who is heard again. While that is under way, what comes waits for its end, or for
    /// the next look: however many nodes go or come at once, they are few batches.
    fn record(&mut self, silent: Vec<UnreachableNode>) {
        if !self.asking.is_empty() {
            return;
        }
        let roster = Arc::clone(&self.nodes.roster.borrow());
        let heard = self.nodes.lock().back(Instant::now(), &roster.members);
        if silent.is_empty() && heard.is_empty() {
            return;
        }
        // One line each, however many they are: the events name them all.
        if let Some(UnreachableNode { node_id, .. }) = silent.first() {
            tracing::warn!(nodes = silent.len(), first = %node_id, "nodes fell silent");
        }
        if let Some(node_id) = heard.first() {
            tracing::info!(nodes = heard.len(), first = %node_id, "nodes are heard again");
        }
        let ask = Ask {
            command: Command::Node(NodeCommand::RecordPresence { unreachable: silent, reachable: heard }),
            actor: self.system.clone(),
            correlation_id: CorrelationId::new(Uuid::now_v7()),
            traceparent: None,
            key: None,
        };
        let writer = self.writer.clone();
        self.asking.spawn(async move { writer.ask(ask).await });
    }

    /// Who came back meanwhile is recorded at once; what was refused is tried again at the next look.
    fn asked(&mut self, answer: Result<Bytes, Refusal>) {
        match answer {
            Ok(_) => self.record(Vec::new()),
            Err(error) => tracing::warn!(error = %error, "which nodes are reachable could not be recorded"),
        }
    }
}
