//! Keeps the read models up to date. Those that are furthest follow the feed of events; one that is behind, because it is new, was
//! changed or could not apply an event, catches up from the event store meanwhile. A batch of events and the checkpoints it moves are
//! one transaction. An event that cannot be applied stops its read model, visibly; it is never skipped.
//!
//! Cancel-safety: [`Follower::run`] may be dropped at any await. A transaction that has begun is then completed by its blocking task;
//! the next one finds the checkpoints it left.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use otherix_schemas::cloudevent::{DecodeError, EventEnvelope};
use otherix_schemas::error::Causes;
use otherix_schemas::event::Event;
use otherix_schemas::node::{NodeEvent, NodeRemoved};
use otherix_schemas::position::Position;
use otherix_transport::Connection;
use otherix_transport::feed::{Feed, FeedError, Item, Scope};
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::MissedTickBehavior;

use crate::node::peer_reports::PeerReports;
use crate::read_models::{ModelProgress, Progress};
use crate::store::{Applied, Store};

/// Events in one transaction while following: as many as have arrived, up to this. A query waits for at most two of them.
const FOLLOW_BATCH: usize = 1_000;

/// Events in one transaction while nothing has been reached that a query could wait for.
const CATCH_UP_BATCH: u32 = 5_000;

/// How long more events are waited for while no query waits. What follows a decision (the nodes' outcomes) goes into the same
/// transaction, and the work on the read models does not delay the nodes' own.
const GATHER: Duration = Duration::from_millis(10);

/// Pause before something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Reads stored events from the event store.
pub trait EventReader: Send + Sync {
    /// The bytes of up to `limit` events after a position, in order; none at the end.
    fn read(&self, after: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Bytes>, ReadError>>;
}

/// Why the event store cannot be read.
pub type ReadError = Box<dyn std::error::Error + Send + Sync>;

/// Why no read model can go on.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    Feed(#[from] FeedError),
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
    store: SharedStore,
    progress: watch::Sender<Progress>,
    /// The furthest position that a query has waited for.
    wanted: watch::Receiver<Position>,
    peers: PeerReports,
}

impl Follower {
    pub(crate) fn new(
        store: Store,
        progress: watch::Sender<Progress>,
        wanted: watch::Receiver<Position>,
        peers: PeerReports,
    ) -> Self {
        Self { store: SharedStore::new(store), progress, wanted, peers }
    }

