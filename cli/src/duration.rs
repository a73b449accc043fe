//! Durations on the command line: `90s`, `500ms`, `2m`, `1h`.

use std::time::Duration;

/// Longest wait: a day.
const MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Parses a duration: a whole number and a unit, from 1 ms to [`MAX`].
///
/// # Errors
/// The rule that the text violates.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let syntax = || "must be a whole number with a unit (ms, s, m, h), such as 90s".to_owned();
    let range = || "must be 1ms to 24h".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(syntax)?;
    let (number, unit) = text.split_at_checked(digits).ok_or_else(syntax)?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(syntax()),
    };
    if number.is_empty() {
        return Err(syntax());
    }
    let number: u64 = number.parse().map_err(|_| range())?;
    let duration = Duration::from_millis(number.checked_mul(unit_ms).ok_or_else(range)?);
    if duration.is_zero() || duration > MAX { Err(range()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requires_number_and_unit() {
        assert_eq!(parse("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("24h"), Ok(MAX));
        for bad in ["", "s", "60", "-1s", "1.5s", "1 s", "1d", "60S", "ü"] {
            assert!(parse(bad).unwrap_err().contains("unit"), "{bad}");
        }
        for bad in ["0s", "25h", "99999999999999999999h", "18446744073709551615h"] {
            assert!(parse(bad).unwrap_err().contains("24h"), "{bad}");
        }
    }
}
