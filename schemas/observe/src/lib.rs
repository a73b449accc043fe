//! What the programs of otherix tell about themselves: logs, metrics and health over HTTP, and the service manager.

pub mod endpoint;
pub mod logs;
pub mod process;
pub mod service_manager;

/// The crate of the metrics, for those who declare some.
pub use prometheus_client as prometheus;

use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// Seconds from 0.1 ms to 13 s, each bucket twice as wide as the one before: most of what is measured takes
/// milliseconds, and a factor of two is what an operator reacts to.
pub fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 18))
}

/// Counts of things done at once, from 1 to 4,096.
pub fn sizes() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 13))
}

/// Adds a duration to a histogram of seconds.
pub fn observe(histogram: &Histogram, duration: Duration) {
    histogram.observe(duration.as_secs_f64());
}
