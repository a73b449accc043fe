//! The command service: decodes requests into commands, submits them to the writer, and returns its answers.
//!
//! Cancel-safety: when [`Service::run`] is dropped, no more requests are received; those in progress are answered.

mod agent_starts;
mod causes;
mod conditions;
mod consumers;
mod credentials;
mod failure_detector;
mod heartbeat;
mod log;
mod nodes;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use otherix_runtime::Runtime;
use otherix_schemas::cloudevent::Actor;
use otherix_schemas::command::{Command, CommandInputs, GeneratedIds};
use otherix_schemas::decision_chain::DecisionKey;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::id::{ClusterId, CorrelationId, NicId, NodeId};
use otherix_schemas::nic::GeneratedNic;
use otherix_schemas::node::{MeshPeerStatus, NodeCommand, NodeReport};
use otherix_schemas::request::{RequestKind, ServiceKind};
use otherix_schemas::user::Callers;
use otherix_schemas::value::Ipv4Subnet;
use otherix_transport::service::{Call, Connections, Denied, RequestServer, ServeError};
use tokio::sync::watch;

use self::agent_starts::AgentStarts;
pub use self::causes::{FindDecision, decisions_of};
use self::conditions::Conditions;
pub use self::consumers::Consumers;
use self::credentials::Issuing;
pub use self::credentials::{Credential, IssueError, Issuer};
use self::failure_detector::FailureDetector;
pub use self::heartbeat::DecisionSigning;
use self::heartbeat::{Heartbeats, NodePresence};
use self::nodes::{NodeLinks, NodeService};
use crate::domain::Roster;
use crate::refusals::RefusalLog;
use crate::store::Digest;
use crate::tlog::LogHandle;
use crate::writer::{Cause, CommandRequest, Durable, IdempotencyKey, WriterHandle};

/// The configuration of the command service.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The mesh supernet: no NAT subnet may overlap it.
    pub mesh: Ipv4Subnet,
    /// Time without a heartbeat after which a node is unreachable; [`otherix_schemas::node::UNREACHABLE_AFTER`],
    /// except in tests.
    pub unreachable_after: Duration,
}

/// What heartbeats tell of a node that is not an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTelemetry {
    pub node_id: NodeId,
    /// The status that its mesh device has for each peer.
    pub mesh: Vec<MeshPeerStatus>,
}

/// Receives what heartbeats tell of nodes.
pub type TelemetrySink = Arc<dyn Fn(NodeTelemetry) + Send + Sync>;

/// What the service needs from other parts of the control plane.
#[derive(Clone)]
pub struct Inputs {
    pub cluster: ClusterId,
    /// Signs credentials.
    pub issuer: Arc<dyn Issuer>,
    /// Users' durable consumers.
    pub consumers: Arc<dyn Consumers>,
    pub writer: WriterHandle,
    pub durable: watch::Receiver<Durable>,
    pub roster: watch::Receiver<Roster>,
    pub callers: watch::Receiver<Callers>,
    pub telemetry: TelemetrySink,
    pub signing: DecisionSigning,
    /// The transparency log.
    pub log: LogHandle,
    /// What is refused.
    pub refusals: RefusalLog,
    /// The decisions that nodes report on.
    pub decisions: FindDecision,
    pub runtime: Arc<dyn Runtime>,
}

/// The service with its subscriptions. Requests wait until it is run.
pub struct Service {
    requests: RequestServer,
    heartbeats: Heartbeats,
    nodes: NodeService,
    handler: Handler,
}

/// Handles one request.
#[derive(Clone)]
struct Handler {
    presence: NodePresence,
    writer: WriterHandle,
    mesh: Ipv4Subnet,
    callers: watch::Receiver<Callers>,
    durable: watch::Receiver<Durable>,
    issuer: Arc<dyn Issuer>,
    consumers: Arc<dyn Consumers>,
    cluster: ClusterId,
    decision_key: DecisionKey,
    log: LogHandle,
    refusals: RefusalLog,
    decisions: FindDecision,
    runtime: Arc<dyn Runtime>,
}

impl Service {
    /// Subscribes. Once NATS has processed that ([`otherix_transport::Connection::settled`]), no request is lost.
    ///
    /// # Errors
    /// If NATS refuses the service.
    pub async fn start(connections: &Connections, settings: Settings, inputs: Inputs) -> Result<Self, ServeError> {
        let Settings { mesh, unreachable_after } = settings;
        let Inputs {
            cluster,
            issuer,
            consumers,
            writer,
            durable,
            roster,
            callers,
            telemetry,
            signing,
            log,
            refusals,
            decisions,
            runtime,
        } = inputs;
        let decision_key = signing.signer.public();
        let requests = RequestServer::start(connections, ServiceKind::Commands, callers.clone()).await?;
        let detector = FailureDetector::new(unreachable_after);
        let starts = AgentStarts::new(unreachable_after);
        let conditions = Conditions::new(unreachable_after);
        let links = NodeLinks::default();
        let asking = nodes::Inputs {
            links: links.clone(),
            roster: roster.clone(),
            callers: callers.clone(),
            signer: Arc::clone(&signing.signer),
            writer: writer.clone(),
            durable: durable.clone(),
            refusals: refusals.clone(),
            runtime: Arc::clone(&runtime),
        };
        let nodes = NodeService::start(connections, asking).await?;
        let (tests, told) = ((starts, conditions), (telemetry, links));
        let presence = NodePresence::new(detector, tests, roster, told, Arc::clone(&runtime));
        let inputs =
            heartbeat::Inputs { durable: durable.clone(), callers: callers.clone(), signing, log: log.clone() };
        let heartbeats = Heartbeats::start(&connections.nodes, presence.clone(), writer.clone(), inputs);
        let heartbeats = heartbeats.await?;
        Ok(Self {
            requests,
            heartbeats,
            nodes,
            handler: Handler {
                presence,
                writer,
                mesh,
                callers,
                durable,
                issuer,
                consumers,
                cluster,
                decision_key,
                log,
                refusals,
                decisions,
                runtime,
            },
        })
    }

