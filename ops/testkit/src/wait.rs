//! Waits for a condition with a deadline. Polls at a short interval, so that a test continues promptly.
//!
//! Cancel-safety: [`wait_for`] holds nothing between two polls. At the deadline it drops a condition that is still
//! running.

use std::{
    fmt::Debug,
    thread,
    time::{Duration, Instant},
};

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The result of a condition: the value waited for, or what was observed instead.
pub trait Observation {
    type Value;

    /// Returns the value, or what was observed instead, for the message at the deadline.
    ///
    /// # Errors
    /// The condition does not hold yet.
    fn into_result(self) -> Result<Self::Value, String>;
}

impl<T> Observation for Option<T> {
    type Value = T;

    fn into_result(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".to_owned())
    }
}

impl<T, E: Debug> Observation for Result<T, E> {
    type Value = T;

    fn into_result(self) -> Result<T, String> {
        self.map_err(|observed| format!("{observed:?}"))
    }
}

impl Observation for bool {
    type Value = ();

    fn into_result(self) -> Result<(), String> {
        self.then_some(()).ok_or_else(|| "false".to_owned())
    }
}

/// Polls `condition` until it returns a value: `Some(value)`, `Ok(value)` or `true`.
///
/// Prefer `Err(observed)` for "not yet": the panic at the deadline shows the last observation.
///
/// # Panics
/// When `deadline` has passed, naming `what` and the last observation.
pub async fn wait_for<O: Observation>(
    deadline: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> O,
) -> O::Value {
    let end = tokio::time::Instant::now() + deadline;
    let mut last = "nothing: the condition did not return".to_owned();
    while let Ok(observation) = tokio::time::timeout_at(end, condition()).await {
        match observation.into_result() {
            Ok(value) => return value,
            Err(observed) => last = observed,
        }
        if tokio::time::Instant::now() >= end {
            break;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    panic!("waited {deadline:?} for {what}; last observed: {last}")
}

/// [`wait_for`] without a runtime. It cannot interrupt a condition that blocks.
///
/// # Panics
/// When `deadline` has passed, naming `what` and the last observation.
#[track_caller]
pub fn wait_for_blocking<O: Observation>(deadline: Duration, what: &str, mut condition: impl FnMut() -> O) -> O::Value {
    let end = Instant::now() + deadline;
    loop {
        let last = match condition().into_result() {
            Ok(value) => return value,
            Err(observed) => observed,
        };
        if Instant::now() >= end {
            panic!("waited {deadline:?} for {what}; last observed: {last}");
        }
        thread::sleep(POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returns_as_soon_as_the_condition_holds() {
        let mut polls = 0;
        let value = wait_for(Duration::from_secs(60), "three polls", async || {
            polls += 1;
            (polls == 3).then_some(polls)
        })
        .await;
        assert_eq!(value, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "for the bridge; last observed: \"state DOWN\"")]
    async fn names_what_and_the_last_observation() {
        let condition = async || Err::<(), _>("state DOWN");
        wait_for(Duration::from_millis(30), "the bridge", condition).await;
    }

    #[tokio::test]
    #[should_panic(expected = "for an answer; last observed: nothing")]
    async fn drops_a_condition_that_never_returns() {
        let condition = async || std::future::pending::<bool>().await;
        wait_for(Duration::from_millis(30), "an answer", condition).await;
    }

    #[test]
    #[should_panic(expected = "for the file; last observed: false")]
    fn blocking_variant_has_a_deadline() {
        wait_for_blocking(Duration::from_millis(30), "the file", || false);
    }
}
