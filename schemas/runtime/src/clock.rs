//! Whether the machine's clock can be right.

use otherix_schemas::timestamp::{Timestamp, TimestampError};

use crate::Runtime;

/// 2025-01-01, before the first version, in microseconds since 1970.
const FIRST: i64 = 1_735_689_600_000_000;

/// 2100-01-01.
const END: i64 = 4_102_444_800_000_000;

/// The machine's clock is wrong. What is recorded with such a time stays in the history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    #[error("the machine's clock cannot be right: it says {0}")]
    Wrong(Timestamp),
    #[error("the machine's clock cannot be right")]
    Unusable(#[from] TimestampError),
}

impl ClockError {
    /// What to do.
    pub const HINT: &str =
        "set the clock, for example with `timedatectl set-ntp true` or `date --set`, and start again";
}

/// Checks that the clock says a time from 2025 to 2099. One that was never set says 1970.
///
/// # Errors
/// If it does not.
pub fn check_clock(runtime: &dyn Runtime) -> Result<(), ClockError> {
    let now = runtime.now()?;
    if (FIRST..END).contains(&now.unix_micros()) { Ok(()) } else { Err(ClockError::Wrong(now)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededRuntime;

    #[test]
    fn a_clock_that_was_never_set_or_is_far_ahead_is_wrong() {
        let runtime = SeededRuntime::new(1);
        for (time, is_right) in [
            ("1969-12-31T23:59:59Z", false),
            ("1970-01-01T00:00:03Z", false),
            ("2024-12-31T23:59:59.999999Z", false),
            ("2025-01-01T00:00:00Z", true),
            ("2099-12-31T23:59:59.999999Z", true),
            ("2100-01-01T00:00:00Z", false),
            ("9999-12-31T23:59:59Z", false),
        ] {
            runtime.set_time(time.parse().unwrap());
            assert_eq!(check_clock(&*runtime).is_ok(), is_right, "{time}");
        }
    }
}
