//! A rebuild of the read models beside those that queries are answered from, which go on meanwhile. The new ones are
//! a file of their own until they have all events; then that file takes the place of the old one, while no query runs.
//!
//! Whenever the process ends, the file in place is whole: the old one is closed, with its write-ahead log written back,
//! before the new one, which is on the disk by then, is renamed to its name.

use std::time::Duration;

use otherix_schemas::error::Causes;
use otherix_schemas::position::Position;
use otherix_schemas::projection::{RebuildState, RebuildView};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use crate::follow::{EventReader, Follower, SharedStore, last};
use crate::rebuild::RebuildError;

/// Events in one transaction.
const BATCH: u32 = 1_000;

/// Pause before something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The last rebuild, and requests for another one.
#[derive(Debug)]
pub(crate) struct Rebuilds {
    last: watch::Sender<Option<Rebuild>>,
    requested: Notify,
}

/// A rebuild.
#[derive(Clone, Debug)]
struct Rebuild {
    state: RebuildState,
    position: Position,
    begin: Instant,
    /// How long it took; `None` while it is running.
    took: Option<Duration>,
    error: Option<String>,
}

impl Default for Rebuilds {
    fn default() -> Self {
        Self { last: watch::Sender::new(None), requested: Notify::new() }
    }
}

impl Rebuilds {
    /// Requests a rebuild, unless one is running.
    pub(crate) fn request(&self) {
        let begun = self.last.send_if_modified(|last| {
            if last.as_ref().is_some_and(|last| last.state == RebuildState::Running) {
                return false;
            }
            let (state, position, begin) = (RebuildState::Running, Position::ZERO, Instant::now());
            *last = Some(Rebuild { state, position, begin, took: None, error: None });
            true
        });
        if begun {
            self.requested.notify_one();
        }
    }

    /// The last rebuild. `head` is the event store's.
    pub(crate) fn view(&self, head: Position) -> Option<RebuildView> {
        let Rebuild { state, position, begin, took, error } = self.last.borrow().clone()?;
        let duration_ms = u64::try_from(took.unwrap_or_else(|| begin.elapsed()).as_millis()).unwrap_or(u64::MAX);
        Some(RebuildView { state, position, head, duration_ms, error })
    }

    fn reached(&self, position: Position) {
        self.last.send_modify(|last| {
            if let Some(last) = last {
                last.position = position;
            }
        });
    }

    fn end(&self, result: Result<(), RebuildError>) {
        self.last.send_modify(|last| {
            let Some(last) = last else { return };
            let took = last.begin.elapsed();
            last.took = Some(took);
            let position = last.position;
            match result {
                Ok(()) => {
                    last.state = RebuildState::Done;
                    tracing::info!(%position, ?took, "the read models were rebuilt");
                }
                Err(error) => {
                    last.state = RebuildState::Failed;
                    let error = Causes(&error).to_string();
                    tracing::error!(error, %position, "the read models were not rebuilt");
                    last.error = Some(error);
                }
            }
        });
    }
}

impl Follower {
    /// Waits for a request, and returns new read models with all events. What fails is recorded, and the next request
    /// waited for.
    pub(crate) async fn rebuilt(&self, events: &dyn EventReader) -> SharedStore {
        loop {
            self.rebuilds.requested.notified().await;
            match self.build(events).await {
                Ok(store) => return store,
                Err(error) => self.rebuilds.end(Err(error)),
            }
        }
    }

    async fn build(&self, events: &dyn EventReader) -> Result<SharedStore, RebuildError> {
        let store = self.store.beside().await?;
        match self.fill(&store, events).await {
            Ok(()) => Ok(store),
            Err(error) => {
                discard(&store).await;
                Err(error)
            }
        }
    }

    /// Applies all events to new read models.
    async fn fill(&self, store: &SharedStore, events: &dyn EventReader) -> Result<(), RebuildError> {
        let mut after = Position::ZERO;
        loop {
            let begin = Instant::now();
            let next = self.extend(store, events, after).await?;
            if next == after {
                return Ok(());
            }
            after = next;
            // Commands, and the read models that are in use, have half of the time.
            sleep(begin.elapsed()).await;
        }
    }

    /// Applies the next events to new read models. Returns the position of the last one.
    async fn extend(
        &self,
        store: &SharedStore,
        events: &dyn EventReader,
        after: Position,
    ) -> Result<Position, RebuildError> {
        let batch = store.read(events, after, BATCH).await?;
        let position = last(&batch, after);
        if let Some(error) = store.apply(after, batch).await?.into_iter().find_map(|applied| applied.error) {
            return Err(error.into());
        }
        self.rebuilds.reached(position);
        Ok(position)
    }

    /// Replaces the read models by new ones.
    pub(crate) async fn adopt(&self, new: SharedStore, events: &dyn EventReader) {
        let result = self.try_adopt(new.clone(), events).await;
        if result.is_err() {
            discard(&new).await;
        }
        // Whichever file is in place is opened.
        while let Err(error) = self.reopen().await {
            let text = format!("cannot open the read models: {}", Causes(error.as_ref()));
            tracing::error!(error = text, "the read models cannot be updated");
            sleep(RETRY).await;
        }
        self.rebuilds.end(result);
    }

    async fn try_adopt(&self, new: SharedStore, events: &dyn EventReader) -> Result<(), RebuildError> {
        // What was applied to the present ones since.
        let (front, mut after) =
            (self.front(), self.rebuilds.last.borrow().as_ref().map_or(Position::ZERO, |it| it.position));
        while after < front {
            let next = self.extend(&new, events, after).await?;
            if next == after {
                break;
            }
            after = next;
        }
        // Queries wait from here on until the new file is in place.
        let _no_queries = self.readers.pause().await;
        self.readers.replaced();
        self.store.replace_by(new).await
    }
}

/// Removes the file of new read models that do not take the place of the old ones.
async fn discard(new: &SharedStore) {
    if let Err(error) = new.discard().await {
        tracing::error!(error = %Causes(error.as_ref()), "the file of an unfinished rebuild remains");
    }
}
