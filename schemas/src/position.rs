//! The order of events: position and epoch.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Digits of a position in a CloudEvent: those of the largest `u64`.
const DIGITS: usize = 20;

/// The number of an event in the event store, and its sequence on the stream, from 1. 0 means before the first event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Position(u64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a position of {DIGITS} digits, not `{0}`")]
pub struct PositionError(String);

impl Position {
    /// Before the first event.
    pub const ZERO: Self = Self(0);

    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next position.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The form in CloudEvents: 20 digits, so that text order is numerical order.
    pub fn to_sequence(self) -> String {
        format!("{:020}", self.0)
    }

    /// Parses the form in CloudEvents.
    ///
    /// # Errors
    /// If the text is not 20 digits, or exceeds a `u64`.
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

/// The number of an epoch of the event store, from 1. A new one begins when a backup is restored and later events are
/// given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Epoch(#[schemars(range(min = 1))] u32);

impl Epoch {
    /// The first epoch of every cluster.
    pub const FIRST: Self = Self(1);

    pub const fn new(number: u32) -> Self {
        Self(number)
    }

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
    fn sequence_has_twenty_digits() {
        let last = Position::new(u64::MAX);
        assert_eq!(Position::new(7).to_sequence(), "00000000000000000007");
        assert_eq!(Position::from_sequence(&last.to_sequence()), Ok(last));
        for bad in ["7", "0000000000000000000x", "99999999999999999999", "+0000000000000000007"] {
            assert!(Position::from_sequence(bad).is_err(), "{bad}");
        }
    }
}
