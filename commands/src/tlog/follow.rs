//! The follower: it appends what is durable to the tree, compares the tree with all checkpoints that it hears of, and
//! signs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use otherix_runtime::{LogLimit, Runtime};
use otherix_schemas::error::Causes;
use otherix_schemas::id::NodeId;
use otherix_schemas::log::SignedLogKey;
use otherix_schemas::position::{Epoch, Position};
use otherix_tlog::tile::TileHashes;
use otherix_tlog::{Checkpoint, Hash, Policy, SignerKey, TileBuilder, TreeHead};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::handle::{Heard, LogHandle, Published};
use super::numbering::LeafNumbering;
use super::stop::{CheckpointOrigin, LogStop};
use super::tiles::{TileStore, TileStoreError};
use crate::domain::Roster;
use crate::store::{EventStore, StoreError};
use crate::writer::Durable;

/// Between two checkpoints, unless something else is set.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// Events read from the event store at once.
const PAGE: u32 = 500;

/// Full tiles that are stored together while a tree is made again.
const TILES_AT_ONCE: usize = 64;

/// Roots of earlier checkpoints that are kept in memory: a node keeps one of the last few.
const RECENT_MAX: usize = 10_000;

/// The stream of checkpoints failed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SinkError(Box<dyn std::error::Error + Send + Sync>);

impl SinkError {
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

/// Where checkpoints are published.
pub trait CheckpointSink: Send + Sync {
    /// The last checkpoint of an epoch that was published; `None` if there is none.
    fn newest(&self, epoch: Epoch) -> BoxFuture<'_, Result<Option<String>, SinkError>>;

