//! How often a node may change its mind. Every change of an outcome is an event, for ever: a node where something comes and goes
//! without end must not fill the journal. What is new (a network, a generation, what a pending network came to) costs
//! nothing; a report that takes a settled word back takes one of the node's allowance, which fills up again with time.

use otherix_schemas::outcome::{Outcome, OutcomeStatus};
use otherix_schemas::timestamp::Timestamp;

/// Reports in a row that may take something back.
const BURST: i64 = 60;

/// In what time one of them is allowed again: two a second in the long run.
const REFILL_MICROS: i64 = 500_000;

/// How far the clock may be behind the last event before it is of no use for measuring.
const CLOCK_BEHIND_MICROS: i64 = 10_000_000;

/// What is left of a node's allowance: all of it at the time that this says, nothing the whole time of [`BURST`] before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance(Option<Timestamp>);

/// Whether `new` takes back what was said of the same generation.
pub(super) fn takes_back(said: &Outcome, new: &Outcome) -> bool {
    said.status() != OutcomeStatus::Pending || new.status() == OutcomeStatus::Pending
}

impl Allowance {
    /// How long it takes until one more is allowed, in milliseconds, if it is not. A clock that was set back, so that it is
    /// behind `last`, the time of the last event, forbids nothing.
    pub(super) fn wait_ms(self, at: Timestamp, last: Timestamp) -> Option<u64> {
        let full = self.0?.unix_micros();
        if last.unix_micros() - at.unix_micros() > CLOCK_BEHIND_MICROS {
            return None;
        }
        let wait = full - at.max(last).unix_micros() - (BURST - 1) * REFILL_MICROS;
        u64::try_from(wait).ok().filter(|wait| *wait > 0).map(|wait| wait.div_ceil(1000))
    }

    /// The allowance after one more at `at`.
    pub(super) fn less_one(self, at: Timestamp) -> Self {
        let begun = self.0.map_or(at, |full| full.max(at)).unix_micros();
        let full = (begun + REFILL_MICROS).min(at.unix_micros() + BURST * REFILL_MICROS);
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
    fn a_burst_is_allowed_and_then_two_a_second() {
        let mut allowance = Allowance::default();
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
    fn a_clock_that_was_set_back_forbids_nothing() {
        let allowance = (0..60).fold(Allowance::default(), |allowance, _| allowance.less_one(at(0)));
        assert_eq!(allowance.wait_ms(at(-3_600_000_000), at(0)), None);
        assert_eq!(allowance.wait_ms(at(-1_000_000), at(0)), Some(500));
        let more = (0..60).fold(allowance, |allowance, _| allowance.less_one(at(0)));
        assert_eq!(more, allowance, "what was used up cannot be used up further");
    }

    #[test]
    fn only_a_settled_word_can_be_taken_back() {
        let (pending, failed) = (Outcome::Pending("w".to_owned()), Outcome::Failed("f".to_owned()));
        assert!(!takes_back(&pending, &Outcome::Ready) && !takes_back(&pending, &failed));
        assert!(takes_back(&Outcome::Ready, &pending) && takes_back(&failed, &Outcome::Ready));
        assert!(takes_back(&pending, &Outcome::Pending("for another".to_owned())));
    }
}
