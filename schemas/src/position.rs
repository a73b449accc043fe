//! Where an event stands: in the journal and the stream, and in its own aggregate's history.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Digits of a position in a CloudEvent: as many as the largest `u64` has.
const DIGITS: usize = 20;

/// A place in the journal, and so the sequence in the stream. The first event is at 1; 0 stands
/// for "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Position(u64);

/// A text that is no position of 20 digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a position of {DIGITS} digits, not `{0}`")]
pub struct PositionError(String);

impl Position {
    /// Before the first event.
    pub const ZERO: Self = Self(0);

    /// The place with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The place after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// As CloudEvents carry it: 20 digits, so that text order is number order.
    pub fn to_sequence(self) -> String {
        format!("{:020}", self.0)
    }

    /// Back from [`Position::to_sequence`].
    ///
    /// # Errors
    /// When the text is not exactly 20 digits of a `u64`.
    pub fn from_sequence(text: &str) -> Result<Self, PositionError> {
        let error = || PositionError(text.to_owned());
        if text.len() != DIGITS || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        text.parse().map(Self).map_err(|_| error())
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Which life of the journal an event belongs to: a new one begins when a backup is restored
/// although later events had been acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Epoch(u32);

impl Epoch {
    /// Where every cluster begins.
    pub const FIRST: Self = Self(1);

    /// The epoch with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_have_twenty_digits_both_ways() {
        let last = Position::new(u64::MAX);
        assert_eq!(Position::new(7).to_sequence(), "00000000000000000007");
        assert_eq!(Position::from_sequence(&last.to_sequence()), Ok(last));
        for bad in ["7", "0000000000000000000x", "99999999999999999999", "+0000000000000000007"] {
            assert!(Position::from_sequence(bad).is_err(), "{bad}");
        }
    }
}
