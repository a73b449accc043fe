//! The definitions of the buckets' streams.

use std::collections::HashMap;

use async_nats::jetstream::context::{CreateStreamError, DeleteStreamError, GetStreamError, PublishError};
use async_nats::jetstream::stream::{Config, DiscardPolicy, External, Info, Source, StorageType};
use async_nats::jetstream::{Context, consumer};
use otherix_projections::buckets::StateError;
use otherix_schemas::bucket::Bucket;

use super::super::accounts::{MIRROR_API, STATE_DELIVER};
use super::super::mirror::is_not_found;

/// Metadata of a mirror that identifies its source.
const SOURCE_CREATED: &str = "otherix.source-created";

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
    #[error("cannot read the state")]
    State(#[source] StateError),
    #[error("the bucket `{0}` was changed by another client")]
    Changed(&'static str),
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

/// Creates the mirror of a bucket. One of another source, or with another definition, is made again.
pub(super) async fn ensure_mirror(control: &Context, state: &Context, bucket: Bucket) -> Result<(), BucketError> {
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
            && (actual.deny_delete, actual.deny_purge) == (true, true)
            && found.state.last_sequence <= source.state.last_sequence;
        if is_same {
            return Ok(());
        }
        tracing::warn!(bucket = bucket.name(), "the mirror of a bucket is outdated; recreating it");
        state.delete_stream(bucket.stream()).await.map_err(BucketError::Delete)?;
    }
    state.create_stream(expected).await?;
    Ok(())
}
