//! A thread with its own runtime, so that its sockets can be in another network namespace. Blocking work runs on a
//! second thread, in the namespace that the first was in when the second started. Dropping a [`BenchThread`] cancels
//! its future at the next await and joins the thread.

use std::thread::{self, JoinHandle};

use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::BenchError;

/// A running thread.
pub(crate) struct BenchThread<T> {
    cancel: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    result: oneshot::Receiver<Result<T, BenchError>>,
}

impl<T: Send + 'static> BenchThread<T> {
    /// Starts a thread that runs `prepare` and then the future that it returned. Returns when `prepare` has returned.
    pub(crate) fn start<Run: Future<Output = Result<T, BenchError>>>(
        name: &str,
        prepare: impl FnOnce() -> Result<Run, BenchError> + Send + 'static,
    ) -> Result<Self, BenchError> {
        let (cancel, cancelled) = oneshot::channel();
        let (finished, result) = oneshot::channel();
        let (ready, prepared) = std::sync::mpsc::channel();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let runtime = || Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
            let run = prepare().and_then(|run| Ok((run, runtime()?)));
            let reported = ready.send(run.as_ref().map(|_| ()).map_err(ToString::to_string));
            if let (Ok((run, runtime)), Ok(())) = (run, reported) {
                runtime.block_on(async {
                    tokio::select! {
                        _ = cancelled => {}
                        result = run => { let _receiver_dropped = finished.send(result); }
                    }
                });
            }
        })?;
        let bench_thread = Self { cancel: Some(cancel), thread: Some(thread), result };
        prepared.recv()??;
        Ok(bench_thread)
    }

    /// Waits for the result.
    pub(crate) async fn result(&mut self) -> Result<T, BenchError> {
        (&mut self.result).await?
    }
}

impl<T> Drop for BenchThread<T> {
    fn drop(&mut self) {
        drop(self.cancel.take());
        // The panic of a thread has been printed by its hook.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}
