//! The handle of a spawned task.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};

/// A spawned task. Resolves to its output, or to the [`JoinError`] of a task that panicked or was aborted.
///
/// Cancel-safety: dropping a `Task` detaches it; it continues to run.
#[derive(Debug)]
pub struct Task<T> {
    handle: JoinHandle<()>,
    output: Option<oneshot::Receiver<T>>,
    received: Option<T>,
}

impl<T> Task<T> {
    pub(crate) fn start(spawn: impl FnOnce(oneshot::Sender<T>) -> JoinHandle<()>) -> Self {
        let (sender, receiver) = oneshot::channel();
        Self { handle: spawn(sender), output: Some(receiver), received: None }
    }

    /// Ends the task at its next await point. Blocking work that has begun is not interrupted.
    pub fn abort(&self) {
        self.handle.abort();
    }

    /// Returns whether the task has completed, panicked or been aborted.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

// The output is stored by value and never pinned.
impl<T> Unpin for Task<T> {}

impl<T> Future for Task<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(output) = &mut self.output {
            match Pin::new(output).poll(context) {
                Poll::Ready(Ok(output)) => {
                    self.output = None;
                    self.received = Some(output);
                }
                // The task ended without an output: its handle returns the reason.
                Poll::Ready(Err(_)) => self.output = None,
                Poll::Pending => return Poll::Pending,
            }
        }
        // A task that has sent its output is about to end.
        match Pin::new(&mut self.handle).poll(context) {
            Poll::Ready(Err(error)) if self.received.is_none() => Poll::Ready(Err(error)),
            Poll::Ready(_) => match self.received.take() {
                Some(output) => Poll::Ready(Ok(output)),
                // Polled again after it resolved: like a fused future, it never resolves again.
                None => Poll::Pending,
            },
            Poll::Pending => Poll::Pending,
        }
    }
}
