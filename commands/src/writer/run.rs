//! The writer's loop: decide, store, answer.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use otherix_runtime::Runtime;
use otherix_schemas::decision_chain::DecisionHead;
use otherix_schemas::error::Causes;
use otherix_schemas::event::Event;
use otherix_schemas::id::EventId;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::TimestampError;
use otherix_schemas::user::Callers;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::decider::{Decider, DecisionInputs, Staged};
use super::metrics::WriterMetrics;
use super::request::{CommandRequest, CommandResult, Queued, Refusal, WriterHandle};
use super::snapshots::Snapshots;
use crate::config::ClusterConfig;
use crate::domain::Roster;
use crate::store::{Batch, Entry, EventStore, IdempotencyRecord, LoadError, Loaded, StoreError, load};

/// Commands that may wait for the writer.
const QUEUE: usize = 4096;

/// Commands in one batch. More make a batch slower, not faster.
const BATCH: usize = 1000;

/// How long the first nodes' reports on a network wait for those of the other nodes, so that all are durable at once:
/// the last would otherwise wait for a batch with the first, and storing the first would slow down nodes that still
/// work. Longer than the reports of three nodes on one machine are apart (1.3 ms), and cheap if none arrives. See
/// docs/adr/0011.
const GATHER: Duration = Duration::from_millis(2);

/// Batches that may wait for the relay before it has to read them from the store.
const RELAY: usize = 64;

/// How far the store is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// The last event.
    pub position: Position,
    /// The head of the chain of decisions.
    pub decisions: DecisionHead,
}

/// Events that were stored together.
#[derive(Debug)]
pub struct StoredBatch {
    pub entries: Vec<Entry>,
    /// The head of the chain of decisions after them.
    pub decisions: DecisionHead,
}

