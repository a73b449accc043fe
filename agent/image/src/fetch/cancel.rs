//! Cancellation of downloads from another thread.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Cancels a download; clones belong together. A read that waits for the server ends at once; the resolution of a name
/// and connecting end with their time-outs.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    cancelled: bool,
    /// Whose connections are closed upon cancellation.
    agent: Option<ureq::Agent>,
}

impl Cancel {
    /// Cancels; it cannot be taken back.
    pub fn cancel(&self) {
        let mut state = self.lock();
        state.cancelled = true;
        let agent = state.agent.take();
        drop(state);
        self.0.changed.notify_all();
        if let Some(agent) = agent {
            agent.shutdown();
        }
    }

    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// Closes the connections of this agent upon cancellation. False if it was cancelled before.
    pub(super) fn attach(&self, agent: &ureq::Agent) -> bool {
        let mut state = self.lock();
        state.agent = Some(agent.clone());
        !state.cancelled
    }

    /// There are no more connections to close.
    pub(super) fn detach(&self) {
        self.lock().agent = None;
    }

    /// Waits, and returns whether it was cancelled meanwhile or before.
    pub(crate) fn wait(&self, duration: Duration) -> bool {
        let state = self.lock();
        let waited = self.0.changed.wait_timeout_while(state, duration, |state| !state.cancelled);
        waited.unwrap_or_else(PoisonError::into_inner).0.cancelled
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
