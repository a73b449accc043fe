//! Writes the buckets: what differs from the read models.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::message::PublishMessage;
use futures::StreamExt;
use otherix_projections::buckets::{Entries, StateAt};
use otherix_projections::read_models::ReadModels;
use otherix_runtime::LogLimit;
use otherix_schemas::bucket::Bucket;
use otherix_schemas::error::Causes;
use otherix_schemas::position::Position;
use otherix_transport::JetStream;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout};

use super::streams::{self, BucketError};

/// Shortest time between two changes of the buckets, and how many times as long as the last one took: reading and
/// comparing the state takes at most a tenth of a processor.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_FACTOR: u32 = 10;

/// Interval of checks that nobody else has changed the buckets.
const CHECK: Duration = Duration::from_secs(2);

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Time-out of an entry that is read, and of an acknowledgement.
const SILENCE: Duration = Duration::from_secs(5);

/// Entries that are written before their acknowledgements are awaited.
const CHUNK: usize = 256;

/// How long the server keeps the marker of an entry that was deleted.
const MARKER_TTL: &str = "24h";

/// What an entry is: the view, and the last event that it takes into account.
#[derive(Deserialize)]
struct Value {
    data: Box<RawValue>,
}

/// Keeps the buckets up to date.
pub(crate) struct StatePublisher {
    context: Context,
    models: ReadModels,
    replicas: Option<usize>,
}

/// A bucket as it is on the server.
#[derive(Default)]
struct Present {
    entries: Entries,
    last_sequence: u64,
}

impl StatePublisher {
    /// `control` is a connection to the account of the buckets.
    pub(crate) fn new(control: &JetStream, models: ReadModels, replicas: Option<usize>) -> Self {
        let mut context = control.context();
        context.set_timeout(SILENCE);
        Self { context, models, replicas }
    }

    /// Runs until the future is dropped.
    pub(crate) async fn run(self) -> Infallible {
        let failed = LogLimit::default();
        loop {
            let Err(error) = self.publish().await;
            if let Some(count) = failed.hit() {
                tracing::warn!(error = %Causes(&error), count, "the buckets are not up to date: trying again");
            }
            sleep(RETRY).await;
        }
    }

    async fn publish(&self) -> Result<Infallible, BucketError> {
        let mut present = BTreeMap::new();
        for bucket in Bucket::ALL {
            streams::ensure(&self.context, bucket, self.replicas).await?;
            present.insert(bucket, self.load(bucket).await?);
        }
        loop {
            let begin = Instant::now();
            let state = self.models.state().await.map_err(BucketError::State)?;
            let StateAt { position, networks, vms, nodes } = state;
            for (bucket, wanted) in [(Bucket::Networks, networks), (Bucket::Vms, vms), (Bucket::Nodes, nodes)] {
                self.update(bucket, wanted, position, present.entry(bucket).or_default()).await?;
            }
            sleep(PAUSE.max(begin.elapsed() * PAUSE_FACTOR)).await;
            while timeout(CHECK, self.models.later_than(position)).await.is_err() {
                for (bucket, present) in &present {
                    let info = streams::info(&self.context, *bucket).await?;
                    if info.is_none_or(|info| info.state.last_sequence != present.last_sequence) {
                        return Err(BucketError::Changed(bucket.name()));
                    }
                }
            }
        }
    }

    /// Reads the entries on the server.
    async fn load(&self, bucket: Bucket) -> Result<Present, BucketError> {
        let stream = self.context.get_stream(bucket.stream()).await?;
        let last_sequence = stream.cached_info().state.last_sequence;
        let mut present = Present { last_sequence, ..Present::default() };
        // The stream has the last message of each key only.
        let consumer =
            stream.create_consumer(OrderedConfig::default()).await.map_err(|error| BucketError::Read(error.into()))?;
        let mut left = consumer.cached_info().num_pending;
        if left == 0 {
            return Ok(present);
        }
        let mut messages = consumer.messages().await?;
        while left > 0 {
            let message = timeout(SILENCE, messages.next()).await.map_err(|_elapsed| BucketError::Silent)?;
            let message = message.ok_or(BucketError::Silent)?.map_err(|error| BucketError::Read(error.into()))?;
            left = message.info().map_err(BucketError::Read)?.pending;
            let is_marker = message.headers.as_ref().is_some_and(|headers| headers.get(OPERATION).is_some());
            let key = message.subject.strip_prefix(&bucket.subject("")).map(str::to_owned);
            let Some(key) = key.filter(|_| !is_marker) else { continue };
            // What is no value is replaced, or deleted.
            let value = serde_json::from_slice::<Value>(&message.payload);
            present.entries.insert(key, value.map(|value| value.data.get().to_owned()).unwrap_or_default());
        }
        Ok(present)
    }

    /// Writes what differs.
    async fn update(
        &self,
        bucket: Bucket,
        wanted: Entries,
        position: Position,
        present: &mut Present,
    ) -> Result<(), BucketError> {
        let mut changes = Vec::new();
        for (key, data) in &wanted {
            if present.entries.get(key) != Some(data) {
                let value = format!(r#"{{"data":{data},"meta":{{"position":{position}}}}}"#);
                changes.push((bucket.subject(key), value, HeaderMap::new()));
            }
        }
        for key in present.entries.keys().filter(|key| !wanted.contains_key(*key)) {
            let mut headers = HeaderMap::new();
            headers.insert(OPERATION, "DEL");
            headers.insert("Nats-TTL", MARKER_TTL);
            // Not empty: see docs/adr/0038.
            changes.push((bucket.subject(key), format!(r#"{{"meta":{{"position":{position}}}}}"#), headers));
        }
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let mut acks = Vec::new();
            for (subject, value, headers) in changes.by_ref().take(CHUNK) {
                let message = PublishMessage::build().payload(value.into()).headers(headers);
                acks.push(self.context.send_publish(subject, message).await?);
            }
            for ack in acks {
                let sequence = ack.await?.sequence;
                // Each follows the one before: otherwise somebody else writes.
                if sequence != present.last_sequence + 1 {
                    return Err(BucketError::Changed(bucket.name()));
                }
                present.last_sequence = sequence;
            }
        }
        present.entries = wanted;
        Ok(())
    }
}

/// The header that marks the key of a message as deleted.
const OPERATION: &str = "KV-Operation";
