//! The definition of the stream: which settings are required, and which may differ.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use otherix_schemas::subject::{STREAM, STREAM_SUBJECTS};

/// Subject of the messages that use up the positions of a gap while a stream is filled. They are purged before the
/// stream is taken into use.
pub(super) const GAP_SUBJECT: &str = "otherix.adm.v1.gap";

/// A stream in use cannot be purged; one that is being filled can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Filling,
    InUse,
}

impl Phase {
    pub(super) fn of(config: &Config) -> Self {
        // One that republishes was created by an earlier version, or changed by another client.
        if config.deny_purge || config.republish.is_some() { Self::InUse } else { Self::Filling }
    }
}

/// Returns the definition of a new stream with this number of replicas.
pub(super) fn new(phase: Phase, replicas: usize) -> Config {
    wanted(
        Config {
            name: STREAM.to_owned(),
            num_replicas: replicas,
            description: Some("every event of otherix; a copy of the journal".to_owned()),
            ..Config::default()
        },
        phase,
    )
}

/// Returns the definition that an existing stream should have. Replicas and placement are left as they are.
pub(super) fn wanted(found: Config, phase: Phase) -> Config {
    Config {
        subjects: STREAM_SUBJECTS.iter().map(ToString::to_string).collect(),
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        discard_new_per_subject: false,
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_message_size: -1,
        max_consumers: -1,
        max_age: Duration::ZERO,
        no_ack: false,
        sealed: false,
        allow_rollup: false,
        allow_direct: true,
        deny_delete: true,
        deny_purge: phase == Phase::InUse,
        mirror: None,
        sources: None,
        subject_transform: None,
        // The expected sequence prevents duplicates, so the server need not remember ids for long.
        duplicate_window: Duration::from_secs(1),
        // The relay sends events to live subscribers itself: see docs/adr/0007.
        republish: None,
        ..found
    }
}
