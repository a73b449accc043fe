//! Keeps the read models up to date from the event store. Those that are furthest follow its head; one that is behind,
//! because it is new, was changed or could not apply an event, catches up meanwhile. A batch of events and the
//! checkpoints it moves are one transaction. An event that cannot be applied stops its read model, visibly; it is never
//! skipped.
//!
//! Events are read from the store and not from the live feed: a batch costs the thread that serves requests one read
//! instead of a message for each event, so that the read models keep up at the highest write rate.
//!
//! Cancel-safety: [`Follower::run`] may be dropped at any await. A transaction that has begun is then completed by its
//! blocking task; the next one finds the checkpoints it left.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use otherix_runtime::Runtime;
use otherix_schemas::cloudevent::{DecodeError, EventEnvelope};
use otherix_schemas::error::Causes;
use otherix_schemas::event::Event;
use otherix_schemas::node::{NodeEvent, NodeRemoved};
use otherix_schemas::position::Position;
use otherix_schemas::projection::ProjectionErrorView;
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::Instant;

use crate::beside::Rebuilds;
use crate::node::telemetry::Telemetry;
use crate::read_models::{ModelProgress, Progress, Readers};
use crate::rebuild::RebuildError;
use crate::store::{Applied, Store, is_unusable};

/// Events in one transaction. A query waits for two transactions at most: the one in progress, and the next one.
const BATCH: u32 = 1_000;

/// Batches that are applied before a read model that is behind gets its turn.
const BATCHES: u32 = 16;

/// How long to wait for more events while no query is waiting. The nodes' outcomes that follow a decision are then
/// applied in the same transaction, and updating the read models does not slow down nodes on the same machine.
const GATHER: Duration = Duration::from_millis(10);

