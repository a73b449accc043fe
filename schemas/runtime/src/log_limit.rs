//! Log lines whose cause lies outside of this program, at a bounded rate.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Shortest interval between two lines with one cause.
const INTERVAL: Duration = Duration::from_secs(10);

/// Most keys that are counted separately.
const KEYS_MAX: usize = 256;

/// Limits how often something is logged: the first time at once, and then at most every ten seconds, with the number
/// of times since.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<Hits>);

#[derive(Debug, Default)]
struct Hits {
    logged_at: Option<Instant>,
    /// Since then.
    count: u64,
}

impl LogLimit {
    /// Returns a limit that nothing was counted by yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Hits { logged_at: None, count: 0 }))
    }

    /// Counts an occurrence. If it is to be logged, returns how many there were since the last one that was.
    pub fn hit(&self) -> Option<u64> {
        let mut hits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hits.count += 1;
        let now = Instant::now();
        if hits.logged_at.is_some_and(|at| now.duration_since(at) < INTERVAL) {
            return None;
        }
        hits.logged_at = Some(now);
        Some(std::mem::take(&mut hits.count))
    }

    /// Whether the next occurrence is logged.
    fn is_over(&self, now: Instant) -> bool {
        let hits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hits.logged_at.is_none_or(|at| now.duration_since(at) >= INTERVAL)
    }
}

/// Limits how often something is logged of each of many subjects, such as nodes: one subject does not hide another. Of
/// more than 256 at a time, the others share one limit.
#[derive(Debug)]
pub struct LogLimits<K> {
    by_key: BTreeMap<K, LogLimit>,
    others: LogLimit,
}

impl<K: Ord> Default for LogLimits<K> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), others: LogLimit::new() }
    }
}

impl<K: Ord> LogLimits<K> {
    /// Counts an occurrence that concerns `key`. If it is to be logged, returns how many there were since the last one
    /// that was.
    pub fn hit(&mut self, key: K) -> Option<u64> {
        if self.by_key.len() >= KEYS_MAX && !self.by_key.contains_key(&key) {
            let now = Instant::now();
            self.by_key.retain(|_, limit| !limit.is_over(now));
            if self.by_key.len() >= KEYS_MAX {
                return self.others.hit();
            }
        }
        self.by_key.entry(key).or_default().hit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn counts_what_is_left_out() {
        let limit = LogLimit::default();
        assert_eq!(limit.hit(), Some(1));
        assert_eq!((limit.hit(), limit.hit()), (None, None));
        tokio::time::advance(INTERVAL).await;
        assert_eq!(limit.hit(), Some(3));
        assert_eq!(limit.hit(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn each_subject_has_a_limit_of_its_own() {
        let mut limits = LogLimits::default();
        assert_eq!((limits.hit(0), limits.hit(0), limits.hit(1)), (Some(1), None, Some(1)));
        tokio::time::advance(INTERVAL).await;
        assert_eq!((limits.hit(0), limits.hit(1)), (Some(2), Some(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn many_subjects_share_a_limit() {
        let mut limits = LogLimits::default();
        let logged = (0..10_000).filter(|key| limits.hit(*key).is_some()).count();
        assert_eq!(logged, KEYS_MAX + 1);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(limits.hit(10_000), Some(1), "those that are over make room");
        assert_eq!(limits.by_key.len(), 1);
    }
}
