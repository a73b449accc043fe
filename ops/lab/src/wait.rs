//! Waiting for a condition, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use crate::error::LabError;

const POLL: Duration = Duration::from_millis(20);

/// Polls `condition` until it is true. Fails at the deadline, or with the first error of `condition`.
pub(crate) fn wait_for(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<bool, LabError>,
) -> Result<(), LabError> {
    let end = Instant::now() + deadline;
    while !condition()? {
        if Instant::now() >= end {
            return Err(LabError::TimedOut { what: what.to_owned(), waited: deadline });
        }
        thread::sleep(POLL);
    }
    Ok(())
}
