//! A closed loop: a fixed number of commands in flight, each replaced as soon as it is acknowledged.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use rustix::time::{ClockId, clock_gettime};

use crate::BenchError;

/// The rate at which commands were acknowledged, and the load of the thread that sent them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) per_second: f64,
    /// Processor time of the client's thread, as a fraction of the time measured.
    pub(super) client: f64,
}

/// How long commands are sent before they are counted.
const WARM_UP: Duration = Duration::from_millis(500);

/// Keeps `in_flight` commands in flight for [`WARM_UP`] and then `duration`, and returns the rate of the latter.
/// `command` is called with the number of its slot, and resolves when the command is acknowledged as durable.
pub(super) async fn measure<Command: Future<Output = Result<(), BenchError>>>(
    in_flight: u32,
    duration: Duration,
    command: impl Fn(u32) -> Command,
) -> Result<Rate, BenchError> {
    let begin = Instant::now() + WARM_UP;
    let end = begin + duration;
    let acknowledged = Cell::new(0_u32);
    let busy = Cell::new(None);
    let slots = (0..in_flight).map(|slot| {
        let (command, acknowledged, busy) = (&command, &acknowledged, &busy);
        async move {
            loop {
                command(slot).await?;
                let now = Instant::now();
                if now >= end {
                    return Ok::<(), BenchError>(());
                }
                if now >= begin {
                    if busy.get().is_none() {
                        busy.set(Some(thread_time()));
                    }
                    acknowledged.set(acknowledged.get() + 1);
                }
            }
        }
    });
    try_join_all(slots).await?;
    let spent = thread_time().saturating_sub(busy.get().ok_or("no command was acknowledged in time")?);
    let seconds = duration.as_secs_f64();
    Ok(Rate { per_second: f64::from(acknowledged.get()) / seconds, client: spent.as_secs_f64() / seconds })
}

/// Sends `count` commands, numbered from 0, with `in_flight` of them in flight at a time.
pub(super) async fn send<Command: Future<Output = Result<(), BenchError>>>(
    count: u32,
    in_flight: u32,
    command: impl Fn(u32) -> Command,
) -> Result<(), BenchError> {
    let next = Cell::new(0);
    let slots = (0..in_flight).map(|_| {
        let (command, next) = (&command, &next);
        async move {
            while next.get() < count {
                let number = next.replace(next.get() + 1);
                command(number).await?;
            }
            Ok::<(), BenchError>(())
        }
    });
    try_join_all(slots).await?;
    Ok(())
}

/// Processor time of this thread so far.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sends_each_number_once() {
        let sent = Cell::new(0);
        send(100, 8, |number| {
            sent.set(sent.get() + number);
            async { Ok(()) }
        })
        .await
        .unwrap();
        assert_eq!(sent.get(), 4950);
    }

    #[tokio::test]
    async fn measures_acknowledged_commands() {
        let rate = measure(10, Duration::from_millis(500), |_| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(())
        })
        .await
        .unwrap();
        assert!((50.0..=200.0).contains(&rate.per_second), "{rate:?}");
        measure(1, Duration::from_millis(1), |_| async { Err("refused".into()) }).await.unwrap_err();
    }
}
