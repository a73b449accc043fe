//! What other parts know of the log: the newest checkpoint, what nodes keep of it, and proofs.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use otherix_runtime::Runtime;
use otherix_schemas::id::NodeId;
use otherix_schemas::log::{
    CHECKPOINT_MAX, ConsistencyRange, LogConsistency, LogTiles, LogView, LogWitnesses, SignedLogKey,
};
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_tlog::tile::Resource;
use otherix_tlog::{ConsistencyProof, Policy, TileSource, TreeHead, VerifiedTiles};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::stop::{CheckpointOrigin, LogStop};
use super::tiles::{TileStore, TileStoreError};

/// Heartbeats that may wait for the follower; more are dropped, as each node sends another one soon.
const WAITING_MAX: usize = 4096;

/// Requests that read tiles at the same time; others wait.
const READERS_MAX: usize = 2;

/// Checkpoints and ids of witnesses in a view, in bytes, at most: an answer is one message of 1 MiB. As nodes that
/// follow the log keep the same few checkpoints, that is enough for 10,000 nodes.
const VIEW_WITNESSES_MAX: usize = 640 * 1024;

/// An id in JSON, with its quotation marks and a comma, in bytes.
const NODE_ID_LENGTH: usize = 39;

/// The newest checkpoint.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) note: String,
    pub(super) head: TreeHead,
    pub(super) position: Position,
    pub(super) signed_at: Option<Timestamp>,
}

/// What a heartbeat told of the log.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) from: CheckpointOrigin,
    /// One that the log's key has signed.
    pub(super) checkpoint: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    tiles: Option<Arc<TileStore>>,
    published: Option<Published>,
    stopped: Option<LogStop>,
    witnesses: BTreeMap<NodeId, String>,
    contradictions: BTreeMap<NodeId, String>,
    /// The last one that was in a heartbeat of no member.
    unknown_node: Option<String>,
}

/// The log, for those that ask about it. Clones share their content.
#[derive(Clone, Debug)]
pub struct LogHandle {
    key: SignedLogKey,
    /// What shows that the key has signed a checkpoint.
    policy: Option<Arc<Policy>>,
    shared: Arc<Mutex<Shared>>,
    heard: mpsc::Sender<Heard>,
    readers: Arc<Semaphore>,
    runtime: Arc<dyn Runtime>,
}

/// The nodes by the checkpoint that they keep, in so many bytes at most, and the number of nodes that do not fit. The
/// checkpoints that most nodes keep come first.
fn witnesses(kept: &BTreeMap<NodeId, String>, bytes_max: usize) -> (Vec<LogWitnesses>, u32) {
    let mut groups: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
    for (node, checkpoint) in kept {
        groups.entry(checkpoint).or_default().push(*node);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, nodes)| Reverse(nodes.len()));
    let (mut witnesses, mut omitted, mut bytes_left) = (Vec::new(), 0, bytes_max);
    for (checkpoint, mut node_ids) in groups {
        let fit = bytes_left.saturating_sub(checkpoint.len()) / NODE_ID_LENGTH;
        omitted += node_ids.len().saturating_sub(fit);
        node_ids.truncate(fit);
        if !node_ids.is_empty() {
            bytes_left -= checkpoint.len() + node_ids.len() * NODE_ID_LENGTH;
            witnesses.push(LogWitnesses { checkpoint: checkpoint.to_owned(), node_ids });
        }
    }
    (witnesses, u32::try_from(omitted).unwrap_or(u32::MAX))
}

/// The log cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum LogUnavailable {
    #[error("the log has no checkpoint yet")]
    NoCheckpoint,
    #[error("the log does not have these sizes")]
    Sizes,
    #[error("`{0}` is not the path of a tile")]
    Path(String),
    #[error(transparent)]
    Store(#[from] TileStoreError),
    #[error("the log's tiles are not those of its checkpoint: {0}")]
    Tiles(String),
    #[error("interrupted")]
    Interrupted,
}

