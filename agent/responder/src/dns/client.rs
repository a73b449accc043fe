//! What a guest may cost: questions in a second, and answers that are waited for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How much a guest may ask. A question costs its node some 10 µs of processor time (`otherix-bench --names`), so one
/// that floods costs a hundredth of a core, apart from what the kernel does; busy mail servers ask some hundred times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Questions in a second, at least one.
    pub per_second: u32,
    /// As many are answered at once after a pause.
    pub burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_second: 1_000, burst: 300 }
    }
}

/// A guest that asks, over UDP and TCP.
#[derive(Debug)]
pub(crate) struct Client {
    limits: Limits,
    /// When the guest would have asked as often as it may.
    due: Mutex<Instant>,
    /// The questions that are relayed, and the connections.
    pub(crate) relayed: Share,
    pub(crate) connections: Share,
}

impl Client {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, due: Mutex::new(Instant::now()), relayed: Share::default(), connections: Share::default() }
    }

    /// Counts a question. Returns how long the next one is to wait.
    pub(crate) fn count(&self) -> Duration {
        let Limits { per_second, burst } = self.limits;
        let interval = Duration::from_secs(1) / per_second.max(1);
        let now = Instant::now();
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        *due = (*due).max(now) + interval;
        due.duration_since(now).saturating_sub(interval * burst)
    }
}

/// How much of something is in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Share(Arc<AtomicUsize>);

/// A part of it, in use until this is dropped.
#[derive(Debug)]
pub(crate) struct Used(Share);

impl Share {
    pub(crate) fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Uses a part, unless as many as `most` are in use.
    pub(crate) fn take(&self, most: usize) -> Option<Used> {
        let add = |used| (used < most).then_some(used + 1);
        let is_taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok();
        is_taken.then(|| Used(self.clone()))
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn questions_beyond_the_burst_wait() {
        let client = Client::new(Limits { per_second: 100, burst: 10 });
        for _ in 0..10 {
            assert_eq!(client.count(), Duration::ZERO);
        }
        assert_eq!(client.count(), Duration::from_millis(10));
        assert_eq!(client.count(), Duration::from_millis(20));
        tokio::time::advance(Duration::from_millis(60)).await;
        assert_eq!((0..5).filter(|_| client.count().is_zero()).count(), 4);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((0..50).filter(|_| client.count().is_zero()).count(), 10, "a pause gives no more than the burst");
    }

    #[test]
    fn no_more_than_the_most_is_used() {
        let share = Share::default();
        let used: Vec<_> = std::iter::from_fn(|| share.take(3)).collect();
        assert_eq!((used.len(), share.used()), (3, 3));
        drop(used);
        assert_eq!(share.used(), 0);
    }
}
