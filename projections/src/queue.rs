//! Bounds what queries that read much cost the others.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex as BlockingMutex, PoisonError};

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep_until};

/// Queries of one caller that wait or are answered at the same time.
const AT_ONCE: u32 = 2;

/// Queries of one kind. One at a time reads: however many are made, the writer and the read models do not wait for
/// them.
pub(crate) struct QueryQueue {
    /// When the next one may begin; locked by the one that reads.
    next: Mutex<Option<Instant>>,
    /// Queries that read or wait.
    queries: AtomicU32,
    /// Of the time that a query took, how many times as long the next one waits if it was there already. A single
    /// reader never waits, and a flood of queries leaves the processors to others.
    pause: u32,
}

impl QueryQueue {
    pub(crate) const fn new(pause: u32) -> Self {
        Self { next: Mutex::const_new(None), queries: AtomicU32::new(0), pause }
    }

    /// Runs `query` when it is its turn.
    pub(crate) async fn run<T>(&self, query: impl Future<Output = T>) -> T {
        let _turn = self.turn().await;
        query.await
    }

    /// Waits for a turn, which ends when it is dropped.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        let counted = Counted::new(&self.queries);
        let mut next = self.next.lock().await;
        if let Some(begin) = *next {
            sleep_until(begin).await;
        }
        *next = None;
        Turn { next, begin: Instant::now(), pause: self.pause, counted }
    }
}

/// The turn of a query.
pub(crate) struct Turn<'a> {
    next: MutexGuard<'a, Option<Instant>>,
    begin: Instant,
    pause: u32,
    counted: Counted<'a>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let is_alone = self.counted.0.load(Ordering::Relaxed) <= 1;
        *self.next = (!is_alone).then(|| Instant::now() + self.begin.elapsed() * self.pause);
    }
}

/// Counts a query until it is dropped.
struct Counted<'a>(&'a AtomicU32);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The queries of each caller: one that makes many keeps no other from its turn.
#[derive(Debug, Default)]
pub(crate) struct CallerLimit(BlockingMutex<HashMap<String, u32>>);

/// A query of a caller.
pub(crate) struct AdmittedQuery<'a> {
    limit: &'a CallerLimit,
    caller: String,
}

impl CallerLimit {
    /// Counts a query of a caller until the result is dropped; `None` if it has as many as it may.
    pub(crate) fn admit(&self, caller: &str) -> Option<AdmittedQuery<'_>> {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = callers.entry(caller.to_owned()).or_default();
        if *count >= AT_ONCE {
            return None;
        }
        *count += 1;
        Some(AdmittedQuery { limit: self, caller: caller.to_owned() })
    }
}

impl Drop for AdmittedQuery<'_> {
    fn drop(&mut self) {
        let mut callers = self.limit.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = callers.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                callers.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::join;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn queries_that_wait_for_others_leave_time_to_others() {
        let queue = QueryQueue::new(4);
        let query = || queue.run(async { sleep(Duration::from_millis(10)).await });
        let begin = Instant::now();
        query().await;
        query().await;
        assert_eq!(begin.elapsed().as_millis(), 20, "a single reader waits");
        let begin = Instant::now();
        join(query(), query()).await;
        assert_eq!(begin.elapsed().as_millis(), 10 + 40 + 10);
        let begin = Instant::now();
        query().await;
        assert_eq!(begin.elapsed().as_millis(), 10, "nobody waited with the one before");
    }

    #[test]
    fn a_caller_has_two_queries_at_once() {
        let limit = CallerLimit::default();
        let queries = [limit.admit("ann"), limit.admit("ann"), limit.admit("bob")];
        assert!(queries.iter().all(Option::is_some));
        assert!(limit.admit("ann").is_none() && limit.admit("bob").is_some());
        drop(queries);
        assert!(limit.admit("ann").is_some());
        assert!(limit.0.lock().unwrap().is_empty(), "callers that ask for nothing are not remembered");
    }
}
