//! Writes the buckets: what differs from the read models.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::State;
use futures::StreamExt;
use otherix_projections::buckets::{Entries, StateAt, StateError};
use otherix_projections::follow::EventReader;
use otherix_projections::read_models::ReadModels;
use otherix_runtime::LogLimit;
use otherix_schemas::bucket::Bucket;
use otherix_schemas::error::Causes;
use otherix_schemas::position::Position;
use otherix_transport::JetStream;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::named::named;
use super::streams::{self, BucketError};

/// Shortest time between two changes of the buckets.
const PAUSE: Duration = Duration::from_millis(100);

/// Time between two reads of the whole state: so many times as long as the last one took, so that they take at most a
/// tenth of a processor, but not longer than the maximum.
const PAUSE_FACTOR: u32 = 10;
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Most events that are looked at between these; the next one finds what others have changed.
const EVENTS_MAX: u32 = 128;

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
    events: Arc<dyn EventReader>,
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
    pub(crate) fn new(
        control: &JetStream,
        models: ReadModels,
        events: Arc<dyn EventReader>,
        replicas: Option<usize>,
    ) -> Self {
        let mut context = control.context();
        context.set_timeout(SILENCE);
        Self { context, models, events, replicas }
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
            let (state, took) = self.state().await;
            let StateAt { position, networks, vms, nodes } = state;
            let next = Instant::now() + (took * PAUSE_FACTOR).clamp(PAUSE, PAUSE_MAX);
            for (bucket, wanted) in [(Bucket::Networks, networks), (Bucket::Vms, vms), (Bucket::Nodes, nodes)] {
                let present = present.entry(bucket).or_default();
                self.put(bucket, &wanted, position, present).await?;
                self.remove(bucket, &wanted, position, present).await?;
                present.entries = wanted;
            }
            self.follow(position, next, &mut present).await?;
            while timeout(CHECK, self.models.later_than(position)).await.is_err() {
                for (bucket, present) in &present {
                    let info = streams::info(&self.context, *bucket).await?;
                    if info.is_none_or(|info| !present.can_be(&info.state)) {
                        return Err(BucketError::Changed(bucket.name()));
                    }
                }
            }
        }
    }

    /// Reads the whole state, and returns how long that took. While it cannot be read, the buckets stay as they are.
    async fn state(&self) -> (StateAt, Duration) {
        loop {
            let begin = Instant::now();
            match self.models.state().await {
                Ok(state) => return (state, begin.elapsed()),
                Err(error) => unreadable(&error),
            }
            sleep(RETRY).await;
        }
    }

    /// Until it is time to read the whole state again, writes the networks and VMs that later events name. That is
    /// not all that an event can change.
    async fn follow(
        &self,
        mut position: Position,
        end: Instant,
        present: &mut BTreeMap<Bucket, Present>,
    ) -> Result<(), BucketError> {
        while timeout_at(end, self.models.later_than(position)).await.is_ok() {
            let state = match self.events.read(position, EVENTS_MAX).await {
                Ok(events) => self.models.state_of(named(&events)).await,
                Err(error) => Err(error),
            };
            match state {
                Ok(state) => {
                    for (bucket, wanted) in [(Bucket::Networks, state.networks), (Bucket::Vms, state.vms)] {
                        let present = present.entry(bucket).or_default();
                        self.put(bucket, &wanted, state.position, present).await?;
                        present.entries.extend(wanted);
                    }
                    position = state.position;
                }
                Err(error) => unreadable(&error),
            }
            sleep_until(end.min(Instant::now() + PAUSE)).await;
        }
        sleep_until(end).await;
        Ok(())
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

    /// Writes those that differ.
    async fn put(
        &self,
        bucket: Bucket,
        wanted: &Entries,
        position: Position,
        present: &mut Present,
    ) -> Result<(), BucketError> {
        let differs = |(key, data): &(&String, &String)| present.entries.get(*key) != Some(*data);
        let change = |(key, data): (&String, &String)| {
            let value = format!(r#"{{"data":{data},"meta":{{"position":{position}}}}}"#);
            (bucket.subject(key), value, HeaderMap::new())
        };
        let changes = wanted.iter().filter(differs).map(change).collect();
        self.write(bucket, changes, present).await
    }

    /// Deletes those that are not wanted.
    async fn remove(
        &self,
        bucket: Bucket,
        wanted: &Entries,
        position: Position,
        present: &mut Present,
    ) -> Result<(), BucketError> {
        let mut headers = HeaderMap::new();
        headers.insert(OPERATION, "DEL");
        headers.insert("Nats-TTL", MARKER_TTL);
        let gone = present.entries.keys().filter(|key| !wanted.contains_key(*key));
        // Not empty: see docs/adr/0038.
        let marker = format!(r#"{{"meta":{{"position":{position}}}}}"#);
        let changes = gone.map(|key| (bucket.subject(key), marker.clone(), headers.clone())).collect();
        self.write(bucket, changes, present).await
    }

    async fn write(
        &self,
        bucket: Bucket,
        changes: Vec<(String, String, HeaderMap)>,
        present: &mut Present,
    ) -> Result<(), BucketError> {
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
        Ok(())
    }
}

impl Present {
    /// Whether a stream in this state can have these entries: beside them, it has markers.
    fn can_be(&self, state: &State) -> bool {
        state.last_sequence == self.last_sequence && state.messages >= self.entries.len() as u64
    }
}

fn unreadable(error: &StateError) {
    static FAILED: LogLimit = LogLimit::new();
    if let Some(count) = FAILED.hit() {
        tracing::warn!(error = %Causes(error.as_ref()), count, "the buckets are not up to date: cannot read the state");
    }
}

/// The header that marks the key of a message as deleted.
const OPERATION: &str = "KV-Operation";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_that_was_written_or_has_lost_entries_is_noticed() {
        let entries = ["id.a", "name.a"].map(|key| (key.to_owned(), "{}".to_owned()));
        let present = Present { entries: entries.into(), last_sequence: 9 };
        let state = |messages: u64, last_sequence: u64| {
            let time = "2026-11-30T00:00:00Z";
            let state = serde_json::json!({
                "messages": messages, "bytes": 1, "first_seq": 1, "first_ts": time, "last_seq": last_sequence,
                "last_ts": time, "consumer_count": 0,
            });
            serde_json::from_value(state).unwrap()
        };
        // Two markers beside the entries, or none any more.
        assert!(present.can_be(&state(4, 9)) && present.can_be(&state(2, 9)));
        // Purged, one lost, one written by somebody else, and set back.
        for (messages, last_sequence) in [(0, 9), (1, 9), (2, 10), (2, 8)] {
            assert!(!present.can_be(&state(messages, last_sequence)), "{messages} {last_sequence}");
        }
    }
}
