//! Everything nondeterministic that the product's logic needs, behind one interface: [`Runtime`] supplies wall-clock
//! time, randomness and task spawning. Production code runs on [`SystemRuntime`]; tests and simulations run on
//! [`SeededRuntime`], which produces the same values for the same seed.
//!
//! Two helpers that several processes share are also here: [`Backoff`], the delays between retries, and [`files`],
//! small files that are replaced atomically.
//!
//! Timers are not part of the interface. Code waits with [`tokio::time`] and measures intervals with
//! [`tokio::time::Instant`]; under a paused tokio clock (`start_paused`, `tokio::time::pause`) both are virtual.

mod backoff;
mod clock;
#[cfg(unix)]
pub mod files;
mod log_limit;
mod seeded;
mod system;
mod task;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use otherix_schemas::timestamp::{Timestamp, TimestampError};
use tokio::task::JoinHandle;
use uuid::Uuid;

pub use backoff::Backoff;
pub use clock::{ClockError, check_clock};
pub use log_limit::{LogLimit, LogLimits};
pub use seeded::SeededRuntime;
pub use system::SystemRuntime;
pub use task::{Task, TaskSet};

/// A future that a [`Runtime`] can spawn.
pub type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A blocking closure that a [`Runtime`] can run.
pub type BoxBlocking = Box<dyn FnOnce() + Send>;

/// The source of wall-clock time, randomness and tasks.
///
/// Passed as `Arc<dyn Runtime>`, so that types that hold one need no type parameter. `spawn` and `run_blocking`, which
/// are generic, are inherent methods of `dyn Runtime`.
pub trait Runtime: Debug + Send + Sync {
    /// Returns the wall-clock time.
    ///
    /// # Errors
    /// [`TimestampError::Range`] if the clock is set to a year outside 0 to 9999.
    fn now(&self) -> Result<Timestamp, TimestampError>;

    /// Fills `bytes` with random bytes. Not for keys: code that generates keys reads the kernel's random numbers itself
    /// and handles the error.
    fn fill_random(&self, bytes: &mut [u8]);

    /// Returns a version 7 UUID: the wall-clock time in milliseconds, then random bits.
    fn uuid_v7(&self) -> Uuid;

    /// Spawns a task. The name identifies the task in traces; it need not be unique.
    fn spawn_boxed(&self, name: &'static str, task: BoxFuture) -> JoinHandle<()>;

    /// Runs a closure that may block the thread, away from the threads that run tasks.
    fn spawn_blocking_boxed(&self, name: &'static str, work: BoxBlocking) -> JoinHandle<()>;

    /// Returns a version 4 UUID: random bits only.
    fn uuid_v4(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.fill_random(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// Returns a random number; all values are equally likely.
    fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_random(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

impl dyn Runtime {
    /// Spawns a future and returns the task, which resolves to the future's output. As with tokio's tasks, dropping the
    /// [`Task`] detaches it: the future continues to run.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> Task<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        Task::start(|output| {
            let future = async move {
                // Without a receiver the task is detached, and its output is not needed.
                let _detached = output.send(future.await);
            };
            self.spawn_boxed(name, Box::pin(future))
        })
    }

    /// Runs a closure that may block, such as one that writes files, and returns the task that resolves to its result.
    pub fn run_blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Task<T> {
        Task::start(|output| {
            let work = move || {
                // As in `spawn`.
                let _detached = output.send(work());
            };
            self.spawn_blocking_boxed(name, Box::new(work))
        })
    }
}
