//! The flap limit: how often a node may revoke a settled status. Every change of a status is an event, kept for ever,
//! so a node where something fails and recovers endlessly must not fill the event store. A first status, a new
//! generation and the end of a pending status are free; a report that revokes a settled status takes one of the node's
//! allowance, which is refilled over time.

use otherix_schemas::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::codec::optional_micros;

/// Reports in a row that may revoke a status.
const BURST: i64 = 60;

/// Time until one more is allowed: two per second in the long run.
const REFILL_MICROS: i64 = 500_000;

/// How far the clock may be behind the last event; further behind, it cannot be used to measure the limit.
const CLOCK_BEHIND_MICROS: i64 = 10_000_000;

/// What is left of a node's allowance, as the time at which all of it is refilled. [`BURST`] refills before that time
/// it is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlapAllowance(#[serde(with = "optional_micros")] Option<Timestamp>);

impl FlapAllowance {
    /// Returns the time until one more is allowed, in milliseconds; none if it is. `last` is the time of the last
    /// event. A clock that was set back far behind it does not limit anything.
    pub(super) fn wait_ms(self, now: Timestamp, last: Timestamp) -> Option<u64> {
        let full = self.0?.unix_micros();
        if last.unix_micros() - now.unix_micros() > CLOCK_BEHIND_MICROS {
            return None;
        }
        let wait = full - now.max(last).unix_micros() - (BURST - 1) * REFILL_MICROS;
        u64::try_from(wait).ok().filter(|wait| *wait > 0).map(|wait| wait.div_ceil(1000))
    }

    /// Returns the allowance after one more at `now`.
    pub(super) fn less_one(self, now: Timestamp) -> Self {
        let begun = self.0.map_or(now, |full| full.max(now)).unix_micros();
        let full = (begun + REFILL_MICROS).min(now.unix_micros() + BURST * REFILL_MICROS);
        Self(Timestamp::from_unix_micros(full).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_unix_micros(1_700_000_000_000_000 + micros).unwrap()
    }

    #[test]
    fn allows_a_burst_and_then_two_per_second() {
        let mut allowance = FlapAllowance::default();
        for _ in 0..60 {
            assert_eq!(allowance.wait_ms(at(0), at(0)), None);
            allowance = allowance.less_one(at(0));
        }
        assert_eq!(allowance.wait_ms(at(0), at(0)), Some(500));
        assert_eq!(allowance.wait_ms(at(499_999), at(0)), Some(1));
        assert_eq!(allowance.wait_ms(at(500_000), at(0)), None);
        allowance = allowance.less_one(at(500_000));
        assert_eq!(allowance.wait_ms(at(500_000), at(0)), Some(500));
        assert_eq!(allowance.wait_ms(at(60_000_000), at(0)), None);
    }

    #[test]
    fn ignores_a_clock_that_was_set_back() {
        let allowance = (0..60).fold(FlapAllowance::default(), |allowance, _| allowance.less_one(at(0)));
        assert_eq!(allowance.wait_ms(at(-3_600_000_000), at(0)), None);
        assert_eq!(allowance.wait_ms(at(-1_000_000), at(0)), Some(500));
        let more = (0..60).fold(allowance, |allowance, _| allowance.less_one(at(0)));
        assert_eq!(more, allowance, "a used-up allowance cannot be used further");
    }
}
