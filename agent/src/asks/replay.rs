//! Which requests were received before: none is carried out twice, whoever sends it again. Pure.

use std::collections::{BTreeMap, BTreeSet};

use otherix_schemas::decision_chain::Nonce;

/// Numbers that are remembered of a sender: requests may overtake each other by so much.
const NUMBERS_MAX: usize = 1024;

/// Senders that are remembered: starts of the control plane, during one start of the agent.
const SENDERS_MAX: usize = 256;

/// The requests that were received under one challenge.
#[derive(Debug, Default)]
pub(super) struct Received(BTreeMap<String, BTreeSet<u64>>);

/// Whether a request is to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receipt {
    New,
    /// It was received before, or may have been.
    Again,
    /// No further sender can be remembered: another challenge is needed.
    Full,
}

impl Received {
    /// Notes a request that the control plane has signed.
    pub(super) fn note(&mut self, sender: Nonce, number: u64) -> Receipt {
        let sender = String::from(sender);
        if !self.0.contains_key(&sender) && self.0.len() >= SENDERS_MAX {
            return Receipt::Full;
        }
        let numbers = self.0.entry(sender).or_default();
        let is_forgotten = numbers.len() >= NUMBERS_MAX && numbers.first().is_some_and(|first| number < *first);
        if is_forgotten || !numbers.insert(number) {
            return Receipt::Again;
        }
        if numbers.len() > NUMBERS_MAX {
            numbers.pop_first();
        }
        Receipt::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(number: u16) -> Nonce {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        Nonce::new(bytes)
    }

    #[test]
    fn nothing_is_received_twice() {
        let mut received = Received::default();
        // Out of order, as requests overtake each other.
        for number in [1, 3, 2, 7, 5] {
            assert_eq!(received.note(sender(0), number), Receipt::New);
        }
        for number in [1, 2, 3, 5, 7] {
            assert_eq!(received.note(sender(0), number), Receipt::Again);
        }
        assert_eq!(received.note(sender(1), 1), Receipt::New, "another start of the control plane");
    }

    #[test]
    fn what_is_forgotten_counts_as_received() {
        let mut received = Received::default();
        let last = 10 * u64::try_from(NUMBERS_MAX).unwrap();
        for number in 1..=last {
            assert_eq!(received.note(sender(0), number), Receipt::New);
        }
        for number in 1..=last {
            assert_eq!(received.note(sender(0), number), Receipt::Again, "{number}");
        }
        assert_eq!(received.note(sender(0), last + 1), Receipt::New);
        assert_eq!(received.0.values().map(BTreeSet::len).sum::<usize>(), NUMBERS_MAX);
    }

    #[test]
    fn senders_are_bounded() {
        let mut received = Received::default();
        for number in 0..u16::try_from(SENDERS_MAX).unwrap() {
            assert_eq!(received.note(sender(number), 1), Receipt::New);
        }
        assert_eq!(received.note(sender(u16::MAX), 1), Receipt::Full);
        assert_eq!(received.note(sender(3), 2), Receipt::New);
    }
}
