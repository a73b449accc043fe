//! What a download tells while it runs.

use std::time::{Duration, Instant};

/// The state of a download.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Bytes that are in the part, those of an earlier, interrupted download included.
    pub received: u64,
    /// Size of the file in bytes, if the server tells.
    pub total: Option<u64>,
    /// Bytes per second, over the last seconds.
    pub rate: u64,
}

/// There is no room for an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    #[error("no room for {needed} bytes: the cache may have {budget}, and {pinned} are of images in use")]
    Budget { needed: u64, budget: u64, pinned: u64 },
    #[error("no room for {needed} bytes: the disk is full")]
    Disk { needed: u64 },
    #[error("cannot make room for {needed} bytes: {reason}")]
    Failed { needed: u64, reason: String },
}

/// Receives what a download tells; called on the thread that downloads.
pub trait Observer {
    /// Called some times a second at most, and at the end.
    fn progress(&self, _progress: Progress) {}

    /// Makes room for a part of this many bytes, once its size is known, or repeatedly as it grows.
    ///
    /// # Errors
    /// If there is not enough: the download fails.
    fn make_room(&self, _bytes: u64) -> Result<(), NoRoom> {
        Ok(())
    }
}

/// Tells nobody, and has room for everything.
impl Observer for () {}

const REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// How far back the rate looks.
const WINDOW: Duration = Duration::from_secs(4);

/// Rate and time of the last report.
pub(super) struct Meter {
    window_start: Instant,
    window_received: u64,
    rate: u64,
    reported: Option<Instant>,
}

impl Meter {
    pub(super) fn start(received: u64, now: Instant) -> Self {
        Self { window_start: now, window_received: received, rate: 0, reported: None }
    }

    /// What is to be reported now, if anything is.
    pub(super) fn update(&mut self, received: u64, total: Option<u64>, now: Instant) -> Option<Progress> {
        let since_report = self.reported.map(|reported| now.saturating_duration_since(reported));
        if since_report.is_some_and(|elapsed| elapsed < REPORT_INTERVAL) {
            return None;
        }
        Some(self.report(received, total, now))
    }

    pub(super) fn report(&mut self, received: u64, total: Option<u64>, now: Instant) -> Progress {
        let elapsed = now.saturating_duration_since(self.window_start);
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        self.rate = received.saturating_sub(self.window_received).saturating_mul(1000) / millis;
        if elapsed >= WINDOW {
            (self.window_start, self.window_received) = (now, received);
        }
        self.reported = Some(now);
        Progress { received, total, rate: self.rate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut meter = Meter::start(1000, start);
        let first = meter.update(1100, None, at(100)).unwrap();
        assert_eq!(first, Progress { received: 1100, total: None, rate: 1000 });
        assert_eq!(meter.update(1200, None, at(200)), None);
        assert_eq!(meter.update(5000, Some(9000), at(4000)).unwrap().rate, 1000);
        assert_eq!(meter.update(5000, Some(9000), at(5000)).unwrap().rate, 0);
    }
}
