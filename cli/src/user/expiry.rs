//! `--expires`: for how long a credential is valid.

use std::time::Duration;

use otherix_runtime::{Runtime, SystemRuntime};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::NEVER;

use crate::exit::Exit;
use crate::failure::Failure;

/// Longest validity that is not unlimited: ten years, in seconds.
const MAX_SECONDS: u64 = 3653 * 86_400;

/// For how long a credential is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Validity {
    Unlimited,
    For(Duration),
}

impl Validity {
    /// Parses a whole number and a unit (`m`, `h`, `d`), or `never`.
    ///
    /// # Errors
    /// The rule that the text violates.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == NEVER {
            return Ok(Self::Unlimited);
        }
        let syntax = || "must be a whole number with a unit (m, h, d), such as 90d, or `never`".to_owned();
        let range = || "must be 1m to 3653d, or `never`".to_owned();
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(syntax)?;
        let (number, unit) = text.split_at_checked(digits).ok_or_else(syntax)?;
        let unit_seconds: u64 = match unit {
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(syntax()),
        };
        if number.is_empty() {
            return Err(syntax());
        }
        let number: u64 = number.parse().map_err(|_| range())?;
        let seconds = number.checked_mul(unit_seconds).filter(|seconds| (1..=MAX_SECONDS).contains(seconds));
        seconds.map(Duration::from_secs).map(Self::For).ok_or_else(range)
    }

    /// When a credential that is issued now expires; `None`: never.
    pub(super) fn expires_at(self) -> Result<Option<Timestamp>, Failure> {
        let Self::For(duration) = self else { return Ok(None) };
        let unusable = |error: String| {
            Failure::new(Exit::Unexpected, ErrorCode::Internal, format!("cannot read the clock: {error}"))
        };
        let now = SystemRuntime.now().map_err(|error| unusable(error.to_string()))?;
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        let expires_at = Timestamp::from_unix_micros(now.unix_micros().saturating_add(micros));
        expires_at.map(Some).map_err(|error| unusable(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requires_number_and_unit_or_never() {
        let days = |days: u64| Ok(Validity::For(Duration::from_secs(days * 86_400)));
        assert_eq!(Validity::parse("90d"), days(90));
        assert_eq!(Validity::parse("48h"), days(2));
        assert_eq!(Validity::parse("1440m"), days(1));
        assert_eq!(Validity::parse("never"), Ok(Validity::Unlimited));
        for bad in ["", "d", "90", "-1d", "1.5d", "1 d", "5s", "1y", "Never", "ü"] {
            assert!(Validity::parse(bad).unwrap_err().contains("unit"), "{bad}");
        }
        for bad in ["0d", "3654d", "99999999999999999999d", "18446744073709551615d"] {
            assert!(Validity::parse(bad).unwrap_err().contains("3653d"), "{bad}");
        }
    }
}