    /// Publishes a checkpoint, which is stored by the time that this returns.
    fn publish(&self, epoch: Epoch, note: String) -> BoxFuture<'_, Result<(), SinkError>>;
}

/// What the follower needs.
pub struct Inputs<S> {
    pub store: Arc<S>,
    pub durable: watch::Receiver<Durable>,
    pub roster: watch::Receiver<Roster>,
    pub sink: Arc<dyn CheckpointSink>,
    /// The log's database.
    pub path: PathBuf,
    pub key: SignerKey,
    /// The public key, with the signature of the decision key.
    pub signed_key: SignedLogKey,
    /// How long nodes may take after [`LogFollower::run`] has begun to tell which checkpoint they keep.
    pub settle: Duration,
    /// Between two checkpoints, and between two reads of the journal for them.
    pub interval: Duration,
    pub runtime: Arc<dyn Runtime>,
}

/// The follower of a journal.
pub struct LogFollower<S> {
    pub(super) inputs: Inputs<S>,
    pub(super) epoch: Epoch,
    pub(super) policy: Policy,
    pub(super) handle: LogHandle,
    heard: mpsc::Receiver<Heard>,
    /// Nodes that have told which checkpoint they keep.
    pub(super) told: BTreeSet<NodeId>,
    started: Instant,
    /// The roots of checkpoints that this process has signed or compared.
    pub(super) recent: BTreeMap<u64, Hash>,
}

/// Why the follower begins again.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    #[error("cannot read the journal")]
    Journal(#[from] StoreError),
    #[error(transparent)]
    Tiles(#[from] TileStoreError),
    #[error("the stored tiles are not those of the tree: {0}")]
    Tree(String),
    #[error("the log's own checkpoint is not signed with its key: restore `log-key.json` from a backup")]
    OtherKey,
    #[error("the event at position {position} is leaf {expected}, and the tree has {found}")]
    Numbering { position: Position, expected: u64, found: u64 },
    #[error("cannot read the stream of checkpoints")]
    Stream(#[source] SinkError),
    #[error("a checkpoint cannot be signed")]
    Sign(#[from] otherix_tlog::checkpoint::SignCheckpointError),
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Stopped(#[from] LogStop),
}

/// The tree so far.
pub(super) struct Tree {
    /// The log's database.
    pub(super) log: Arc<TileStore>,
    /// Where the tiles of this tree are: the log's database, or another one while the tree is made again and has not
    /// been found to continue what was signed.
    pub(super) tiles: Arc<TileStore>,
    pub(super) builder: TileBuilder,
    pub(super) numbering: LeafNumbering,
    pub(super) position: Position,
    pub(super) signed: u64,
    /// Full tiles that are not stored yet.
    pub(super) complete: Vec<TileHashes>,
    /// Whether all tiles of the tree are stored.
    pub(super) is_stored: bool,
    /// A checkpoint that has not been published yet.
    pub(super) unpublished: Option<String>,
}

impl Tree {
    /// Whether the tree is made again, apart from the tiles of what was signed.
    pub(super) fn is_rebuilt(&self) -> bool {
        !Arc::ptr_eq(&self.log, &self.tiles)
    }

    /// The tiles that have to be stored before the tree can be read, in the order of writing.
    pub(super) fn unstored(&mut self) -> Vec<TileHashes> {
        let mut tiles = std::mem::take(&mut self.complete);
        tiles.extend(self.builder.partial());
        tiles
    }
}

impl<S: EventStore> LogFollower<S> {
    /// Returns the follower, and what other parts know of the log.
    ///
    /// # Errors
    /// If the key is not that of a log.
    pub fn new(inputs: Inputs<S>) -> Result<(Self, LogHandle), otherix_tlog::CheckpointError> {
        let policy = Policy::of_log(inputs.key.public_key().clone())?;
        let (handle, heard) =
            LogHandle::new(inputs.signed_key.clone(), Some(policy.clone()), Arc::clone(&inputs.runtime));
        let follower = Self {
            epoch: inputs.store.identity().epoch,
            policy,
            handle: handle.clone(),
            heard,
            told: BTreeSet::new(),
            started: Instant::now(),
            recent: BTreeMap::new(),
            inputs,
        };
        Ok((follower, handle))
    }

    /// Follows until the writer ends. Whatever fails, commands are not affected.
    pub async fn run(mut self) {
        // Nodes can only tell what they keep once heartbeats are answered.
        self.started = Instant::now();
        loop {
            match self.follow().await {
                Ok(()) => return,
                Err(error) => {
                    static FAILED: LogLimit = LogLimit::new();
                    if let Some(hits) = FAILED.hit() {
                        let error = Causes(&error);
                        tracing::error!(%error, hits, "the transparency log signs no checkpoints: trying again");
                    }
                    // A contradiction outlasts failures.
                    if !self.handle.is_contradicted() {
                        self.handle.set_stopped(Some(LogStop::failure(&error)));
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
            if self.inputs.durable.has_changed().is_err() {
                return;
            }
        }
    }

    async fn follow(&mut self) -> Result<(), FollowError> {
        let mut tree = self.resume().await?;
        let newest = self.inputs.sink.newest(self.epoch).await.map_err(FollowError::Stream)?;
        self.catch_up(&mut tree).await?;
        self.compare_stored(&mut tree).await?;
        if let Some(note) = newest {
            self.compare(&mut tree, CheckpointOrigin::Stream, &note).await?;
        }
        let (mut next, mut is_due) = (Instant::now(), true);
        loop {
            let is_waiting = is_due || tree.unpublished.is_some();
            tokio::select! {
                heard = self.heard.recv() => match heard {
                    Some(heard) => self.heard(&mut tree, heard).await?,
                    None => return Ok(()),
                },
                changed = self.inputs.durable.changed(), if !is_due => match changed {
                    Ok(()) => is_due = true,
                    Err(_) => return Ok(()),
                },
                () = sleep_until(next), if is_waiting => {
                    next = Instant::now() + self.inputs.interval;
                    self.catch_up(&mut tree).await?;
                    // Due again at the next interval, if nodes have yet to tell what they keep.
                    is_due = !self.may_sign() && self.handle.stopped().is_none();
                    if self.may_sign() && tree.builder.head().size() > tree.signed {
                        self.sign(&mut tree).await?;
                    }
                    self.publish(&mut tree).await;
                }
            }
        }
    }

    /// Appends all durable events.
    pub(super) async fn catch_up(&mut self, tree: &mut Tree) -> Result<(), FollowError> {
        let until = self.inputs.durable.borrow_and_update().position;
        while tree.position < until {
            let entries = self.inputs.store.read_bodies(tree.position, PAGE).await?;
            if entries.is_empty() {
                break;
            }
            for (position, body) in entries.into_iter().take_while(|(position, _)| *position <= until) {
                let (expected, found) = (tree.numbering.size_at(position) - 1, tree.builder.head().size());
                if expected != found {
                    return Err(FollowError::Numbering { position, expected, found });
                }
                tree.is_stored = false;
                let appended = tree.builder.append(Hash::of_leaf(&body));
                appended.map_err(|error| FollowError::Tree(error.to_string()))?;
                tree.position = position;
            }
            let complete = tree.builder.take_complete();
            tree.complete.extend(complete);
            if tree.complete.len() >= TILES_AT_ONCE {
                let tiles = std::mem::take(&mut tree.complete);
                self.blocking(tree, move |store, epoch| store.store(epoch, &tiles, None)).await?;
            }
        }
        Ok(())
    }

    /// Whether checkpoints may be signed: nothing contradicts, and all nodes have told what they keep, or have had time
    /// to. A journal without nodes may be one that has lost them.
    fn may_sign(&self) -> bool {
        if self.handle.stopped().is_some() {
            return false;
        }
        let members = &self.inputs.roster.borrow().members;
        let have_told = !members.is_empty() && members.keys().all(|node| self.told.contains(node));
        have_told || self.started.elapsed() >= self.inputs.settle
    }

    /// Signs the tree: first all is stored, then others hear of it.
    async fn sign(&mut self, tree: &mut Tree) -> Result<(), FollowError> {
        let head = tree.builder.head();
        let origin = self.inputs.key.public_key().name().clone();
        let note = Checkpoint::new(origin, head).sign(&self.inputs.key)?.to_string();
        let tiles = tree.unstored();
        let stored = note.clone();
        self.blocking(tree, move |store, epoch| store.store(epoch, &tiles, Some(&stored))).await?;
        (tree.is_stored, tree.signed, tree.unpublished) = (true, head.size(), Some(note.clone()));
        self.remember(&head);
        let (position, signed_at) = (tree.position, self.inputs.runtime.now().ok());
        self.handle.publish(Published { note, head, position, signed_at });
        Ok(())
    }

    async fn publish(&self, tree: &mut Tree) {
        let Some(note) = tree.unpublished.clone().filter(|_| self.handle.stopped().is_none()) else { return };
        match self.inputs.sink.publish(self.epoch, note).await {
            Ok(()) => tree.unpublished = None,
            Err(error) => {
                static FAILED: LogLimit = LogLimit::new();
                if let Some(hits) = FAILED.hit() {
                    tracing::warn!(error = %Causes(&error), hits, "cannot publish a checkpoint: trying again");
                }
            }
        }
    }

    pub(super) fn remember(&mut self, head: &TreeHead) {
        self.recent.insert(head.size(), *head.root());
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_first();
        }
    }
}
