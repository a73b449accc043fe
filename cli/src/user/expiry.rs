//! `--expires`: for how long a credential is valid.

use std::time::Duration;

use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::NEVER;

use crate::duration::{self, DurationError, Unit};
use crate::failure::Failure;

/// The units of validities.
const UNITS: [Unit; 3] = [("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Longest validity that is not unlimited: ten years.
const MAX: Duration = Duration::from_secs(3653 * 86_400);

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
        duration::within(text, &UNITS, MAX).map(Self::For).map_err(|error| match error {
            DurationError::Syntax => "must be a whole number with a unit (m, h, d), such as 90d, or `never`".to_owned(),
            DurationError::Range => "must be 1m to 3653d, or `never`".to_owned(),
        })
    }

    /// When a credential that is issued now expires; `None`: never.
    pub(super) fn expires_at(self) -> Result<Option<Timestamp>, Failure> {
        match self {
            Self::Unlimited => Ok(None),
            Self::For(duration) => duration::from_now(duration).map(Some),
        }
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
