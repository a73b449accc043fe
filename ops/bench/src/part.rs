//! A thread with a runtime of its own, so that its sockets can be in a network namespace of their own. Blocking work
//! runs on one more thread, in the namespace that the first was in when that one started. Dropping a [`Part`] cancels
//! its future at the next await and joins the thread.

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
    /// Starts a thread that runs `prepare`, and then the future that this returned. Returns once `prepare` has.
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
        // The panic of a thread has been printed by its hook.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}
