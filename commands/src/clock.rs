//! The clock. Decisions never read it: the writer passes them what it says.

use std::time::{SystemTime, UNIX_EPOCH};

use otherix_schemas::timestamp::{Timestamp, TimestampError};

/// The time now.
///
/// # Errors
/// When the machine's clock stands outside of the years 0 to 9999.
pub fn now() -> Result<Timestamp, TimestampError> {
    let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
    };
    Timestamp::from_unix_micros(micros)
}
