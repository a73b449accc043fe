//! Durations on the command line: `90s`, `500ms`, `2m`, `1h`, `90d`.

use std::time::Duration;

use otherix_runtime::{Runtime, SystemRuntime};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::timestamp::Timestamp;

use crate::exit::Exit;
use crate::failure::Failure;

/// A unit of durations: its name, and its length in milliseconds.
pub(crate) type Unit = (&'static str, u64);

/// The units of waits.
const WAIT_UNITS: [Unit; 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Longest wait: a day.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DurationError {
    /// It is not a whole number with one of the units.
    Syntax,
    /// It is zero, or longer than permitted.
    Range,
}

/// Parses a wait: a whole number and a unit, from 1 ms to 24 h.
///
/// # Errors
/// The rule that the text violates.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    within(text, &WAIT_UNITS, WAIT_MAX).map_err(|error| match error {
        DurationError::Syntax => "must be a whole number with a unit (ms, s, m, h), such as 90s".to_owned(),
        DurationError::Range => "must be 1ms to 24h".to_owned(),
    })
}

/// Parses a whole number with one of the units, greater than zero and at most `max`.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn within(text: &str, units: &[Unit], max: Duration) -> Result<Duration, DurationError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(DurationError::Syntax)?;
    let (number, unit) = text.split_at_checked(digits).ok_or(DurationError::Syntax)?;
    let unit = units.iter().find(|(name, _)| *name == unit).filter(|_| !number.is_empty());
    let (_, unit_ms) = unit.ok_or(DurationError::Syntax)?;
    let number: u64 = number.parse().map_err(|_| DurationError::Range)?;
    let duration = Duration::from_millis(number.checked_mul(*unit_ms).ok_or(DurationError::Range)?);
    if duration.is_zero() || duration > max { Err(DurationError::Range) } else { Ok(duration) }
}

/// The time that is so much later than now.
///
/// # Errors
/// If the machine's clock is out of range.
pub(crate) fn from_now(duration: Duration) -> Result<Timestamp, Failure> {
    let unusable =
        |error: String| Failure::new(Exit::Unexpected, ErrorCode::Internal, format!("cannot read the clock: {error}"));
    let now = SystemRuntime.now().map_err(|error| unusable(error.to_string()))?;
    let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    let later = Timestamp::from_unix_micros(now.unix_micros().saturating_add(micros));
    later.map_err(|error| unusable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requires_number_and_unit() {
        assert_eq!(parse("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("24h"), Ok(WAIT_MAX));
        for bad in ["", "s", "60", "-1s", "1.5s", "1 s", "1d", "60S", "ü"] {
            assert!(parse(bad).unwrap_err().contains("unit"), "{bad}");
        }
        for bad in ["0s", "25h", "99999999999999999999h", "18446744073709551615h"] {
            assert!(parse(bad).unwrap_err().contains("24h"), "{bad}");
        }
    }
}