/// The writer ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    #[error("cannot load the state from the journal")]
    Load(#[from] LoadError),
    /// The store failed in a way that leaves open what was stored.
    #[error("it is unknown whether the journal stored a batch")]
    Store(#[from] StoreError),
    #[error("the machine's clock cannot be used")]
    Clock(#[from] TimestampError),
}

/// The one active writer.
pub struct Writer<S> {
    store: Arc<S>,
    runtime: Arc<dyn Runtime>,
    decider: Decider,
    snapshots: Arc<Snapshots>,
    queue: mpsc::Receiver<Queued>,
    durable: watch::Sender<Durable>,
    head: watch::Sender<Position>,
    roster: watch::Sender<Roster>,
    callers: watch::Sender<Callers>,
    relay: mpsc::Sender<StoredBatch>,
    metrics: WriterMetrics,
}

/// A batch that is being stored, and how long that took.
type Storing = Pin<Box<dyn Future<Output = (Staged, Result<(), StoreError>, Duration)> + Send>>;

impl<S: EventStore> Writer<S> {
    /// Loads the state. Returns the writer, the handle that submits commands to it, and the batches that it stores.
    ///
    /// # Errors
    /// If the store cannot be read, or was altered.
    pub async fn open(
        store: Arc<S>,
        config: ClusterConfig,
        runtime: Arc<dyn Runtime>,
    ) -> Result<(Self, WriterHandle, mpsc::Receiver<StoredBatch>), WriterError> {
        let Loaded { replayed, snapshot, rejected } = load(store.as_ref()).await?;
        if let Some(error) = rejected {
            let error = Causes(&error);
            tracing::warn!(%error, "the state snapshot was not used and is deleted; all events were replayed");
            store.discard_snapshots().await?;
        }
        let decider = Decider::new(config, store.identity(), replayed);
        let (submit, queue) = mpsc::channel(QUEUE);
        let (relay, stored) = mpsc::channel(RELAY);
        let heads = Durable { position: decider.state.position(), decisions: decider.decision_head() };
        let (durable, head) = (watch::Sender::new(heads), watch::Sender::new(heads.position));
        let roster = watch::Sender::new(decider.state.roster().clone());
        let callers = watch::Sender::new(decider.state.callers().clone());
        let snapshots = Arc::new(Snapshots::new(snapshot));
        let metrics = WriterMetrics::default();
        let writer = Self { store, runtime, decider, snapshots, queue, durable, head, roster, callers, relay, metrics };
        Ok((writer, WriterHandle { queue: submit }, stored))
    }

    /// Returns how far the store is durable.
    pub fn durable(&self) -> watch::Receiver<Durable> {
        self.durable.subscribe()
    }

    /// Returns the last event of [`Writer::durable`] alone: what a query must account for.
    pub fn head(&self) -> watch::Receiver<Position> {
        self.head.subscribe()
    }

    /// Returns the members of the cluster as of [`Writer::durable`], and whether each is reachable.
    pub fn roster(&self) -> watch::Receiver<Roster> {
        self.roster.subscribe()
    }

    /// Returns who may make requests as of [`Writer::durable`], and whose credentials are revoked.
    pub fn callers(&self) -> watch::Receiver<Callers> {
        self.callers.subscribe()
    }

    /// Returns what the writer counts and measures.
    pub fn metrics(&self) -> WriterMetrics {
        self.metrics.clone()
    }

    /// Decides and stores until every [`WriterHandle`] is dropped and all commands are answered.
    ///
    /// # Errors
    /// If it cannot be known what was stored, or the disk fails.
    pub async fn run(mut self) -> Result<(), WriterError> {
        self.process_queue().await?;
        self.snapshots.save_at_end(self.store.as_ref(), &self.decider.into_replayed()).await;
        Ok(())
    }

    async fn process_queue(&mut self) -> Result<(), WriterError> {
        // Polled here only. It may hold the store's locks, so it must not outlive this.
        let mut background = pin!(self.background());
        let mut hashes = pin!(self.decider.keys.read_hashes(Arc::clone(&self.store)));
        let mut is_reading_hashes = true;
        let mut storing: Option<Storing> = None;
        let mut staged = self.decider.begin();
        let mut open = true;
        let mut hold = None;
        while open || storing.is_some() || !staged.answers.is_empty() {
            // A full batch is not held back.
            let is_incomplete = open && staged.answers.len() < BATCH && self.decider.is_incomplete(&staged);
            hold = is_incomplete.then(|| hold.unwrap_or_else(|| Instant::now() + GATHER));
            let is_due = hold.is_none_or(|until| Instant::now() >= until);
            if storing.is_none() && !staged.answers.is_empty() && is_due {
                storing = self.begin_storing(std::mem::replace(&mut staged, self.decider.begin()));
                continue;
            }
            tokio::select! {
                biased;
                (stored, result, took) = finished(&mut storing), if storing.is_some() => {
                    storing = None;
                    if self.settle(&stored, result).await? {
                        self.publish(stored, took);
                    } else {
                        self.metrics.failed();
                        refuse(stored);
                        refuse(staged);
                        self.decider.reset(load(self.store.as_ref()).await?.replayed);
                        staged = self.decider.begin();
                    }
                }
                queued = self.queue.recv(), if open && staged.answers.len() < BATCH => match queued {
                    Some(queued) => self.decide_all(queued, &mut staged).await?,
                    None => open = false,
                },
                read = &mut hashes, if is_reading_hashes => {
                    is_reading_hashes = false;
                    match read {
                        Ok(read) => self.decider.keys.complete(read),
                        // Every key is looked up then.
                        Err(error) => tracing::warn!(error = %Causes(&error), "cannot read the idempotency keys"),
                    }
                }
                never = &mut background => match never {},
                () = sleep_until(hold.unwrap_or_else(Instant::now)), if storing.is_none() && hold.is_some() => {}
            }
        }
        Ok(())
    }

    /// What runs beside storing: the store's upkeep, and state snapshots.
    fn background(&self) -> impl Future<Output = Infallible> + Send + use<S> {
        let (store, snapshots, runtime) =
            (Arc::clone(&self.store), Arc::clone(&self.snapshots), Arc::clone(&self.runtime));
        let durable = self.durable.subscribe();
        async move {
            tokio::select! {
                never = store.upkeep() => never,
                never = snapshots.keep_saving(Arc::clone(&store), runtime, durable) => never,
            }
        }
    }

    /// Decides a command and all others in the queue.
    async fn decide_all(&mut self, first: Queued, staged: &mut Staged) -> Result<(), WriterError> {
        let mut next = Some(first);
        while let Some(queued) = next {
            match self.look_up(&queued.request).await {
                Ok(stored) => {
                    let runtime = &self.runtime;
                    let event_id = &mut || EventId::new(runtime.uuid_v7());
                    self.decider.add(queued, staged, DecisionInputs { now: runtime.now()?, event_id, stored });
                }
                Err(error) => {
                    tracing::error!(error = %Causes(&error), "cannot look up an idempotency key");
                    answer_one(queued.reply, Err(Refusal::Unavailable("the journal cannot be read".to_owned())));
                }
            }
            if staged.answers.len() >= BATCH {
                break;
            }
            next = self.queue.try_recv().ok();
        }
        Ok(())
    }

    /// Returns the record in the store under the request's idempotency key, if it is not known that there is none.
    async fn look_up(&self, request: &CommandRequest) -> Result<Option<IdempotencyRecord>, StoreError> {
        match &request.key {
            Some(key) if self.decider.keys.needs_look_up(&request.actor.id, &key.key) => {
                self.store.idempotency_record(&request.actor.id, &key.key).await
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Begins to store a batch. An empty one depends only on what is durable, and is answered at once.
    fn begin_storing(&self, staged: Staged) -> Option<Storing> {
        if staged.batch.is_empty() {
            self.measure(&staged, 0, None);
            answer(staged);
            return None;
        }
        let store = Arc::clone(&self.store);
        Some(Box::pin(async move {
            let begun = Instant::now();
            let result = store.append(staged.after, &staged.batch).await;
            (staged, result, begun.elapsed())
        }))
    }

    /// Returns whether the batch was stored. After an error, the store's head shows it.
    async fn settle(&self, staged: &Staged, result: Result<(), StoreError>) -> Result<bool, WriterError> {
        let error = match result {
            Ok(()) => return Ok(true),
            Err(error @ (StoreError::NotDurable(_) | StoreError::Fenced { .. })) => return Err(error.into()),
            Err(error @ (StoreError::Unavailable(_) | StoreError::Damaged(_) | StoreError::Malformed { .. })) => error,
        };
        let head = self.store.head().await?;
        tracing::error!(error = %Causes(&error), %head, "a batch was not confirmed");
        // A batch of idempotency records alone does not move the head; it counts as not stored.
        if head == staged.position && staged.position > staged.after {
            return Ok(true);
        }
        if head == staged.after { Ok(false) } else { Err(error.into()) }
    }

    /// Announces a durable batch, and answers its commands.
    fn publish(&mut self, mut staged: Staged, took: Duration) {
        let Batch { entries, idempotency, .. } = std::mem::take(&mut staged.batch);
        let log = std::mem::take(&mut staged.log);
        self.measure(&staged, entries.len(), Some(took));
        self.decider.keys.stored(&idempotency);
        // First: whoever learns of callers knows how far events are durable.
        self.head.send_replace(staged.position);
        if !staged.callers.is_empty() {
            // Before the position that lookups answer with, which they must not lag behind.
            self.callers.send_modify(|callers| staged.callers.iter().for_each(|event| callers.evolve(event)));
        }
        if !staged.membership.is_empty() {
            self.roster.send_modify(|roster| staged.membership.iter().for_each(|event| apply(roster, event)));
        }
        let decisions = staged.decision_head;
        let durable = Durable { position: staged.position, decisions };
        // Tasks run in the order in which they are woken, after this: nodes wait for the relay, callers for answers,
        // and nobody for what else follows the store. The control plane has one thread, so no task runs before the end.
        // A relay that is behind reads the store instead; one that has ended needs nothing.
        let _unless_behind = self.relay.try_send(StoredBatch { entries, decisions });
        answer(staged);
        self.durable.send_replace(durable);
        log.write();
    }

    fn measure(&self, staged: &Staged, events: usize, stored: Option<Duration>) {
        self.metrics.settled(events, stored, staged.begun.iter().map(Instant::elapsed));
    }
}

fn apply(roster: &mut Roster, event: &Event) {
    if let Event::Node(event) = event {
        roster.apply(event);
    }
}

/// Waits for the batch that is being stored, if there is one.
async fn finished(storing: &mut Option<Storing>) -> (Staged, Result<(), StoreError>, Duration) {
    match storing {
        Some(storing) => storing.await,
        None => std::future::pending().await,
    }
}

fn answer(staged: Staged) {
    for (reply, outcome) in staged.answers {
        answer_one(reply, outcome);
    }
}

fn answer_one(reply: oneshot::Sender<CommandResult>, outcome: CommandResult) {
    // A caller that no longer waits does not need the answer.
    let _unless_dropped = reply.send(outcome);
}

fn refuse(staged: Staged) {
    for (reply, _) in staged.answers {
        answer_one(reply, Err(Refusal::Unavailable("the journal could not store it".to_owned())));
    }
}
