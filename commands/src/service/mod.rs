//! The command service: requests become commands, and the writer's answers go back.
//!
//! Cancel-safety: dropping [`Service::run`] stops taking requests; those under way are answered.

mod hearing;
mod heartbeat;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use otherix_schemas::command::{Command, CommandInputs, GeneratedIds};
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::id::{CorrelationId, NicId, NodeId};
use otherix_schemas::network::NetworkCommand;
use otherix_schemas::nic::GeneratedNic;
use otherix_schemas::node::{MeshPeerStatus, NodeCommand, NodeReport};
use otherix_schemas::request::{RequestKind, ServiceKind};
use otherix_schemas::value::Ipv4Subnet;
use otherix_schemas::vm::VmCommand;
use otherix_transport::Connection;
use otherix_transport::service::{Call, Requests, ServeError};
use tokio::sync::watch;
use uuid::Uuid;

use self::hearing::Hearing;
use self::heartbeat::{Beats, Nodes};
use crate::domain::Roster;
use crate::journal::Digest;
use crate::writer::{Ask, Durable, IdempotencyKey, WriterHandle};

/// How the service judges.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// No NAT subnet may lie in it.
    pub mesh: Ipv4Subnet,
    /// How long a node may be silent before it is unreachable. See [`otherix_schemas::node::UNREACHABLE_AFTER`].
    pub unreachable_after: Duration,
}

/// Takes in what a node's mesh device says of its peers.
pub type HearPeers = Arc<dyn Fn(NodeId, Vec<MeshPeerStatus>) + Send + Sync>;

/// What the writer tells of what is durable, and who is told what nodes say that is no event.
#[derive(Clone)]
pub struct Told {
    /// How far the journal goes.
    pub durable: watch::Receiver<Durable>,
    /// The nodes, whether each is reachable, and which were removed.
    pub roster: watch::Receiver<Arc<Roster>>,
    /// Is told of the nodes' peers.
    pub peers: HearPeers,
}

/// The service, set up: what comes to it waits until it is run.
pub struct Service {
    requests: Requests,
    beats: Beats,
    nodes: Nodes,
    writer: WriterHandle,
    mesh: Ipv4Subnet,
}

impl Service {
    /// Sets the service up. Once NATS has taken that in ([`Connection::settled`]), no request goes unheard.
    ///
    /// # Errors
    /// When NATS refuses the service.
    pub async fn start(
        connection: &Connection,
        writer: WriterHandle,
        settings: Settings,
        told: Told,
    ) -> Result<Self, ServeError> {
        let Settings { mesh, unreachable_after } = settings;
        let requests = Requests::start(connection, ServiceKind::Commands).await?;
        let nodes = Nodes::new(Hearing::new(unreachable_after), told.roster, told.peers);
        let beats = Beats::start(connection, nodes.clone(), writer.clone(), told.durable).await?;
        Ok(Self { requests, beats, nodes, writer, mesh })
    }

    /// Serves commands and heartbeats until the connection is closed.
    pub async fn run(self) {
        let Self { requests, beats, nodes, writer, mesh } = self;
        let handler = move |call: Call| {
            let (writer, nodes) = (writer.clone(), nodes.clone());
            async move { handle(&writer, &nodes, mesh, call).await }
        };
        tokio::select! {
            () = requests.serve(handler) => {}
            () = beats.serve() => {}
        }
    }
}

async fn handle(writer: &WriterHandle, nodes: &Nodes, mesh: Ipv4Subnet, call: Call) -> Result<Bytes, ErrorBody> {
    let RequestKind::Command(parse) = call.request.kind else {
        return Err(ErrorBody::new(ErrorCode::NotFound, format!("`{}` is not a command", call.request.name)));
    };
    let command = parse(&call.body, CommandInputs { mesh, generated: generate_ids() })?;
    match &command {
        // A sign of life too, whatever becomes of it.
        Command::Node(NodeCommand::Join { node_id, .. })
        | Command::Node(NodeCommand::RecordReport(NodeReport { node_id, .. })) => {
            // One that is not of the cluster yet, or not any more, is for the decision to judge.
            let _stranger = nodes.hear(*node_id);
        }
        Command::Network(NetworkCommand::Create { .. })
        | Command::Network(NetworkCommand::Delete { .. })
        | Command::Vm(VmCommand::Create { .. })
        | Command::Vm(VmCommand::Delete { .. })
        | Command::Node(NodeCommand::Remove { .. })
        | Command::Node(NodeCommand::RecordPresence { .. }) => {}
    }
    let Call { request, user, body, idempotency_key, traceparent, stale: _ } = call;
    let key =
        idempotency_key.map(|key| IdempotencyKey { key, fingerprint: Digest::of(&[request.name.as_bytes(), &body]) });
    let correlation_id = CorrelationId::new(Uuid::now_v7());
    Ok(writer.ask(Ask { command, actor: user, correlation_id, traceparent, key }).await?)
}

/// Random values for one request. The NIC's id is of version 4, because its first digits become the tap's name.
fn generate_ids() -> GeneratedIds {
    let [a, b, c, ..] = Uuid::new_v4().into_bytes();
    let mac = u32::from_be_bytes([0, a, b, c]);
    GeneratedIds { resource: Uuid::now_v7(), nic: GeneratedNic { nic_id: NicId::new(Uuid::new_v4()), mac } }
}