impl LogHandle {
    /// A log that nobody follows yet, and the receiver of what heartbeats tell.
    pub(super) fn new(
        key: SignedLogKey,
        policy: Option<Policy>,
        runtime: Arc<dyn Runtime>,
    ) -> (Self, mpsc::Receiver<Heard>) {
        let (heard, receiver) = mpsc::channel(WAITING_MAX);
        let policy = policy.map(Arc::new);
        let readers = Arc::new(Semaphore::new(READERS_MAX));
        (Self { key, policy, shared: Arc::default(), heard, readers, runtime }, receiver)
    }

    /// A log without events that never signs anything.
    pub fn idle(key: SignedLogKey, runtime: Arc<dyn Runtime>) -> Self {
        Self::new(key, None, runtime).0
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_tiles(&self, tiles: Arc<TileStore>) {
        self.lock().tiles = Some(tiles);
    }

    pub(super) fn publish(&self, published: Published) {
        let mut shared = self.lock();
        shared.published = Some(published);
    }

    pub(super) fn set_stopped(&self, stopped: Option<LogStop>) {
        self.lock().stopped = stopped;
    }

    pub(super) fn stopped(&self) -> Option<LogStop> {
        self.lock().stopped.clone()
    }

    /// The last event that a checkpoint covers; zero before the first checkpoint.
    pub fn position(&self) -> Position {
        self.lock().published.as_ref().map_or(Position::ZERO, |published| published.position)
    }

    /// Whether the journal does not continue a checkpoint.
    pub(super) fn is_contradicted(&self) -> bool {
        matches!(self.lock().stopped, Some(LogStop::Contradiction { .. }))
    }

    /// Notes whether the journal continues what a node keeps.
    pub(super) fn compared(&self, node: NodeId, difference: Option<String>) {
        let mut shared = self.lock();
        match difference {
            Some(text) => shared.contradictions.insert(node, text),
            None => shared.contradictions.remove(&node),
        };
    }

    /// Whether the log's key has signed a checkpoint.
    fn is_signed(&self, note: &str) -> bool {
        let published = self.lock().published.as_ref().is_some_and(|published| published.note == note);
        let verifies = |policy: &Arc<Policy>| policy.verify(note.as_bytes()).is_ok();
        published || note.len() <= CHECKPOINT_MAX && self.policy.as_ref().is_some_and(verifies)
    }

    /// A node has told which checkpoint it keeps; one that the log's key has not signed counts as none. Returns how the
    /// journal is known to differ from it.
    pub fn heard(&self, node: NodeId, checkpoint: Option<String>) -> Option<String> {
        let known = self.lock().witnesses.get(&node).cloned();
        let checkpoint = checkpoint.filter(|note| known.as_ref() == Some(note) || self.is_signed(note));
        let contradiction = {
            let mut shared = self.lock();
            match &checkpoint {
                Some(note) => shared.witnesses.insert(node, note.clone()),
                None => shared.witnesses.remove(&node),
            };
            if checkpoint.is_none() {
                shared.contradictions.remove(&node);
            }
            shared.contradictions.get(&node).cloned()
        };
        let _dropped_if_full = self.heard.try_send(Heard { from: CheckpointOrigin::Node(node), checkpoint });
        contradiction
    }

    /// Somebody who is not a member of the cluster has told of a checkpoint: a journal that has lost its nodes learns
    /// by it what was signed. Only the log's own signature counts.
    pub fn heard_of_unknown_node(&self, checkpoint: String) {
        if self.lock().unknown_node.as_ref() == Some(&checkpoint) || !self.is_signed(&checkpoint) {
            return;
        }
        let heard = Heard { from: CheckpointOrigin::UnknownNode, checkpoint: Some(checkpoint.clone()) };
        if self.heard.try_send(heard).is_ok() {
            self.lock().unknown_node = Some(checkpoint);
        }
    }

    /// Forgets nodes that are not members.
    pub fn retain(&self, is_member: impl Fn(NodeId) -> bool) {
        let mut shared = self.lock();
        shared.witnesses.retain(|node, _| is_member(*node));
        shared.contradictions.retain(|node, _| is_member(*node));
    }

    /// The newest checkpoint.
    pub fn checkpoint(&self) -> Option<String> {
        self.lock().published.as_ref().map(|published| published.note.clone())
    }

    /// The key that checkpoints are signed with.
    pub fn key(&self) -> &SignedLogKey {
        &self.key
    }

    /// The state of the log.
    pub fn view(&self) -> LogView {
        let shared = self.lock();
        let published = shared.published.as_ref();
        let (witnesses, witnesses_omitted) = witnesses(&shared.witnesses, VIEW_WITNESSES_MAX);
        LogView {
            key: self.key.key.clone(),
            checkpoint: published.map(|published| published.note.clone()),
            signed_at: published.and_then(|published| published.signed_at),
            position: published.map_or(Position::ZERO, |published| published.position),
            stopped: shared.stopped.as_ref().map(ToString::to_string),
            witnesses,
            witnesses_omitted,
        }
    }

    fn current(&self) -> Result<(Arc<TileStore>, TreeHead), LogUnavailable> {
        let shared = self.lock();
        let head = shared.published.as_ref().map(|published| published.head);
        shared.tiles.clone().zip(head).ok_or(LogUnavailable::NoCheckpoint)
    }

    /// Waits until tiles may be read. The permit lasts as long as the work, even if nobody waits for that any more.
    async fn reading(&self) -> Result<OwnedSemaphorePermit, LogUnavailable> {
        Arc::clone(&self.readers).acquire_owned().await.map_err(|_| LogUnavailable::Interrupted)
    }

    /// Proves that the log has grown from one size to another.
    ///
    /// # Errors
    /// If it does not have these sizes, or its tiles cannot be read.
    pub async fn consistency(&self, range: ConsistencyRange) -> Result<LogConsistency, LogUnavailable> {
        let ConsistencyRange { from, to } = range;
        let (tiles, head) = self.current()?;
        if from > to || to > head.size() {
            return Err(LogUnavailable::Sizes);
        }
        let permit = self.reading().await?;
        let prove = move || {
            let _permit = permit;
            let failed = |error: &(dyn std::error::Error + 'static)| {
                LogUnavailable::Tiles(otherix_schemas::error::Causes(error).to_string())
            };
            let mut tiles = VerifiedTiles::open(&head, tiles.as_ref()).map_err(|error| failed(&error))?;
            let proof = ConsistencyProof::make(from, to, &mut tiles).map_err(|error| failed(&error))?;
            Ok(LogConsistency { hashes: proof.hashes().iter().map(ToString::to_string).collect() })
        };
        self.runtime.run_blocking("prove consistency", prove).await.map_err(|_| LogUnavailable::Interrupted)?
    }

    /// Reads tiles by their paths.
    ///
    /// # Errors
    /// If a path is none of a tile, or the database fails.
    pub async fn tiles(&self, paths: Vec<String>) -> Result<LogTiles, LogUnavailable> {
        let (tiles, _) = self.current()?;
        let permit = self.reading().await?;
        let read = move || {
            let _permit = permit;
            let read = |path: String| match path.parse() {
                Ok(Resource::Tile(tile)) => {
                    let content = tiles.as_ref().tile(tile)?;
                    Ok(content.map(|bytes| STANDARD.encode(bytes)))
                }
                Ok(Resource::Checkpoint | Resource::Bundle(_)) | Err(_) => Err(LogUnavailable::Path(path)),
            };
            Ok(LogTiles { tiles: paths.into_iter().map(read).collect::<Result<_, _>>()? })
        };
        self.runtime.run_blocking("read tiles", read).await.map_err(|_| LogUnavailable::Interrupted)?
    }
}
