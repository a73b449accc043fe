//! Keeps the history up to date from the event store, behind the read models: it takes half of one processor at most,
//! unless a query waits for it.
//!
//! Cancel-safety: as that of the read models ([`crate::follow`]).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use otherix_runtime::Runtime;
use otherix_schemas::error::Causes;
use otherix_schemas::position::Position;
use otherix_schemas::projection::ProjectionErrorView;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::store::HistoryStore;
use super::{HistoryProgress, Shared};
use crate::follow::{EventReader, FollowError, ReadError, decode};
use crate::store::{ProjectionError, is_unusable};

/// Events in one transaction.
const BATCH: u32 = 500;

/// How long to wait for more events while no query waits.
const GATHER: Duration = Duration::from_millis(50);

/// Pause before something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The history has events that were given up: it must be begun again.
struct GivenUp;

/// Keeps the history up to date.
pub struct HistoryFollower {
    store: Arc<Mutex<HistoryStore>>,
    progress: watch::Sender<HistoryProgress>,
    /// The furthest position that a query has waited for.
    wanted: watch::Receiver<Position>,
    shared: Arc<Shared>,
    runtime: Arc<dyn Runtime>,
}

impl HistoryFollower {
    pub(super) fn new(
        store: HistoryStore,
        progress: watch::Sender<HistoryProgress>,
        wanted: watch::Receiver<Position>,
        shared: Arc<Shared>,
        runtime: Arc<dyn Runtime>,
    ) -> Self {
        Self { store: Arc::new(Mutex::new(store)), progress, wanted, shared, runtime }
    }

    /// Follows the events until `head` is closed. `head` is the position up to which `events` has events.
    pub async fn run(self, head: watch::Receiver<Position>, events: Arc<dyn EventReader>) {
        loop {
            let error = tokio::select! {
                ended = self.follow(head.clone(), events.as_ref()) => match ended {
                    Ok(GivenUp) => {
                        self.reset("it has events that were given up").await;
                        continue;
                    }
                    Err(error) => error,
                },
                () = self.shared.readers.suspected.notified() => {
                    match self.damage().await {
                        Ok(Some(damage)) => self.reset(&damage).await,
                        // The query failed for another reason, which is logged.
                        Ok(None) => {}
                        Err(error) => tracing::error!(error = %Causes(&error), "cannot check the history"),
                    }
                    sleep(RETRY).await;
                    continue;
                }
            };
            if let FollowError::Ended = error {
                return;
            }
            if let FollowError::Database(damage) = &error
                && is_unusable(damage)
            {
                self.reset(&damage.to_string()).await;
                continue;
            }
            let text = Causes(&error).to_string();
            tracing::error!(error = text, position = %self.position(), "the history cannot be updated");
            self.fail(self.position(), text);
            sleep(RETRY).await;
        }
    }

    fn position(&self) -> Position {
        self.progress.borrow().position
    }

    async fn follow(
        &self,
        mut head: watch::Receiver<Position>,
        events: &dyn EventReader,
    ) -> Result<GivenUp, FollowError> {
        loop {
            let last = *head.borrow_and_update();
            let after = self.position();
            if last <= after {
                head.changed().await.map_err(|_| FollowError::Ended)?;
                self.wait(after, GATHER).await;
                continue;
            }
            let begin = Instant::now();
            let stored = events.read(after, BATCH).await.map_err(FollowError::Read)?;
            if stored.is_empty() {
                self.wait(after, RETRY).await;
                continue;
            }
            let store = Arc::clone(&self.store);
            let apply = move || {
                let events = decode(&stored, after)?;
                let applied = store.lock().unwrap_or_else(PoisonError::into_inner).apply(after, &events);
                applied.map_err(FollowError::from)
            };
            match self.runtime.run_blocking("record history", apply).await?? {
                (_, Some(ProjectionError::GivenUp { .. })) => return Ok(GivenUp),
                (position, error) => self.record(position, error).await,
            }
            self.wait(self.position(), begin.elapsed()).await;
        }
    }

    async fn record(&self, position: Position, error: Option<ProjectionError>) {
        let Some(error) = error else {
            self.progress.send_modify(|progress| (progress.position, progress.error) = (position, None));
            return;
        };
        let text = Causes(&error).to_string();
        if self.fail(position, text.clone()) {
            tracing::error!(error = text, %position, "the history has stopped");
        }
        sleep(RETRY).await;
    }

    /// Records why the history cannot be updated. Returns whether it is another reason than before.
    fn fail(&self, position: Position, message: String) -> bool {
        let time = self.runtime.now().ok();
        self.progress.send_if_modified(|progress| {
            progress.position = position;
            let is_new = progress.error.as_ref() != Some(&message);
            if is_new {
                progress.last_error = Some(ProjectionErrorView { message: message.clone(), position, time });
            }
            progress.error = Some(message);
            is_new
        })
    }

    /// Pauses, unless a query waits for an event after `position`.
    async fn wait(&self, position: Position, pause: Duration) {
        let mut wanted = self.wanted.clone();
        // Either way, the history continues.
        let _waited = timeout(pause, wanted.wait_for(|wanted| *wanted > position)).await;
    }

    /// Begins the history again, because it cannot be continued.
    async fn reset(&self, reason: &str) {
        tracing::warn!(reason, "building the history again");
        while let Err(error) = self.try_reset().await {
            let text = format!("cannot build the history again: {}", Causes(error.as_ref()));
            tracing::error!(error = text, "the history cannot be updated");
            self.fail(self.position(), text);
            sleep(RETRY).await;
        }
        self.shared.readers.replaced();
        self.progress.send_modify(|progress| (progress.position, progress.error) = (Position::ZERO, None));
    }

    async fn damage(&self) -> Result<Option<String>, FollowError> {
        let store = Arc::clone(&self.store);
        let check = move || store.lock().unwrap_or_else(PoisonError::into_inner).damage();
        match self.runtime.run_blocking("check history", check).await? {
            Err(error) if is_unusable(&error) => Ok(Some(error.to_string())),
            other => Ok(other?),
        }
    }

    async fn try_reset(&self) -> Result<(), ReadError> {
        let store = Arc::clone(&self.store);
        let reset = move || store.lock().unwrap_or_else(PoisonError::into_inner).reset();
        Ok(self.runtime.run_blocking("reset history", reset).await??)
    }
}
