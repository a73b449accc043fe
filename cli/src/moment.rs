//! Moments on the command line: `--since`, `--until`, `--at`, `--from` and `--to`.

use std::time::Duration;

use otherix_runtime::{Runtime, SystemRuntime};
use otherix_schemas::position::Position;
use otherix_schemas::request::AsOf;
use otherix_schemas::timestamp::Timestamp;

use crate::duration;

/// The units of a time ago.
const UNITS: [duration::Unit; 4] = [("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Longest time to look back: ten years.
const LOOK_BACK_MAX: Duration = Duration::from_secs(3_653 * 86_400);

/// A moment on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Position(Position),
    Time(Timestamp),
}

impl Moment {
    /// Parses `all` (position 0), a position, an RFC 3339 time, or how long ago it was.
    ///
    /// # Errors
    /// The rule that the text violates.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let rule =
            || format!("must be a time ago (30s, 10m, 1h, 7d), an RFC 3339 time, a position or `all`, not `{text}`");
        if text == "all" {
            return Ok(Self::Position(Position::ZERO));
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(|number| Self::Position(Position::new(number))).map_err(|_| rule());
        }
        if let Ok(time) = text.parse() {
            return Ok(Self::Time(time));
        }
        let ago = duration::within(text, &UNITS, LOOK_BACK_MAX).map_err(|error| match error {
            duration::DurationError::Syntax => rule(),
            duration::DurationError::Range => "must be 1s to 3653d ago".to_owned(),
        })?;
        duration_ago(ago).map(Self::Time)
    }
}

fn duration_ago(ago: Duration) -> Result<Timestamp, String> {
    let now = SystemRuntime.now().map_err(|error| error.to_string())?;
    let micros = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_unix_micros(now.unix_micros().saturating_sub(micros)).map_err(|error| error.to_string())
}

/// Parses a moment at which the state is looked at: a position, an RFC 3339 time, or how long ago it was.
///
/// # Errors
/// The rule that the text violates.
pub(crate) fn as_of(text: &str) -> Result<AsOf, String> {
    match Moment::parse(text) {
        Ok(Moment::Position(position)) if text != "all" => Ok(AsOf::Position(position)),
        Ok(Moment::Time(time)) => Ok(AsOf::Time(time)),
        Ok(Moment::Position(_)) | Err(_) => {
            Err(format!("must be a position, an RFC 3339 time or a time ago (30s, 10m, 1h, 7d), not `{text}`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_position_a_time_or_a_time_ago() {
        assert_eq!(Moment::parse("all"), Ok(Moment::Position(Position::ZERO)));
        assert_eq!(Moment::parse("42"), Ok(Moment::Position(Position::new(42))));
        let time = "2026-11-01T00:00:00Z";
        assert_eq!(Moment::parse(time), Ok(Moment::Time(time.parse().unwrap())));
        for ago in ["30s", "10m", "1h", "3653d"] {
            assert!(matches!(Moment::parse(ago), Ok(Moment::Time(_))), "{ago}");
        }
        for bad in
            ["", "1", "h", "-1h", "1w", "0s", "3654d", "yesterday", "18446744073709551616", "2026-13-01T00:00:00Z"]
        {
            assert!(bad == "1" || Moment::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_state_is_looked_at_as_of_one_moment() {
        assert_eq!(as_of("42"), Ok(AsOf::Position(Position::new(42))));
        assert!(matches!(as_of("10m"), Ok(AsOf::Time(_))));
        assert!(as_of("all").is_err() && as_of("tomorrow").is_err());
    }
}
