//! How the stream is defined: what must be so, and how it is put right when somebody has changed it.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use otherix_schemas::subject::{STREAM, STREAM_SUBJECTS};

/// What takes the place of positions that no event has, while a stream is filled. Purged before anybody is to read there.
pub(super) const GAP_SUBJECT: &str = "otherix.adm.v1.gap";

/// Nobody can empty a stream in use; one that is being filled can be purged yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Filling,
    InUse,
}

impl Phase {
    pub(super) fn of(config: &Config) -> Self {
        // One that republishes is an earlier version's, or somebody has changed it.
        if config.deny_purge || config.republish.is_some() { Self::InUse } else { Self::Filling }
    }
}

/// A new stream.
pub(super) fn new(phase: Phase) -> Config {
    wanted(
        Config {
            name: STREAM.to_owned(),
            description: Some("every event of otherix; a copy of the journal".to_owned()),
            ..Config::default()
        },
        phase,
    )
}

/// What a stream that has this definition should have. Where and how often it is stored is left as it is.
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
        // The expected sequence makes a second copy impossible; the server need not remember ids for long.
        duplicate_window: Duration::from_secs(1),
        // The relay tells of events itself: see docs/adr/0007.
        republish: None,
        ..found
    }
}
