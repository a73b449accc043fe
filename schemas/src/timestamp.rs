//! Timestamps: RFC 3339, in UTC, with microseconds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::format_description::FormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

const FORMAT: &[FormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// A time in UTC with microseconds, such as `2026-01-02T03:04:05.000006Z` (RFC 3339).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(
    with = "String",
    extend("pattern" = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$")
)]
pub struct Timestamp(OffsetDateTime);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    #[error("must be an RFC 3339 time, not `{0}`")]
    Syntax(String),
    /// The year does not have four digits.
    #[error("`{0}` microseconds since 1970 are out of range")]
    Range(i64),
}

impl Timestamp {
    /// From microseconds since the Unix epoch.
    ///
    /// # Errors
    /// If the year does not have four digits.
    pub fn from_unix_micros(micros: i64) -> Result<Self, TimestampError> {
        let error = TimestampError::Range(micros);
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).map_err(|_| error.clone())?;
        if (0..=9999).contains(&time.year()) { Ok(Self(time)) } else { Err(error) }
    }

    /// Microseconds since the Unix epoch.
    pub fn unix_micros(self) -> i64 {
        self.0.unix_timestamp() * 1_000_000 + i64::from(self.0.microsecond())
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.format(FORMAT).map_err(|_| std::fmt::Error)?)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = TimestampError;
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let time = OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|_| TimestampError::Syntax(text.to_owned()))?
            .to_offset(UtcOffset::UTC);
        let micros = time.unix_timestamp() * 1_000_000 + i64::from(time.microsecond());
        Self::from_unix_micros(micros)
    }
}

impl TryFrom<String> for Timestamp {
    type Error = TimestampError;
    fn try_from(text: String) -> Result<Self, TimestampError> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> String {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn formats_in_utc_with_microseconds() {
        let time: Timestamp = "2026-01-02T04:04:05.0000069+01:00".parse().unwrap();
        assert_eq!(time.to_string(), "2026-01-02T03:04:05.000006Z");
        assert!("yesterday".parse::<Timestamp>().is_err());
        assert!(Timestamp::from_unix_micros(i64::MAX).is_err());
    }

    proptest! {
        #[test]
        fn text_and_number_round_trip(micros in -62_000_000_000_000_000i64..250_000_000_000_000_000) {
            let time = Timestamp::from_unix_micros(micros).unwrap();
            prop_assert_eq!(time.unix_micros(), micros);
            prop_assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        }
    }
}
