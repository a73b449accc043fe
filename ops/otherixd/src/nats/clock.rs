//! The clock, as JWTs have it.

use otherix_runtime::{Runtime, SystemRuntime};

use super::error::NatsError;

/// The Unix time in seconds.
pub(crate) fn unix_now() -> Result<u64, NatsError> {
    let now = SystemRuntime.now().map_err(|_| NatsError::Clock)?;
    u64::try_from(now.unix_micros() / 1_000_000).map_err(|_| NatsError::Clock)
}
