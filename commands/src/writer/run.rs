//! The writer's loop: decide, store, answer.

use std::sync::Arc;
use std::time::Duration;

use otherix_schemas::error::Causes;
use otherix_schemas::id::EventId;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::TimestampError;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use uuid::Uuid;

use super::ask::{Envelope, Refusal, WriterHandle};
use super::core::{Core, Draw, Staged};
use super::keys::Keys;
use crate::clock;
use crate::config::ClusterConfig;
use crate::domain::Roster;
use crate::store::{Batch, Entry, EventStore, StoreError, LoadError, Replayed, load};

/// Commands that may wait for the writer.
const WAITING: usize = 4096;

/// Commands in one batch: more make a batch slower, not faster (100 to 1,000 rows cost the same each).
const BATCH: usize = 1000;

/// How long the first nodes' reports on a network wait for the others'. All of them are then durable at once, where the last one would
/// have to wait for the batch before; and storing does not hold up nodes that are still at work. Longer than three nodes on one machine
/// are apart (1.3 ms), and not much to wait in vain. See docs/adr/0011.
const GATHER: Duration = Duration::from_millis(2);

/// Batches that may wait for the relay before it has to read them from the journal.
const RELAY: usize = 64;

/// How far the journal is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// The last event.
    pub position: Position,
    /// The last decision.
    pub decision_head: Position,
}