    /// Follows the events until the connection is closed. `head` is a position that events are known to have reached; `events` reads
    /// the event store.
    pub async fn run(self, connection: Connection, head: watch::Receiver<Position>, events: Arc<dyn EventReader>) {
        loop {
            let Err(error) = self.follow(connection.clone(), head.clone(), events.as_ref()).await;
            if let FollowError::Feed(FeedError::Closed) = error {
                return;
            }
            let text = Causes(&error).to_string();
            tracing::error!(error = text, position = %self.front(), "the read models cannot be updated");
            self.progress.send_modify(|progress| progress.error = Some(text));
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn follow(
        &self,
        connection: Connection,
        head: watch::Receiver<Position>,
        events: &dyn EventReader,
    ) -> Result<std::convert::Infallible, FollowError> {
        self.catch_up(events).await?;
        let mut feed = Feed::new(connection, Scope::Everything, self.front(), head).await?;
        let mut retry = tokio::time::interval(RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let after = feed.position();
            let (first, wait) = match self.behind(after) {
                // A rebuild goes on as soon as the events that have arrived are applied.
                Some(Behind { position, failed: false }) => {
                    self.advance(events, position).await?;
                    (feed.next().now_or_never().transpose()?, Duration::ZERO)
                }
                Some(Behind { position, failed: true }) => tokio::select! {
                    biased;
                    _ = retry.tick() => {
                        self.advance(events, position).await?;
                        (None, GATHER)
                    }
                    first = feed.next() => (Some(first?), GATHER),
                },
                None => (Some(feed.next().await?), GATHER),
            };
            let Some(first) = first else { continue };
            let batch = self.gather(&mut feed, Gathering { after, first, wait }).await;
            self.apply(after, batch).await?;
        }
    }

    /// The position of the read models that are furthest.
    fn front(&self) -> Position {
        self.progress.borrow().models.iter().map(|model| model.position).max().unwrap_or_default()
    }

    /// The read model to go on with among those that lack events up to `front`: those that failed come last.
    fn behind(&self, front: Position) -> Option<Behind> {
        let progress = self.progress.borrow();
        let behind = progress.models.iter().filter(|model| model.position < front);
        let behind = behind.map(|model| Behind { failed: model.error.is_some(), position: model.position });
        behind.min_by_key(|behind| (behind.failed, behind.position))
    }

    /// Brings the furthest read models near the end of the event store.
    async fn catch_up(&self, events: &dyn EventReader) -> Result<(), FollowError> {
        let mut after = self.front();
        let mut batch = read(events, after, CATCH_UP_BATCH).await?;
        while batch.len() >= FOLLOW_BATCH {
            let last = last(&batch, after);
            // The next events are read and decoded while these are applied.
            let (applied, next) = tokio::join!(self.apply(after, batch), read(events, last, CATCH_UP_BATCH));
            applied?;
            (after, batch) = (last, next?);
            if self.front() < after {
                // No read model could apply them all.
                return Ok(());
            }
        }
        self.apply(after, batch).await
    }

    /// Applies the next stored events to the read models that are at `position`.
    async fn advance(&self, events: &dyn EventReader, position: Position) -> Result<(), FollowError> {
        let limit = u32::try_from(FOLLOW_BATCH).unwrap_or(u32::MAX);
        let batch = read(events, position, limit).await?;
        self.apply(position, batch).await
    }

    /// The events that arrive within a while; as soon as a query waits for them, those that have arrived.
    async fn gather(&self, feed: &mut Feed, gathering: Gathering) -> Vec<EventEnvelope> {
        let Gathering { after, first, wait } = gathering;
        let mut batch = Vec::new();
        let mut next = Some(first);
        let mut wanted = self.wanted.clone();
        let mut waited_for = pin!(wanted.wait_for(|wanted| *wanted > after));
        let mut late = pin!(tokio::time::sleep(wait));
        while let Some(item) = next {
            if let Item::Event { envelope, .. } = item {
                batch.push(*envelope);
            }
            if batch.len() >= FOLLOW_BATCH {
                break;
            }
            next = tokio::select! {
                biased;
                // An error is returned again by the next call, after these events have been applied.
                item = feed.next() => item.ok(),
                _ = &mut waited_for => None,
                () = &mut late => None,
            };
        }
        batch
    }

    async fn apply(&self, after: Position, batch: Vec<EventEnvelope>) -> Result<(), FollowError> {
        if batch.is_empty() {
            return Ok(());
        }
        let removed: Vec<_> = batch.iter().filter_map(removed_node).collect();
        let applied = self.store.apply(after, batch).await?;
        for node in removed {
            self.peers.remove(node);
        }
        self.progress.send_modify(|progress| {
            progress.error = None;
            for (model, applied) in progress.models.iter_mut().zip(applied) {
                record(model, after, applied);
            }
        });
        Ok(())
    }
}

/// A batch of events from the feed that has begun.
struct Gathering {
    /// The position before the first.
    after: Position,
    first: Item,
    /// How long more are waited for.
    wait: Duration,
}

/// A read model that lacks events.
struct Behind {
    /// Its last attempt failed: the next one waits.
    failed: bool,
    position: Position,
}

/// Records what a batch after `after` did to a read model.
fn record(model: &mut ModelProgress, after: Position, applied: Applied) {
    let Applied { position, error } = applied;
    if position < after {
        // It took no part.
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
pub(crate) struct SharedStore(Arc<Mutex<Store>>);

impl SharedStore {
    pub(crate) fn new(store: Store) -> Self {
        Self(Arc::new(Mutex::new(store)))
    }

    /// As [`Store::apply`].
    pub(crate) async fn apply(&self, after: Position, batch: Vec<EventEnvelope>) -> Result<Vec<Applied>, FollowError> {
        let store = Arc::clone(&self.0);
        let apply = move || store.lock().unwrap_or_else(PoisonError::into_inner).apply(after, &batch);
        Ok(tokio::task::spawn_blocking(apply).await??)
    }
}

/// The position of the last event of a batch after `after`.
pub(crate) fn last(batch: &[EventEnvelope], after: Position) -> Position {
    batch.last().map_or(after, |event| event.header.position)
}

/// Reads and decodes stored events; up to the first that cannot be decoded, if there is one.
pub(crate) async fn read(
    events: &dyn EventReader,
    after: Position,
    limit: u32,
) -> Result<Vec<EventEnvelope>, FollowError> {
    let stored = events.read(after, limit).await.map_err(FollowError::Read)?;
    if stored.is_empty() {
        return Ok(Vec::new());
    }
    tokio::task::spawn_blocking(move || decode(&stored, after)).await?
}

fn decode(stored: &[Bytes], after: Position) -> Result<Vec<EventEnvelope>, FollowError> {
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
