//! The runtime of tests and simulations.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use otherix_schemas::timestamp::{Timestamp, TimestampError};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{BoxBlocking, BoxFuture, Runtime};

/// Where the clock of a [`SeededRuntime`] starts: 2026-01-01T00:00:00Z, in microseconds since 1970.
const START_US: i64 = 1_767_225_600_000_000;

/// A deterministic runtime: the same seed gives the same ids and random numbers in the same order.
///
/// The wall clock starts at 2026-01-01T00:00:00Z. It moves when [`SeededRuntime::advance`] is called, and, for a
/// runtime created by [`SeededRuntime::with_timers`], along with tokio's clock. Tasks run on the tokio runtime that the
/// caller is in: on a current-thread runtime with a paused clock, the whole program is a function of the seed.
#[derive(Debug)]
pub struct SeededRuntime {
    state: Mutex<State>,
    /// The wall clock follows tokio's clock from this instant.
    timers_from: Option<Instant>,
}

#[derive(Debug)]
struct State {
    random: SplitMix64,
    now_us: i64,
    spawned: Vec<&'static str>,
}

impl SeededRuntime {
    /// Returns a runtime whose clock moves only by [`SeededRuntime::advance`].
    pub fn new(seed: u64) -> Arc<Self> {
        Self::start(seed, None)
    }

    /// Returns a runtime whose clock also moves with tokio's clock, which should be paused.
    pub fn with_timers(seed: u64) -> Arc<Self> {
        Self::start(seed, Some(Instant::now()))
    }

    fn start(seed: u64, timers_from: Option<Instant>) -> Arc<Self> {
        let state = State { random: SplitMix64::new(seed), now_us: START_US, spawned: Vec::new() };
        Arc::new(Self { state: Mutex::new(state), timers_from })
    }

    /// Moves the wall clock forward. Timers are not affected.
    pub fn advance(&self, by: Duration) {
        let by = micros(by);
        let mut state = self.state();
        state.now_us = state.now_us.saturating_add(by);
    }

    /// Sets the wall clock, forward or back.
    pub fn set_time(&self, now: Timestamp) {
        let elapsed = self.elapsed_us();
        self.state().now_us = now.unix_micros().saturating_sub(elapsed);
    }

    /// Returns the names of all tasks spawned so far, in order.
    pub fn spawned(&self) -> Vec<&'static str> {
        self.state().spawned.clone()
    }

    fn elapsed_us(&self) -> i64 {
        self.timers_from.map_or(0, |from| micros(from.elapsed()))
    }

    fn now_us(&self) -> i64 {
        let elapsed = self.elapsed_us();
        self.state().now_us.saturating_add(elapsed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl Runtime for SeededRuntime {
    fn now(&self) -> Result<Timestamp, TimestampError> {
        Timestamp::from_unix_micros(self.now_us())
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        let mut state = self.state();
        for chunk in bytes.chunks_mut(8) {
            let random = state.random.next().to_le_bytes();
            chunk.iter_mut().zip(random).for_each(|(byte, random)| *byte = random);
        }
    }

    fn uuid_v7(&self) -> Uuid {
        let millis = u64::try_from(self.now_us() / 1000).unwrap_or_default();
        let mut random = [0; 10];
        self.fill_random(&mut random);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }

    fn spawn_boxed(&self, name: &'static str, task: BoxFuture) -> JoinHandle<()> {
        self.state().spawned.push(name);
        tokio::spawn(task)
    }

    /// Runs the closure as a task on the same thread, so that the order of execution is reproducible.
    fn spawn_blocking_boxed(&self, name: &'static str, work: BoxBlocking) -> JoinHandle<()> {
        self.state().spawned.push(name);
        tokio::spawn(async move { work() })
    }
}

/// Sebastiano Vigna's SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>): 64 bits of state, sufficient for jitter and
/// tests, unfit for secrets.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(runtime: &SeededRuntime) -> (Uuid, Uuid, u64) {
        (runtime.uuid_v7(), runtime.uuid_v4(), runtime.random_u64())
    }

    #[test]
    fn same_seed_gives_same_values() {
        let (one, same, other) = (SeededRuntime::new(1), SeededRuntime::new(1), SeededRuntime::new(2));
        let first = values(&one);
        assert_eq!(first, values(&same));
        assert_ne!(first, values(&other));
        assert_ne!(first, values(&one));
    }

    #[test]
    fn splitmix64_matches_the_reference() {
        let mut random = SplitMix64::new(1_234_567);
        assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn clock_moves_only_when_advanced() {
        let runtime = SeededRuntime::new(0);
        assert_eq!(runtime.now().unwrap().to_string(), "2026-01-01T00:00:00.000000Z");
        assert_eq!(runtime.now(), runtime.now());
        runtime.advance(Duration::from_micros(1_500_000));
        assert_eq!(runtime.now().unwrap().to_string(), "2026-01-01T00:00:01.500000Z");
        runtime.set_time("2025-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(runtime.now().unwrap().to_string(), "2025-01-01T00:00:00.000000Z");
    }

    #[tokio::test(start_paused = true)]
    async fn clock_follows_virtual_time() {
        let runtime = SeededRuntime::with_timers(0);
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert_eq!(runtime.now().unwrap().to_string(), "2026-01-01T00:01:30.000000Z");
        runtime.set_time("2025-01-01T00:00:00Z".parse().unwrap());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(runtime.now().unwrap().to_string(), "2025-01-01T00:00:01.000000Z");
    }

    #[tokio::test(start_paused = true)]
    async fn blocking_work_runs_on_the_same_thread() {
        let runtime = SeededRuntime::with_timers(0);
        let shared: Arc<dyn Runtime> = runtime.clone();
        let here = std::thread::current().id();
        let there = shared.run_blocking("work", || std::thread::current().id()).await.unwrap();
        assert_eq!((there, runtime.spawned()), (here, vec!["work"]));
    }
}
