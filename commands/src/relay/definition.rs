//! How the stream is defined: what must be so, and how it is put right when somebody has changed it.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, Republish, RetentionPolicy, StorageType};
use otherix_schemas::subject::{LIVE_PREFIX, STREAM, STREAM_SUBJECTS};

/// What takes the place of positions that no event has, while a stream is filled. Purged before anybody is to read there.
pub(super) const GAP_SUBJECT: &str = "otherix.adm.v1.gap";

/// A stream in use republishes what it stores, and nobody can empty it. One that is being filled does not republish, for
/// followers have had these events; that it can be purged yet tells it from one that somebody has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Filling,
    InUse,
}

impl Phase {
    pub(super) fn of(config: &Config) -> Self {
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
        republish: (phase == Phase::InUse).then(|| Republish {
            source: ">".to_owned(),
            destination: format!("{LIVE_PREFIX}.>"),
            headers_only: false,
        }),
        ..found
    }
}
