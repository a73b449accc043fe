//! The command service: requests become commands, and the writer's answers go back.
//!
//! Cancel-safety: dropping [`serve`] stops taking requests; those under way are answered.

mod heartbeat;
mod parse;

use bytes::Bytes;
use otherix_schemas::error::ErrorBody;
use otherix_schemas::id::{CorrelationId, NetworkId};
use otherix_schemas::subject::Request;
use otherix_schemas::value::Ipv4Subnet;
use otherix_transport::Connection;
use otherix_transport::service::{self, Call, ServeError};
use tokio::sync::watch;
use uuid::Uuid;

use crate::journal::Digest;
use crate::writer::{Ask, Durable, IdempotencyKey, WriterHandle};

/// The requests that change something.
const REQUESTS: [Request; 4] = [Request::NetworkCreate, Request::NetworkDelete, Request::NodeJoin, Request::NodeReport];

/// Serves commands and heartbeats until the connection is closed.
///
/// # Errors
/// When NATS refuses the service.
pub async fn serve(
    connection: &Connection,
    writer: WriterHandle,
    mesh: Ipv4Subnet,
    durable: watch::Receiver<Durable>,
) -> Result<(), ServeError> {
    let service = service::start(connection, "otherix-commands", "decides what changes").await?;
    let handler = move |call: Call| {
        let writer = writer.clone();
        async move { handle(&writer, mesh, call).await }
    };
    tokio::try_join!(service::serve(&service, &REQUESTS, handler), heartbeat::serve(connection, durable))?;
    Ok(())
}

async fn handle(writer: &WriterHandle, mesh: Ipv4Subnet, call: Call) -> Result<Bytes, ErrorBody> {
    let command = parse::command(&call, mesh, || NetworkId::new(Uuid::now_v7()))?;
    let Call { request, user, body, idempotency_key, traceparent } = call;
    let key = idempotency_key
        .map(|key| IdempotencyKey { key, fingerprint: Digest::of(&[request.as_str().as_bytes(), &body]) });
    let correlation_id = CorrelationId::new(Uuid::now_v7());
    Ok(writer.ask(Ask { command, actor: user, correlation_id, traceparent, key }).await?)
}