/// Pause before something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Reads stored events from the event store.
pub trait EventReader: Send + Sync {
    /// Returns the bytes of up to `limit` events after a position, in order; none at the end.
    fn read(&self, after: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Bytes>, ReadError>>;
}

/// Why the event store cannot be read.
pub type ReadError = Box<dyn std::error::Error + Send + Sync>;

/// Why no read model can be updated.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error("there are no more events: the writer has ended")]
    Ended,
    #[error("cannot read events from the event store")]
    Read(#[source] ReadError),
    #[error("cannot read the event after position {after}")]
    Decode {
        after: Position,
        #[source]
        source: DecodeError,
    },
    #[error("the read models' database failed")]
    Database(#[from] rusqlite::Error),
    #[error("a blocking task did not end")]
    Task(#[from] JoinError),
}

/// Keeps the read models up to date.
pub struct Follower {
    pub(crate) store: SharedStore,
    pub(crate) progress: watch::Sender<Progress>,
    /// The furthest position that a query has waited for.
    pub(crate) wanted: watch::Receiver<Position>,
    pub(crate) telemetry: Telemetry,
    pub(crate) readers: Arc<Readers>,
    pub(crate) rebuilds: Arc<Rebuilds>,
}

impl Follower {
    /// Follows the events until `head` is closed. `head` is the position up to which `events` has events.
    pub async fn run(self, head: watch::Receiver<Position>, events: Arc<dyn EventReader>) {
        let mut rebuilt = Box::pin(self.rebuilt(events.as_ref()));
        loop {
            let error = tokio::select! {
                Err(error) = self.follow(head.clone(), events.as_ref()) => error,
                new = &mut rebuilt => {
                    self.adopt(new, events.as_ref()).await;
                    rebuilt = Box::pin(self.rebuilt(events.as_ref()));
                    continue;
                }
                () = self.readers.suspected.notified() => {
                    match self.store.damage().await {
                        Ok(Some(damage)) => self.replace(damage, &head).await,
                        // The query failed for another reason, which is logged.
                        Ok(None) => {}
                        Err(error) => tracing::error!(error = %Causes(&error), "cannot check the read models"),
                    }
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            if let FollowError::Ended = error {
                return;
            }
            if let FollowError::Database(damage) = &error
                && is_unusable(damage)
            {
                self.replace(damage.to_string(), &head).await;
                continue;
            }
            let text = Causes(&error).to_string();
            tracing::error!(error = text, position = %self.front(), "the read models cannot be updated");
            self.fail(text);
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Records why no read model can be updated.
    fn fail(&self, text: String) {
        let error = self.error_now(text.clone(), self.front());
        self.progress.send_modify(|progress| {
            if progress.error.as_ref() != Some(&text) {
                progress.last_error = Some(error);
            }
            progress.error = Some(text);
        });
    }

    fn error_now(&self, message: String, position: Position) -> ProjectionErrorView {
        ProjectionErrorView { message, position, time: self.store.runtime.now().ok() }
    }

    /// Opens the file that is in place after a rebuild.
    pub(crate) async fn reopen(&self) -> Result<(), ReadError> {
        let checkpoints = self.store.reopen().await?;
        self.progress.send_modify(|progress| {
            progress.error = None;
            for (model, position) in progress.models.iter_mut().zip(checkpoints) {
                (model.position, model.error) = (position, None);
            }
        });
        Ok(())
    }

    /// Replaces a damaged file by an empty one; following the events fills it again.
    async fn replace(&self, damage: String, head: &watch::Receiver<Position>) {
        let head = *head.borrow();
        while let Err(error) = self.store.replace(damage.clone(), head).await {
            let text = format!("cannot replace the damaged read models: {}", Causes(error.as_ref()));
            tracing::error!(error = text, "the read models cannot be updated");
            self.fail(text);
            tokio::time::sleep(RETRY).await;
        }
        self.readers.replaced();
        self.progress.send_modify(|progress| {
            progress.error = None;
            for model in &mut progress.models {
                (model.position, model.error) = (Position::ZERO, None);
            }
        });
    }

    async fn follow(
        &self,
        mut head: watch::Receiver<Position>,
        events: &dyn EventReader,
    ) -> Result<Infallible, FollowError> {
        let mut after = self.front();
        let mut retry_at = Instant::now();
        loop {
            let behind = self.behind(after);
            match behind {
                // A rebuild continues between batches.
                Some(Behind { position, failed: false }) => self.advance(events, position).await?,
                Some(Behind { position, failed: true }) if Instant::now() >= retry_at => {
                    self.advance(events, position).await?;
                    retry_at = Instant::now() + RETRY;
                }
                Some(Behind { failed: true, .. }) | None => {}
            }
            let last = *head.borrow_and_update();
            if last > after {
                self.gather(after, last).await;
                let reached = self.apply_next(events, after).await?;
                if reached > after {
                    after = reached;
                    continue;
                }
            }
            let changed = match self.behind(after) {
                Some(Behind { failed: false, .. }) => Ok(()),
                Some(Behind { failed: true, .. }) => tokio::select! {
                    changed = head.changed() => changed,
                    () = tokio::time::sleep_until(retry_at) => Ok(()),
                },
                None => head.changed().await,
            };
            changed.map_err(|_| FollowError::Ended)?;
        }
    }

    /// The position of the read models that are furthest.
    pub(crate) fn front(&self) -> Position {
        self.progress.borrow().models.iter().map(|model| model.position).max().unwrap_or_default()
    }

    /// The read model to continue with among those that lack events up to `front`: those that failed come last.
    fn behind(&self, front: Position) -> Option<Behind> {
        let progress = self.progress.borrow();
        let behind = progress.models.iter().filter(|model| model.position < front);
        let behind = behind.map(|model| Behind { failed: model.error.is_some(), position: model.position });
        behind.min_by_key(|behind| (behind.failed, behind.position))
    }

    /// Applies the stored events after a position. Returns the position of the last one read.
    async fn apply_next(&self, events: &dyn EventReader, after: Position) -> Result<Position, FollowError> {
        let mut after = after;
        let mut batch = self.store.read(events, after, BATCH).await?;
        for _ in 1..BATCHES {
            if batch.len() < BATCH as usize {
                break;
            }
            let last = last(&batch, after);
            // The next events are read and decoded while these are applied.
            let (applied, next) = tokio::join!(self.apply(after, batch), self.store.read(events, last, BATCH));
            applied?;
            (after, batch) = (last, next?);
        }
        let last = last(&batch, after);
        self.apply(after, batch).await?;
        Ok(last)
    }

    /// Applies the next stored events to the read models that are at `position`.
    async fn advance(&self, events: &dyn EventReader, position: Position) -> Result<(), FollowError> {
        let batch = self.store.read(events, position, BATCH).await?;
        self.apply(position, batch).await
    }

    /// Waits for more events, unless there are many already or a query waits for events after `after`.
    async fn gather(&self, after: Position, last: Position) {
        if last.get().saturating_sub(after.get()) >= BATCH.into() {
            return;
        }
        let mut wanted = self.wanted.clone();
        // Either way, the events stored by then are applied.
        let _waited = tokio::time::timeout(GATHER, wanted.wait_for(|wanted| *wanted > after)).await;
    }

    async fn apply(&self, after: Position, batch: Vec<EventEnvelope>) -> Result<(), FollowError> {
        if batch.is_empty() {
            return Ok(());
        }
        let removed: Vec<_> = batch.iter().filter_map(removed_node).collect();
        let applied = self.store.apply(after, batch).await?;
        for node in removed {
            self.telemetry.remove(node);
        }
        self.progress.send_modify(|progress| {
            progress.error = None;
            for (model, applied) in progress.models.iter_mut().zip(applied) {
                let last = model.error.clone();
                record(model, after, applied);
                if let Some(message) = model.error.clone().filter(|_| last != model.error) {
                    model.last_error = Some(self.error_now(message, model.position));
                }
            }
        });
        Ok(())
    }
}

/// A read model that lacks events.
struct Behind {
    /// Its last attempt failed: the next one is delayed.
    failed: bool,
    position: Position,
}

/// Records the effect of a batch after `after` on a read model.
fn record(model: &mut ModelProgress, after: Position, applied: Applied) {
    let Applied { position, error } = applied;
    if position < after {
        // It is behind `after`, so the batch was not applied to it.
        return;
    }
    let error = error.map(|error| Causes(&error).to_string());
    if let Some(error) = &error
        && model.error.as_ref() != Some(error)
    {
        tracing::error!(read_model = model.name, error, %position, "a read model has stopped");
    }
    (model.position, model.error) = (position, error);
}

fn removed_node(event: &EventEnvelope) -> Option<otherix_schemas::id::NodeId> {
    if let Event::Node(NodeEvent::Removed(NodeRemoved { node_id, .. })) = &event.event { Some(*node_id) } else { None }
}

/// The database, written to by blocking tasks.
#[derive(Clone)]
pub(crate) struct SharedStore {
    store: Arc<Mutex<Store>>,
    runtime: Arc<dyn Runtime>,
}

impl SharedStore {
    pub(crate) fn new(store: Store, runtime: Arc<dyn Runtime>) -> Self {
        Self { store: Arc::new(Mutex::new(store)), runtime }
    }

    /// As [`Store::apply`].
    pub(crate) async fn apply(&self, after: Position, batch: Vec<EventEnvelope>) -> Result<Vec<Applied>, FollowError> {
        let store = Arc::clone(&self.store);
        let apply = move || store.lock().unwrap_or_else(PoisonError::into_inner).apply(after, &batch);
        Ok(self.runtime.run_blocking("apply events", apply).await??)
    }

    /// As [`Store::beside`].
    pub(crate) async fn beside(&self) -> Result<Self, RebuildError> {
        let store = Arc::clone(&self.store);
        let begin = move || store.lock().unwrap_or_else(PoisonError::into_inner).beside();
        let new = self.runtime.run_blocking("begin rebuild", begin).await.map_err(FollowError::from)??;
        Ok(Self::new(new, Arc::clone(&self.runtime)))
    }

    /// As [`Store::discard`].
    pub(crate) async fn discard(&self) -> Result<(), ReadError> {
        let store = Arc::clone(&self.store);
        let discard = move || store.lock().unwrap_or_else(PoisonError::into_inner).discard();
        Ok(self.runtime.run_blocking("remove read models", discard).await??)
    }

    /// As [`Store::replace_by`].
    pub(crate) async fn replace_by(&self, new: Self) -> Result<(), RebuildError> {
        let (old, new) = (Arc::clone(&self.store), new.store);
        let replace = move || {
            let mut old = old.lock().unwrap_or_else(PoisonError::into_inner);
            old.replace_by(&mut new.lock().unwrap_or_else(PoisonError::into_inner))
        };
        self.runtime.run_blocking("replace read models", replace).await.map_err(FollowError::from)?
    }

    /// As [`Store::reopen`].
    async fn reopen(&self) -> Result<Vec<Position>, ReadError> {
        let store = Arc::clone(&self.store);
        let reopen = move || store.lock().unwrap_or_else(PoisonError::into_inner).reopen();
        Ok(self.runtime.run_blocking("open read models", reopen).await??)
    }

    /// As [`Store::damage`].
    async fn damage(&self) -> Result<Option<String>, FollowError> {
        let store = Arc::clone(&self.store);
        let check = move || match store.lock().unwrap_or_else(PoisonError::into_inner).damage() {
            Err(error) if is_unusable(&error) => Ok(Some(error.to_string())),
            other => other,
        };
        Ok(self.runtime.run_blocking("check read models", check).await??)
    }

    /// As [`Store::replace`].
    async fn replace(&self, damage: String, head: Position) -> Result<(), ReadError> {
        let store = Arc::clone(&self.store);
        let replace = move || store.lock().unwrap_or_else(PoisonError::into_inner).replace(&damage, head);
        Ok(self.runtime.run_blocking("replace read models", replace).await??)
    }

    /// Reads and decodes stored events; up to the first that cannot be decoded, if there is one.
    pub(crate) async fn read(
        &self,
        events: &dyn EventReader,
        after: Position,
        limit: u32,
    ) -> Result<Vec<EventEnvelope>, FollowError> {
        let stored = events.read(after, limit).await.map_err(FollowError::Read)?;
        if stored.is_empty() {
            return Ok(Vec::new());
        }
        self.runtime.run_blocking("decode events", move || decode(&stored, after)).await?
    }
}

/// The position of the last event of a batch after `after`.
pub(crate) fn last(batch: &[EventEnvelope], after: Position) -> Position {
    batch.last().map_or(after, |event| event.header.position)
}

/// Decodes stored events after a position; up to the first that cannot be decoded, if there is one.
pub(crate) fn decode(stored: &[Bytes], after: Position) -> Result<Vec<EventEnvelope>, FollowError> {
    let mut decoded = Vec::with_capacity(stored.len());
    for bytes in stored {
        match EventEnvelope::decode(bytes) {
            Ok(event) => decoded.push(event),
            Err(source) if decoded.is_empty() => return Err(FollowError::Decode { after, source }),
            Err(_) => break,
        }
    }
    Ok(decoded)
}