    /// Serves commands and heartbeats until the connection is closed.
    pub async fn run(self) {
        let Self { requests, heartbeats, nodes, handler } = self;
        let (refusals, runtime) = (handler.refusals.clone(), Arc::clone(&handler.runtime));
        let record = move |denied: Denied<'_>| {
            if let Ok(now) = runtime.now() {
                refusals.record(denied, now);
            }
        };
        let handle = move |call: Call| {
            let handler = handler.clone();
            async move { handler.handle(&call).await }
        };
        tokio::select! {
            () = requests.serve(handle, record) => {}
            () = heartbeats.serve() => {}
            () = nodes.run() => {}
        }
    }
}

impl Handler {
    async fn handle(&self, call: &Call) -> Result<Bytes, ErrorBody> {
        let answer = self.answer(call).await;
        if let Err(refusal) = &answer
            && !call.dry_run
            && let Ok(now) = self.runtime.now()
        {
            let Call { request, caller, body, .. } = call;
            self.refusals.record(Denied { request: *request, caller, body, refusal }, now);
        }
        answer
    }

    async fn answer(&self, call: &Call) -> Result<Bytes, ErrorBody> {
        let parse = match call.request.kind {
            RequestKind::Command(parse) => parse,
            RequestKind::Lookup => {
                // The position first: the registry contains its event then.
                let position = self.durable.borrow().position;
                let found = credentials::look_up(call, &self.callers.borrow(), self.runtime.now().ok())?;
                let (issuer, cluster, decision_key) = (self.issuer.as_ref(), self.cluster, self.decision_key);
                return credentials::answer(found, position, &Issuing { issuer, cluster, decision_key });
            }
            RequestKind::Unrecorded => {
                let position = self.durable.borrow().position;
                return match call.request.resource() {
                    "log" => log::handle(call, position, &self.log).await,
                    "refusal" => {
                        let found = self.refusals.list(call.json()?, &call.caller).await?;
                        credentials::encode(position, found)
                    }
                    _ => consumers::handle(call, position, self.consumers.as_ref()).await,
                };
            }
            RequestKind::Query | RequestKind::Maintenance | RequestKind::Relayed => {
                return Err(ErrorBody::new(ErrorCode::NotFound, format!("`{}` is not a command", call.request.name)));
            }
        };
        let (caller, mesh, generated) = (&call.caller, self.mesh, self.generate_ids());
        let command = parse(&call.body, CommandInputs { caller, mesh, generated }).map_err(|error| {
            // A node that speaks for another.
            if error.error.code == ErrorCode::PermissionDenied { call.denied(error) } else { error }
        })?;
        if let Command::User(command) = &command {
            credentials::check(command, caller)?;
        }
        if let Command::Node(
            NodeCommand::Join { node_id, .. } | NodeCommand::RecordReport(NodeReport { node_id, .. }),
        ) = &command
        {
            // Shows that the node is alive, whatever the decision; the decision rejects nodes that are not members.
            let _unless_unknown = self.presence.received_from(*node_id);
        }
        let Call { request, caller, body, idempotency_key, traceparent, dry_run, .. } = call.clone();
        // A command has the trace context of its request, an outcome that of the decision.
        let cause = if let Command::Node(NodeCommand::RecordReport(report)) = &command {
            causes::of_report(report, &self.decisions).await
        } else {
            Cause { traceparent, ..Cause::default() }
        };
        let fingerprint = |key| {
            let fingerprint = Digest::of(&[request.name.as_bytes(), &body]);
            IdempotencyKey { key, fingerprint }
        };
        let request = CommandRequest {
            command,
            actor: Actor::from(&caller),
            caller: Some(caller),
            correlation_id: CorrelationId::new(self.runtime.uuid_v7()),
            cause,
            key: idempotency_key.map(fingerprint),
        };
        let answer = if dry_run { self.writer.try_out(request).await } else { self.writer.execute(request).await };
        answer.map_err(|refusal| {
            let body = ErrorBody::from(refusal);
            // The row scope of a permission is checked by the decision.
            if body.error.code == ErrorCode::PermissionDenied { call.denied(body) } else { body }
        })
    }

    /// Generates ids for what a request may create. That of a NIC is of version 4, as the tap's name is its first
    /// digits.
    fn generate_ids(&self) -> GeneratedIds {
        let [a, b, c, ..] = self.runtime.random_u64().to_be_bytes();
        let mac = u32::from_be_bytes([0, a, b, c]);
        let nic = GeneratedNic { nic_id: NicId::new(self.runtime.uuid_v4()), mac };
        GeneratedIds { resource: self.runtime.uuid_v7(), nic }
    }
}
