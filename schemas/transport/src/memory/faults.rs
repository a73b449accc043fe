//! What a network does to messages, and how often.

use std::time::Duration;

use otherix_runtime::Runtime;

/// Probabilities and limits of faults. Probabilities are per thousand deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The longest delay of a delivery; delays are uniformly distributed.
    pub max_delay: Duration,
    /// How often a message is delivered twice.
    pub duplicate_per_mille: u64,
    /// How often a message may overtake those before it.
    pub reorder_per_mille: u64,
    /// How often the receiver's connection is cut.
    pub cut_per_mille: u64,
    /// The longest time until a connection that was cut is restored; uniformly distributed.
    pub max_cut: Duration,
}

impl Faults {
    /// Immediate delivery, in order, exactly once.
    pub const NONE: Self = Self {
        max_delay: Duration::ZERO,
        duplicate_per_mille: 0,
        reorder_per_mille: 0,
        cut_per_mille: 0,
        max_cut: Duration::ZERO,
    };

    /// All faults, each frequent enough that a few hundred messages encounter several.
    pub const HARSH: Self = Self {
        max_delay: Duration::from_millis(200),
        duplicate_per_mille: 100,
        reorder_per_mille: 200,
        cut_per_mille: 30,
        max_cut: Duration::from_secs(3),
    };

    pub(super) fn delay(&self, runtime: &dyn Runtime) -> Duration {
        up_to(self.max_delay, runtime)
    }

    pub(super) fn duplicates(&self, runtime: &dyn Runtime) -> bool {
        happens(self.duplicate_per_mille, runtime)
    }

    pub(super) fn reorders(&self, runtime: &dyn Runtime) -> bool {
        happens(self.reorder_per_mille, runtime)
    }

    /// Decides whether the connection is cut, and for how long.
    pub(super) fn cut(&self, runtime: &dyn Runtime) -> Option<Duration> {
        happens(self.cut_per_mille, runtime).then(|| up_to(self.max_cut, runtime))
    }
}

fn happens(per_mille: u64, runtime: &dyn Runtime) -> bool {
    per_mille > 0 && runtime.random_u64() % 1000 < per_mille
}

fn up_to(max: Duration, runtime: &dyn Runtime) -> Duration {
    if max.is_zero() {
        return max;
    }
    let micros = u64::try_from(max.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(runtime.random_u64() % micros.saturating_add(1))
}
