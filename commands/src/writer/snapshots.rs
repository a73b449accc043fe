//! When state snapshots are saved: outside the write path, from a separate copy of the state.
//!
//! The state is not copied from the writer, which would stop it for as long as that takes. Instead the last snapshot is
//! loaded and the events after it are replayed, on a thread of its own; the digest chain of those events is verified
//! again on the way.
//!
//! Cancel-safety: dropped, the snapshot that is being saved is not completed, and the one before stays.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use otherix_runtime::Runtime;
use otherix_schemas::error::Causes;
use otherix_schemas::position::Position;
use tokio::sync::watch;
use tokio::time::timeout;

use super::run::Durable;
use crate::store::{EventStore, LoadError, Replayed, load, snapshot};

/// Events after which a snapshot is saved while more are stored: half a second's work to replay.
const EVENTS: u64 = 50_000;

/// Events after which it is saved if no event follows for [`QUIET`].
const EVENTS_QUIET: u64 = 5_000;

const QUIET: Duration = Duration::from_secs(5);

/// Events after which it is saved when the writer ends.
const EVENTS_STOPPED: u64 = 1_000;

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(60);

/// The position of the last state snapshot.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    saved: AtomicU64,
}

impl Snapshots {
    pub(super) fn new(saved: Position) -> Self {
        Self { saved: AtomicU64::new(saved.get()) }
    }

    /// Returns how many events follow the last snapshot.
    fn events_since(&self, head: Position) -> u64 {
        head.get().saturating_sub(self.saved.load(Ordering::Relaxed))
    }

    /// Saves snapshots while the writer stores events, until it is dropped.
    pub(super) async fn keep_saving<S: EventStore>(
        &self,
        store: Arc<S>,
        runtime: Arc<dyn Runtime>,
        mut durable: watch::Receiver<Durable>,
    ) -> Infallible {
        loop {
            self.wait_until_due(&mut durable).await;
            let (store, handle) = (Arc::clone(&store), tokio::runtime::Handle::current());
            let saving = runtime.run_blocking("state snapshot", move || handle.block_on(save(store.as_ref())));
            match saving.await {
                Ok(Ok(position)) => self.saved.store(position.get(), Ordering::Relaxed),
                Ok(Err(error)) => {
                    tracing::warn!(error = %Causes(&error), "cannot save a state snapshot");
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => {
                    tracing::error!(%error, "saving a state snapshot panicked");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn wait_until_due(&self, durable: &mut watch::Receiver<Durable>) {
        loop {
            let events = self.events_since(durable.borrow_and_update().position);
            if events >= EVENTS {
                return;
            }
            match timeout(QUIET, durable.changed()).await {
                Ok(Ok(())) => {}
                // The writer has ended: it saves its state itself.
                Ok(Err(_)) => std::future::pending().await,
                Err(_) if events >= EVENTS_QUIET => return,
                Err(_) => {}
            }
        }
    }

    /// Saves the state of a writer that has ended, if enough events follow the last snapshot.
    pub(super) async fn save_at_end<S: EventStore>(&self, store: &S, replayed: &Replayed) {
        if self.events_since(replayed.state.position()) < EVENTS_STOPPED {
            return;
        }
        if let Err(error) = snapshot::save(store, replayed).await {
            tracing::warn!(error = %Causes(&error), "cannot save a state snapshot; the next start replays more events");
        }
    }
}

async fn save<S: EventStore>(store: &S) -> Result<Position, LoadError> {
    let replayed = load(store).await?.replayed;
    snapshot::save(store, &replayed).await?;
    Ok(replayed.state.position())
}
