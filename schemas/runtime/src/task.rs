//! The handle of a spawned task, and sets of tasks.

use std::future::{Future, poll_fn};
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

/// Spawned tasks that belong together. When the set is dropped, they are aborted.
#[derive(Debug)]
pub struct TaskSet<T>(Vec<Task<T>>);

impl<T> Default for TaskSet<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> TaskSet<T> {
    /// Adds a task.
    pub fn add(&mut self, task: Task<T>) {
        self.0.push(task);
    }

    /// Returns whether every task was joined.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits for a task to end, and removes it. `None` if the set is empty.
    ///
    /// Cancel-safety: if this is dropped, no task is removed.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        poll_fn(|context| {
            if self.0.is_empty() {
                return Poll::Ready(None);
            }
            let ended = self.0.iter_mut().enumerate().find_map(|(index, task)| match Pin::new(task).poll(context) {
                Poll::Ready(output) => Some((index, output)),
                Poll::Pending => None,
            });
            match ended {
                Some((index, output)) => {
                    drop(self.0.swap_remove(index));
                    Poll::Ready(Some(output))
                }
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl<T> Drop for TaskSet<T> {
    fn drop(&mut self) {
        self.0.iter().for_each(Task::abort);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::SystemRuntime;

    #[tokio::test]
    async fn tasks_of_a_set_are_joined_as_they_end() {
        let runtime = SystemRuntime::shared();
        let (release, released) = oneshot::channel::<()>();
        let mut tasks = TaskSet::default();
        tasks.add(runtime.spawn("second", async { released.await.map_or(0, |()| 2) }));
        tasks.add(runtime.spawn("first", async { 1 }));
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), 1);
        release.send(()).unwrap();
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), 2);
        assert!(tasks.is_empty() && tasks.join_next().await.is_none());
    }

    #[tokio::test]
    async fn dropping_a_set_aborts_its_tasks() {
        let (alive, ended) = oneshot::channel::<()>();
        let mut tasks = TaskSet::default();
        let task = async move {
            let _alive = alive;
            pending::<()>().await;
        };
        tasks.add(SystemRuntime::shared().spawn("endless", task));
        drop(tasks);
        assert!(ended.await.is_err());
    }
}
