//! The runtime of production processes.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use otherix_schemas::timestamp::{Timestamp, TimestampError};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::{BoxBlocking, BoxFuture, Runtime};

/// The machine's clock, the kernel's random numbers, tokio's tasks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRuntime;

impl SystemRuntime {
    /// Returns the runtime as a shared trait object.
    pub fn shared() -> Arc<dyn Runtime> {
        Arc::new(Self)
    }
}

impl Runtime for SystemRuntime {
    fn now(&self) -> Result<Timestamp, TimestampError> {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
        };
        Timestamp::from_unix_micros(micros)
    }

    #[expect(
        clippy::expect_used,
        reason = "getrandom(2) fails only on kernels older than 3.17; without it no id would be unique"
    )]
    fn fill_random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the kernel has getrandom(2)");
    }

    /// Within a process, each is greater than the previous one, unless the clock is before 1970.
    fn uuid_v7(&self) -> Uuid {
        if SystemTime::now() >= UNIX_EPOCH {
            return Uuid::now_v7();
        }
        // `now_v7` panics before 1970.
        let mut random = [0; 10];
        self.fill_random(&mut random);
        uuid::Builder::from_unix_timestamp_millis(0, &random).into_uuid()
    }

    fn spawn_boxed(&self, name: &'static str, task: BoxFuture) -> JoinHandle<()> {
        tracing::trace!(name, "task spawned");
        tokio::spawn(task)
    }

    fn spawn_blocking_boxed(&self, name: &'static str, work: BoxBlocking) -> JoinHandle<()> {
        tracing::trace!(name, "blocking work spawned");
        tokio::task::spawn_blocking(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v7_uuids_increase() {
        let ids: Vec<Uuid> = (0..1000).map(|_| SystemRuntime.uuid_v7()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
    }

    #[test]
    fn random_values_differ() {
        assert_eq!(SystemRuntime.uuid_v4().get_version_num(), 4);
        assert_ne!(SystemRuntime.uuid_v4(), SystemRuntime.uuid_v4());
        assert_ne!(SystemRuntime.random_u64(), SystemRuntime.random_u64());
    }

    #[tokio::test]
    async fn tasks_resolve_to_their_output() {
        let runtime = SystemRuntime::shared();
        assert_eq!(runtime.spawn("sum", async { 1 + 1 }).await.unwrap(), 2);
        assert_eq!(runtime.run_blocking("sum", || 2 + 2).await.unwrap(), 4);
        let endless = runtime.spawn("endless", std::future::pending::<()>());
        endless.abort();
        assert!(endless.await.unwrap_err().is_cancelled());
    }

    #[tokio::test]
    async fn a_panic_is_a_join_error() {
        let task = SystemRuntime::shared().run_blocking("panics", || panic!("expected in the test's output"));
        let result: Result<(), _> = task.await;
        assert!(result.unwrap_err().is_panic());
    }
}
