//! Log lines whose cause lies outside of this program, at a bounded rate.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Shortest interval between two lines with one cause.
const INTERVAL: Duration = Duration::from_secs(10);

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
}