/// Why the writer ended.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// The journal cannot be read.
    #[error("cannot read the journal")]
    Load(#[from] LoadError),
    /// The journal failed in a way that leaves open what was stored.
    #[error("it is not known what the journal stored")]
    Journal(#[from] StoreError),
    /// The machine's clock is out of range.
    #[error("the machine's clock is of no use")]
    Clock(#[from] TimestampError),
    /// The task that stores panicked.
    #[error("storing a batch ended abnormally")]
    Task(#[from] JoinError),
}

/// The one active writer.
pub struct Writer<J> {
    journal: Arc<J>,
    core: Core,
    asks: mpsc::Receiver<Envelope>,
    durable: watch::Sender<Durable>,
    head: watch::Sender<Position>,
    roster: watch::Sender<Arc<Roster>>,
    relay: mpsc::Sender<Vec<Entry>>,
}

/// A batch that is being stored.
type Storing = JoinHandle<(Staged, Result<(), StoreError>)>;

impl<J: EventStore> Writer<J> {
    /// Reads the journal. Gives the writer, what to ask it with, and the batches it stores.
    ///
    /// # Errors
    /// When the journal cannot be read, or was altered.
    pub async fn open(
        journal: Arc<J>,
        config: ClusterConfig,
    ) -> Result<(Self, WriterHandle, mpsc::Receiver<Vec<Entry>>), WriterError> {
        let core = read(journal.as_ref(), config).await?;
        let (ask, asks) = mpsc::channel(WAITING);
        let (relay, stored) = mpsc::channel(RELAY);
        let heads = Durable { position: core.state.position(), decision_head: core.state.decision_head() };
        let (durable, head) = (watch::Sender::new(heads), watch::Sender::new(heads.position));
        let roster = watch::Sender::new(Arc::clone(core.state.roster()));
        Ok((Self { journal, core, asks, durable, head, roster, relay }, WriterHandle { asks: ask }, stored))
    }

    /// How far the journal is durable.
    pub fn durable(&self) -> watch::Receiver<Durable> {
        self.durable.subscribe()
    }

    /// The last event of [`Writer::durable`] alone: what a question must account for.
    pub fn head(&self) -> watch::Receiver<Position> {
        self.head.subscribe()
    }

    /// The nodes as of [`Writer::durable`], and whether each is reachable.
    pub fn roster(&self) -> watch::Receiver<Arc<Roster>> {
        self.roster.subscribe()
    }

    /// Decides and stores until every [`WriterHandle`] is gone and all is answered.
    ///
    /// # Errors
    /// When it cannot be known what was stored, or the disk fails.
    pub async fn run(mut self) -> Result<(), WriterError> {
        let mut storing: Option<Storing> = None;
        let mut staged = self.core.begin();
        let mut open = true;
        let mut hold = None;
        while open || storing.is_some() || !staged.answers.is_empty() {
            // Nothing can come into a full batch any more.
            let is_incomplete = open && staged.answers.len() < BATCH && self.core.is_incomplete(&staged);
            hold = is_incomplete.then(|| hold.unwrap_or_else(|| Instant::now() + GATHER));
            let is_due = hold.is_none_or(|until| Instant::now() >= until);
            if storing.is_none() && !staged.answers.is_empty() && is_due {
                storing = self.store(std::mem::replace(&mut staged, self.core.begin()));
                continue;
            }
            tokio::select! {
                biased;
                result = finished(&mut storing), if storing.is_some() => {
                    let (stored, result) = result?;
                    storing = None;
                    if self.settle(&stored, result).await? {
                        self.publish(stored);
                    } else {
                        take_back(stored);
                        take_back(staged);
                        self.core = read(self.journal.as_ref(), self.core.config).await?;
                        staged = self.core.begin();
                    }
                }
                envelope = self.asks.recv(), if open && staged.answers.len() < BATCH => match envelope {
                    Some(envelope) => self.take(envelope, &mut staged)?,
                    None => open = false,
                },
                () = tokio::time::sleep_until(hold.unwrap_or_else(Instant::now)), if storing.is_none() && hold.is_some() => {}
            }
        }
        Ok(())
    }

    /// Decides a command and all that wait behind it.
    fn take(&mut self, first: Envelope, staged: &mut Staged) -> Result<(), WriterError> {
        let mut next = Some(first);
        while let Some(envelope) = next {
            let draw = Draw { now: clock::now()?, event_id: &mut || EventId::new(Uuid::now_v7()) };
            self.core.take(envelope, staged, draw);
            if staged.answers.len() >= BATCH {
                break;
            }
            next = self.asks.try_recv().ok();
        }
        Ok(())
    }

    /// Begins to store a batch; one without content rests on what is durable, and is answered at once.
    fn store(&self, staged: Staged) -> Option<Storing> {
        if staged.batch.is_empty() {
            answer(staged);
            return None;
        }
        let journal = Arc::clone(&self.journal);
        Some(tokio::spawn(async move {
            let result = journal.append(staged.after, &staged.batch).await;
            (staged, result)
        }))
    }

    /// Whether the batch was stored. After an error the journal itself says so.
    async fn settle(&self, staged: &Staged, result: Result<(), StoreError>) -> Result<bool, WriterError> {
        let error = match result {
            Ok(()) => return Ok(true),
            Err(error @ (StoreError::NotDurable(_) | StoreError::Fenced { .. })) => return Err(error.into()),
            Err(error @ (StoreError::Unavailable(_) | StoreError::Damaged(_) | StoreError::Malformed { .. })) => {
                error
            }
        };
        let head = self.journal.head().await?;
        tracing::error!(error = %Causes(&error), %head, "a batch was not confirmed");
        // A batch of remembered answers alone leaves no trace in the head; it counts as not stored.
        if head == staged.position && staged.position > staged.after {
            return Ok(true);
        }
        if head == staged.after { Ok(false) } else { Err(error.into()) }
    }

    /// Tells everybody of a durable batch.
    fn publish(&self, mut staged: Staged) {
        let Batch { entries, .. } = std::mem::take(&mut staged.batch);
        self.durable.send_replace(Durable { position: staged.position, decision_head: staged.decision_head });
        self.head.send_replace(staged.position);
        self.roster.send_if_modified(|roster| {
            let changed = !Arc::ptr_eq(roster, &staged.roster);
            roster.clone_from(&staged.roster);
            changed
        });
        // A relay that is behind reads the journal instead; one that has ended needs nothing.
        let _ = self.relay.try_send(entries);
        answer(staged);
    }
}

async fn read<J: EventStore>(journal: &J, config: ClusterConfig) -> Result<Core, LoadError> {
    let Replayed { state, digest, .. } = load(journal).await?;
    let keys = Keys::load(journal.handled().await?);
    Ok(Core { config, identity: journal.identity(), state, digest, keys })
}

/// The end of the batch that is being stored; there must be one.
async fn finished(storing: &mut Option<Storing>) -> Result<(Staged, Result<(), StoreError>), JoinError> {
    match storing {
        Some(handle) => handle.await,
        None => std::future::pending().await,
    }
}

fn answer(staged: Staged) {
    for (reply, outcome) in staged.answers {
        // Whoever does not wait any more does not need the answer.
        let _ = reply.send(outcome);
    }
}

fn take_back(staged: Staged) {
    for (reply, _) in staged.answers {
        let _ = reply.send(Err(Refusal::Unavailable("the journal could not store it".to_owned())));
    }
}
