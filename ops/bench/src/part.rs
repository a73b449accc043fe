//! A thread with a runtime of its own, which lets its sockets be in a network namespace of their own. Blocking work has one thread
//! more, which is in the namespace that the first was in when it began. It ends with its
//! guard: what it runs is dropped at its next await, and waited for.

use std::thread::{self, JoinHandle};

use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::Failure;

/// A running part.
pub(crate) struct Part<T> {
    cancel: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    result: oneshot::Receiver<Result<T, Failure>>,
}

impl<T: Send + 'static> Part<T> {
    /// Starts a thread that prepares itself, and comes back when it has; then it runs what the preparation gave.
    pub(crate) fn start<Run: Future<Output = Result<T, Failure>>>(
        name: &str,
        prepare: impl FnOnce() -> Result<Run, Failure> + Send + 'static,
    ) -> Result<Self, Failure> {
        let (cancel, cancelled) = oneshot::channel();
        let (finished, result) = oneshot::channel();
        let (ready, prepared) = std::sync::mpsc::channel();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let runtime = || Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
            let run = prepare().and_then(|run| Ok((run, runtime()?)));
            let told = ready.send(run.as_ref().map(|_| ()).map_err(ToString::to_string));
            if let (Ok((run, runtime)), Ok(())) = (run, told) {
                runtime.block_on(async {
                    tokio::select! {
                        _ = cancelled => {}
                        result = run => { let _nobody_waits = finished.send(result); }
                    }
                });
            }
        })?;
        let part = Self { cancel: Some(cancel), thread: Some(thread), result };
        prepared.recv()??;
        Ok(part)
    }

    /// Waits for the result.
    pub(crate) async fn result(&mut self) -> Result<T, Failure> {
        (&mut self.result).await?
    }
}

impl<T> Drop for Part<T> {
    fn drop(&mut self) {
        drop(self.cancel.take());
        // A thread that panicked has said so itself.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}
