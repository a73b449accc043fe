//! The definitions of the buckets' streams.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamError, DeleteStreamError, GetStreamError, PublishError};
use async_nats::jetstream::stream::{
    Config, ConsumerLimits, DiscardPolicy, External, Info, Source, State, StorageType,
};
use async_nats::jetstream::{Context, consumer};
use otherix_schemas::bucket::Bucket;

use super::super::accounts::{MIRROR_API, STATE_DELIVER};
use super::super::mirror::is_not_found;

/// Metadata of a mirror that identifies its source.
const SOURCE_CREATED: &str = "otherix.source-created";

/// How long a consumer of a mirror lasts while nobody is subscribed to what it delivers, at most. It is the default of
/// consumers that ask for nothing else, durable ones too.
const INACTIVE_MAX: Duration = Duration::from_secs(300);

/// Why buckets cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BucketError {
    #[error("cannot inspect a bucket")]
    Inspect(#[from] GetStreamError),
    #[error("cannot create a bucket")]
    Create(#[from] CreateStreamError),
    #[error("cannot delete an outdated bucket")]
    Delete(#[source] DeleteStreamError),
    #[error("cannot read a bucket")]
    Consumer(#[from] consumer::StreamError),
    #[error("cannot read a bucket")]
    Read(#[source] async_nats::Error),
    #[error("the server did not send the entries of a bucket in time")]
    Silent,
    #[error("cannot write to a bucket")]
    Publish(#[from] PublishError),
    #[error("the bucket `{0}` was changed by another client")]
    Changed(&'static str),
}

/// Consecutive checks without progress, although the source has something else, after which a mirror is made again.
const STALLED_CHECKS: u32 = 10;

/// Whether a mirror follows its source.
#[derive(Debug, Default)]
pub(super) struct Progress {
    last_sequence: u64,
    stalled: u32,
}

impl Progress {
    /// Takes note of what both have; a mirror that has another number of entries than its source has lost some.
    fn is_stalled(&mut self, mirror: &State, source: &State) -> bool {
        let of = |state: &State| (state.last_sequence, state.messages);
        let is_behind = of(mirror) != of(source);
        self.stalled = if is_behind && mirror.last_sequence == self.last_sequence { self.stalled + 1 } else { 0 };
        self.last_sequence = mirror.last_sequence;
        self.stalled >= STALLED_CHECKS
    }
}

/// The stream's state and definition, if it exists.
pub(super) async fn info(context: &Context, bucket: Bucket) -> Result<Option<Info>, BucketError> {
    match context.get_stream(bucket.stream()).await {
        Ok(stream) => Ok(Some(stream.cached_info().clone())),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn common(bucket: Bucket, replicas: usize) -> Config {
    Config {
        name: bucket.stream().to_owned(),
        max_messages_per_subject: 1,
        storage: StorageType::File,
        num_replicas: replicas,
        deny_delete: true,
        // So that markers of what was deleted disappear.
        allow_message_ttl: true,
        ..Config::default()
    }
}

/// Creates a bucket that does not exist.
pub(super) async fn ensure(context: &Context, bucket: Bucket, replicas: Option<usize>) -> Result<Info, BucketError> {
    if let Some(found) = info(context, bucket).await? {
        return Ok(found);
    }
    let config = Config {
        description: Some("the state of otherix; made from the events".to_owned()),
        subjects: vec![bucket.subject(">")],
        discard: DiscardPolicy::New,
        allow_direct: true,
        ..common(bucket, replicas.unwrap_or(1))
    };
    Ok(context.create_stream(config).await?.cached_info().clone())
}

/// Creates the mirror of a bucket. One of another source, with another definition, or that has stopped to follow its
/// source according to `progress`, is made again.
pub(super) async fn ensure_mirror(
    control: &Context,
    state: &Context,
    bucket: Bucket,
    progress: &mut Progress,
) -> Result<(), BucketError> {
    // The mirror is read first: then only an incorrect one can be ahead of its source.
    let mirror = info(state, bucket).await?;
    let Some(source) = info(control, bucket).await? else { return Ok(()) };
    let expected = Config {
        description: Some("the state of otherix, to be read".to_owned()),
        mirror: Some(Source {
            name: bucket.stream().to_owned(),
            external: Some(External {
                api_prefix: MIRROR_API.to_owned(),
                delivery_prefix: Some(STATE_DELIVER.to_owned()),
            }),
            ..Source::default()
        }),
        deny_purge: true,
        consumer_limits: Some(ConsumerLimits { inactive_threshold: INACTIVE_MAX, max_ack_pending: 0 }),
        metadata: HashMap::from([(SOURCE_CREATED.to_owned(), source.created.to_string())]),
        ..common(bucket, source.config.num_replicas)
    };
    if let Some(found) = &mirror {
        let actual = &found.config;
        let is_same = actual.mirror == expected.mirror
            && actual.metadata.get(SOURCE_CREATED) == expected.metadata.get(SOURCE_CREATED)
            // Direct gets can be answered to any subject of the account, without a body: see docs/adr/0038.
            && !(actual.allow_direct || actual.mirror_direct)
            && actual.max_messages_per_subject == expected.max_messages_per_subject
            && actual.consumer_limits == expected.consumer_limits
            && (actual.deny_delete, actual.deny_purge) == (true, true)
            && found.state.last_sequence <= source.state.last_sequence;
        if is_same && !progress.is_stalled(&found.state, &source.state) {
            return Ok(());
        }
        tracing::warn!(bucket = bucket.name(), "the mirror of a bucket is outdated; recreating it");
        state.delete_stream(bucket.stream()).await.map_err(BucketError::Delete)?;
    }
    *progress = Progress::default();
    state.create_stream(expected).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mirror_that_stops_or_lacks_entries_is_noticed() {
        let state = |last: u64, messages: u64| -> State {
            let time = "2026-11-30T00:00:00Z";
            let fields = json!({
                "messages": messages, "bytes": 0, "first_seq": 1, "first_ts": time, "last_seq": last, "last_ts": time,
                "consumer_count": 0, "num_subjects": 0,
            });
            serde_json::from_value(fields).unwrap()
        };
        let noticed = |checks: &[(State, State)]| {
            let mut progress = Progress::default();
            checks.iter().position(|(mirror, source)| progress.is_stalled(mirror, source))
        };
        let repeated = |mirror: State, source: State| vec![(mirror, source); 30];
        assert_eq!(noticed(&repeated(state(5, 5), state(5, 5))), None);
        assert_eq!(noticed(&repeated(state(5, 5), state(9, 6))), Some(10));
        assert_eq!(noticed(&repeated(state(5, 4), state(5, 5))), Some(10));
        // Progress, however slow.
        let slow: Vec<_> = (0..30).map(|number| (state(number / 5, 1), state(40, 1))).collect();
        assert_eq!(noticed(&slow), None);
        // One that was behind for a while.
        let mut caught_up = vec![(state(5, 5), state(9, 6)); 9];
        caught_up.extend(vec![(state(9, 6), state(9, 6)); 9]);
        caught_up.extend(vec![(state(9, 6), state(10, 7)); 9]);
        assert_eq!(noticed(&caught_up), None);
    }
}
