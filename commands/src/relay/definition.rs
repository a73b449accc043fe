//! The definition of the stream: which settings are required, and which may differ.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use otherix_schemas::position::Position;
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

/// How much the stream and its mirror keep. The event store keeps everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamLimits {
    /// Events are deleted when the server has stored them for so long; zero: never.
    pub max_age: Duration,
    /// Size in bytes, with subjects and headers, above which the oldest events are deleted; `None`: no limit.
    pub max_bytes: Option<u64>,
}

impl StreamLimits {
    /// Returns the limits of a stream with this definition.
    pub fn of(config: &Config) -> Self {
        let max_bytes = u64::try_from(config.max_bytes).ok().filter(|bytes| *bytes > 0);
        Self { max_age: config.max_age, max_bytes }
    }

    /// Returns whether the stream may lack its oldest events.
    pub fn is_limited(self) -> bool {
        self != Self::default()
    }

    /// Returns a definition with these limits.
    pub fn apply(self, config: Config) -> Config {
        let Self { max_age, max_bytes } = self;
        let max_bytes = max_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        Config { max_age, max_bytes, discard: DiscardPolicy::Old, ..config }
    }
}

/// What the operator of the control plane decides about the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamSettings {
    /// Replicas of a stream that is created; if `None`, as many as the one before had, or one.
    pub replicas: Option<usize>,
    pub limits: StreamLimits,
}

/// Returns the definition of a new stream, whose first event is the one after a position.
pub(super) fn new(phase: Phase, settings: StreamSettings, after: Position) -> Config {
    let first_sequence = (after > Position::ZERO).then(|| after.next().get());
    wanted(
        Config {
            name: STREAM.to_owned(),
            num_replicas: settings.replicas.unwrap_or(1),
            first_sequence,
            description: Some("every event of otherix; a copy of the journal".to_owned()),
            ..Config::default()
        },
        phase,
        settings.limits,
    )
}

/// Returns the definition that an existing stream should have. Replicas and placement are left as they are.
pub(super) fn wanted(found: Config, phase: Phase, limits: StreamLimits) -> Config {
    let unlimited = Config {
        subjects: STREAM_SUBJECTS.iter().map(ToString::to_string).collect(),
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard_new_per_subject: false,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_message_size: -1,
        max_consumers: -1,
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
    };
    limits.apply(unlimited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_definition() {
        let five_gib = 5 << 30;
        for (max_bytes, defined) in [(None, -1), (Some(65_536), 65_536), (Some(five_gib), 5 << 30)] {
            let limits = StreamLimits { max_age: Duration::from_secs(60), max_bytes };
            let config = limits.apply(Config::default());
            assert_eq!((config.max_bytes, StreamLimits::of(&config)), (defined, limits));
        }
    }
}
