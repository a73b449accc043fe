//! The stream of the transparency log's checkpoints, in account `EVENTS`: people read it, and only the control plane
//! writes it. It has the last 100,000; whoever wants more keeps them.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::{Config, LastRawMessageErrorKind, Stream};
use futures::future::{BoxFuture, FutureExt};
use otherix_commands::tlog::{CheckpointSink, SinkError};
use otherix_schemas::log::{CHECKPOINT_STREAM, CHECKPOINT_SUBJECTS, checkpoint_subject};
use otherix_schemas::position::Epoch;
use otherix_transport::JetStream;

use super::mirror::is_not_found;

/// Time-out of a request to the server.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Checkpoints that the stream keeps: more than a day of one each second, some 40 MB.
const KEPT: i64 = 100_000;

/// The stream of checkpoints.
pub(crate) struct CheckpointStream {
    context: Context,
    replicas: usize,
}

impl CheckpointStream {
    /// `events` is a connection to the account of the stream.
    pub(crate) fn new(events: &JetStream, replicas: Option<usize>) -> Self {
        let mut context = events.context();
        context.set_timeout(TIMEOUT);
        Self { context, replicas: replicas.unwrap_or(1) }
    }

    async fn ensure(&self) -> Result<Stream, SinkError> {
        match self.context.get_stream(CHECKPOINT_STREAM).await {
            Ok(stream) => Ok(stream),
            Err(error) if is_not_found(&error) => {
                let config = Config {
                    name: CHECKPOINT_STREAM.to_owned(),
                    description: Some("signed checkpoints of the transparency log of otherix".to_owned()),
                    subjects: vec![CHECKPOINT_SUBJECTS.to_owned()],
                    max_messages: KEPT,
                    num_replicas: self.replicas,
                    allow_direct: true,
                    deny_delete: true,
                    deny_purge: true,
                    ..Config::default()
                };
                self.context.create_stream(config).await.map_err(SinkError::new)
            }
            Err(error) => Err(SinkError::new(error)),
        }
    }
}

impl CheckpointSink for CheckpointStream {
    fn newest(&self, epoch: Epoch) -> BoxFuture<'_, Result<Option<String>, SinkError>> {
        async move {
            let stream = self.ensure().await?;
            match stream.get_last_raw_message_by_subject(&checkpoint_subject(epoch)).await {
                // What is no text is no checkpoint of ours.
                Ok(message) => Ok(String::from_utf8(message.payload.to_vec()).ok()),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(SinkError::new(error)),
            }
        }
        .boxed()
    }

    fn publish(&self, epoch: Epoch, note: String) -> BoxFuture<'_, Result<(), SinkError>> {
        async move {
            let subject = checkpoint_subject(epoch);
            let published = async {
                let ack = self.context.publish(subject, note.into()).await.map_err(SinkError::new)?;
                ack.await.map(drop).map_err(SinkError::new)
            };
            let outcome = published.await;
            if outcome.is_err() {
                // Somebody may have removed it: the next attempt finds it.
                self.ensure().await?;
            }
            outcome
        }
        .boxed()
    }
}
