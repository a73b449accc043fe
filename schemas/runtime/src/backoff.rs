//! Delays between retries.

use std::time::Duration;

use crate::Runtime;
use crate::seeded::SplitMix64;

/// Delays between retries: exponential, bounded, with jitter.
///
/// Each delay is drawn uniformly from the upper half of a range that starts at `first`, doubles with every failure and
/// ends at `max` ("equal jitter"): the n-th delay lies between `first * 2^(n-1) / 2` and `first * 2^(n-1)`, and never
/// exceeds `max`. The first retry is therefore never later than with a fixed delay of `first`, and processes that lost
/// the same server do not retry in lockstep.
///
/// Call [`Backoff::reset`] after a success.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    ceiling: Duration,
    random: SplitMix64,
}

impl Backoff {
    /// Returns delays from `first` up to `max`, with jitter seeded by `runtime`.
    pub fn new(first: Duration, max: Duration, runtime: &dyn Runtime) -> Self {
        Self::seeded(first, max, runtime.random_u64())
    }

    /// Returns delays from `first` up to `max`, with jitter that depends on `seed` only.
    pub fn seeded(first: Duration, max: Duration, seed: u64) -> Self {
        let first = first.min(max);
        Self { first, max, ceiling: first, random: SplitMix64::new(seed) }
    }

    /// Returns the delay before the next attempt, and doubles the range for the one after.
    pub fn next_delay(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_mul(2).min(self.max);
        jittered(ceiling, self.random.next())
    }

    /// Sleeps for [`Backoff::next_delay`].
    ///
    /// Cancel-safety: if dropped, the delay counts as made.
    pub async fn sleep(&mut self) {
        tokio::time::sleep(self.next_delay()).await;
    }

    /// Starts again from the first delay.
    pub fn reset(&mut self) {
        self.ceiling = self.first;
    }

    /// Returns the delay of a caller that counts its attempts itself, from 1. `random` is any random number.
    pub fn delay_of_attempt(first: Duration, max: Duration, attempt: usize, random: u64) -> Duration {
        let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        jittered(first.saturating_mul(2u32.saturating_pow(doublings)).min(max), random)
    }
}

/// Returns a delay between half of `ceiling` and `ceiling`.
fn jittered(ceiling: Duration, random: u64) -> Duration {
    let half = ceiling / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    // The bias of the remainder is below 1 in 10^6 for delays of hours; it does not matter here.
    ceiling - Duration::from_nanos(random % nanos.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededRuntime;

    const FIRST: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(1);

    #[test]
    fn delays_grow_within_their_bounds() {
        for seed in 0..1000 {
            let mut backoff = Backoff::seeded(FIRST, MAX, seed);
            for ceiling_ms in [100, 200, 400, 800, 1000, 1000, 1000] {
                let ceiling = Duration::from_millis(ceiling_ms);
                let delay = backoff.next_delay();
                assert!(delay >= ceiling / 2 && delay <= ceiling, "{delay:?} of {ceiling:?}");
            }
            backoff.reset();
            assert!(backoff.next_delay() <= FIRST);
        }
    }

    #[test]
    fn delays_of_counted_attempts_have_the_same_bounds() {
        for (attempt, ceiling_ms) in
            [(0, 100), (1, 100), (2, 200), (4, 800), (5, 1000), (100, 1000), (usize::MAX, 1000)]
        {
            let ceiling = Duration::from_millis(ceiling_ms);
            for random in [0, 1, 49_999_999, u64::MAX] {
                let delay = Backoff::delay_of_attempt(FIRST, MAX, attempt, random);
                assert!(delay >= ceiling / 2 && delay <= ceiling, "{delay:?} of {ceiling:?}");
            }
        }
    }

    #[test]
    fn a_fleet_is_spread_over_half_of_the_range() {
        let delays = (0..1000).map(|seed| Backoff::seeded(FIRST, MAX, seed).next_delay());
        let mut tenths = [0; 10];
        for delay in delays {
            let tenth = (delay - FIRST / 2).as_micros() / 5000;
            tenths[usize::try_from(tenth).unwrap().min(9)] += 1;
        }
        assert!(tenths.iter().all(|count| (50..200).contains(count)), "{tenths:?}");
    }

    #[test]
    fn a_zero_delay_stays_zero() {
        assert_eq!(Backoff::seeded(Duration::ZERO, MAX, 1).next_delay(), Duration::ZERO);
        assert_eq!(Backoff::seeded(MAX, FIRST, 1).next_delay().max(FIRST), FIRST, "the bound holds for the first, too");
    }

    #[tokio::test(start_paused = true)]
    async fn sleeps_in_virtual_time() {
        let begin = tokio::time::Instant::now();
        Backoff::new(FIRST, MAX, &*SeededRuntime::new(3)).sleep().await;
        assert!((FIRST / 2..=FIRST + Duration::from_millis(1)).contains(&begin.elapsed()));
    }
}
