//! Answers heartbeats with the head of the decisions, so that a node sees that it missed the last one.

use futures::stream::StreamExt;
use otherix_schemas::request::HeartbeatReply;
use otherix_schemas::subject::HEARTBEATS;
use otherix_transport::Connection;
use otherix_transport::service::ServeError;
use tokio::sync::watch;

use crate::writer::Durable;

/// Answers until the connection is closed.
pub(super) async fn serve(connection: &Connection, durable: watch::Receiver<Durable>) -> Result<(), ServeError> {
    let client = connection.client();
    let mut beats = client
        .queue_subscribe(format!("{HEARTBEATS}.*"), "otherix-commands".to_owned())
        .await
        .map_err(|error| ServeError::new(error.into()))?;
    while let Some(beat) = beats.next().await {
        let Some(reply) = beat.reply else { continue };
        let answer = HeartbeatReply { decision_head: durable.borrow().decision_head };
        let sent = match serde_json::to_vec(&answer) {
            Ok(body) => client.publish(reply, body.into()).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = sent {
            tracing::debug!(error, "a heartbeat could not be answered");
        }
    }
    Ok(())
}
