//! When a query looks at the state.

use std::fmt;
use std::str::FromStr;

use crate::position::Position;
use crate::timestamp::Timestamp;

/// A moment of the past: after the event at a position, or after the last event at or before a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    Position(Position),
    Time(Timestamp),
}

/// A text that is not a moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a position or an RFC 3339 time")]
pub struct AsOfError;

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Position(position) => position.fmt(f),
            Self::Time(time) => time.fmt(f),
        }
    }
}

impl FromStr for AsOf {
    type Err = AsOfError;

    fn from_str(text: &str) -> Result<Self, AsOfError> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // The stores' integers are signed.
            let number = text.parse().ok().filter(|number| i64::try_from(*number).is_ok());
            return number.map(|number| Self::Position(Position::new(number))).ok_or(AsOfError);
        }
        text.parse().map(Self::Time).map_err(|_| AsOfError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_position_or_a_time() {
        assert_eq!("42".parse(), Ok(AsOf::Position(Position::new(42))));
        let time = "2026-11-01T00:00:00.000001Z";
        assert_eq!(time.parse(), Ok(AsOf::Time(time.parse().unwrap())));
        for moment in ["0", "9223372036854775807", time] {
            assert_eq!(moment.parse::<AsOf>().unwrap().to_string(), moment);
        }
        for bad in ["", "-1", "+1", "1.5", "9223372036854775808", "1h", "now", "2026-11-01"] {
            assert_eq!(bad.parse::<AsOf>(), Err(AsOfError), "{bad}");
        }
    }
}
