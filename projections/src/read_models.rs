//! The read models as queries use them: how far each is, and snapshots to read from.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use otherix_runtime::Runtime;
use otherix_schemas::id::{ClusterId, NodeId};
use otherix_schemas::node::MeshPeerStatus;
use otherix_schemas::position::Position;
use otherix_schemas::projection::ProjectionErrorView;
use otherix_schemas::timestamp::Timestamp;
use rusqlite::Connection;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::task::JoinError;

use crate::READ_MODELS;
use crate::beside::Rebuilds;
use crate::follow::{Follower, SharedStore};
use crate::node::telemetry::Telemetry;
use crate::projection::Projection;
use crate::query::QueryError;
use crate::store::{NEW, Store, checkpoint, reading_connection, remove_database, with_suffix};

pub use crate::store::{OpenError, ProjectionError};

/// Queries that run at the same time.
const READERS: u32 = 4;

/// How far the read models are, as of the last transaction.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) models: Vec<ModelProgress>,
    /// Why none of them can be updated.
    pub(crate) error: Option<String>,
    /// The last such error, also if it is over.
    pub(crate) last_error: Option<ProjectionErrorView>,
}

#[derive(Clone, Debug)]
pub(crate) struct ModelProgress {
    pub(crate) name: &'static str,
    pub(crate) position: Position,
    /// Why it stopped.
    pub(crate) error: Option<String>,
    /// The last such error, also if it is over.
    pub(crate) last_error: Option<ProjectionErrorView>,
}

impl ModelProgress {
    pub(crate) fn at(name: &'static str, position: Position) -> Self {
        Self { name, position, error: None, last_error: None }
    }
}

impl Progress {
    fn of<'p>(&'p self, reads: &'p [&str]) -> impl Iterator<Item = &'p ModelProgress> {
        self.models.iter().filter(|model| reads.contains(&model.name))
    }

    /// The position that all of these read models have reached.
    fn reached(&self, reads: &[&str]) -> Position {
        self.of(reads).map(|model| model.position).min().unwrap_or_default()
    }
}

/// The read models. Clones share everything.
#[derive(Clone, Debug)]
pub struct ReadModels {
    readers: Arc<Readers>,
    progress: watch::Receiver<Progress>,
    wanted: watch::Sender<Position>,
    telemetry: Telemetry,
    rebuilds: Arc<Rebuilds>,
    runtime: Arc<dyn Runtime>,
}

/// Connections for queries.
#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    permits: Semaphore,
    /// How many permits there are.
    at_once: u32,
    idle: Mutex<IdleReaders>,
    /// Notified when a query finds the file damaged, or fails for an unknown reason.
    pub(crate) suspected: Notify,
}

/// Connections to the present file. A connection to a file that was replaced is not used again.
#[derive(Debug, Default)]
struct IdleReaders {
    generation: u64,
    connections: Vec<Connection>,
}

/// The read models at one position.
pub struct ReadSnapshot<'s> {
    pub(crate) db: &'s Connection,
    pub(crate) position: Position,
    pub(crate) telemetry: &'s Telemetry,
    /// The time of the query; none if the machine's clock cannot be used.
    pub(crate) now: Option<Timestamp>,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadSnapshotError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("the query did not end")]
    Task(#[from] JoinError),
    /// The read models that a query needs are at different positions: one is being rebuilt.
    #[error("a read model is being rebuilt")]
    Rebuilding,
}

/// Opens the read models at `path`, and creates them if there are none. `head` is the event store's.
///
/// # Errors
/// When the database cannot be opened or written to, or when its content is of another cluster or ahead of `head`.
pub fn open(
    path: &Path,
    cluster: ClusterId,
    head: Position,
    runtime: Arc<dyn Runtime>,
) -> Result<(Follower, ReadModels), OpenError> {
    open_with(path, cluster, head, runtime, READ_MODELS)
}

/// Like [`open`], with these read models instead of [`READ_MODELS`].
///
/// # Errors
/// As [`open`].
pub fn open_with(
    path: &Path,
    cluster: ClusterId,
    head: Position,
    runtime: Arc<dyn Runtime>,
    projections: &'static [&'static dyn Projection],
) -> Result<(Follower, ReadModels), OpenError> {
    // Left by an interrupted rebuild.
    remove_database(&with_suffix(path, NEW))?;
    let store = Store::open(path, cluster, head, projections)?;
    let checkpoints = store.checkpoints().map_err(|source| OpenError::Database { path: path.to_owned(), source })?;
    let models = projections
        .iter()
        .zip(checkpoints)
        .map(|(projection, position)| ModelProgress::at(projection.name(), position))
        .collect();
    let (progress, progress_receiver) = watch::channel(Progress { models, error: None, last_error: None });
    let (wanted, wanted_receiver) = watch::channel(Position::ZERO);
    let (telemetry, rebuilds) = (Telemetry::default(), Arc::new(Rebuilds::default()));
    let readers = Arc::new(Readers::new(path, READERS));
    let read_models = ReadModels {
        readers: Arc::clone(&readers),
        progress: progress_receiver,
        wanted,
        telemetry: telemetry.clone(),
        rebuilds: Arc::clone(&rebuilds),
        runtime: Arc::clone(&runtime),
    };
    let follower = Follower {
        store: SharedStore::new(store, runtime),
        progress,
        wanted: wanted_receiver,
        telemetry,
        readers,
        rebuilds,
    };
    Ok((follower, read_models))
}

impl ReadModels {
    /// Returns what the last heartbeat of each node told.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Records what a heartbeat told of a node, as of now: see [`Telemetry::record`].
    pub fn record_telemetry(&self, node: NodeId, peers: Vec<MeshPeerStatus>) {
        self.telemetry.record(node, peers, self.runtime.now().ok());
    }

    /// How far each is.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// The last rebuild beside them.
    pub(crate) fn rebuilds(&self) -> &Rebuilds {
        &self.rebuilds
    }

    /// The position that every read model has reached.
    pub fn applied(&self) -> Position {
        let progress = self.progress.borrow();
        progress.models.iter().map(|model| model.position).min().unwrap_or_default()
    }

    /// The position that these read models have reached.
    pub fn reached(&self, reads: &[&str]) -> Position {
        self.progress.borrow().reached(reads)
    }

    /// Why one of these read models stopped.
    pub fn error(&self, reads: &[&str]) -> Option<String> {
        let progress = self.progress.borrow();
        let own = progress.of(reads).find_map(|model| model.error.clone());
        own.or_else(|| progress.error.clone())
    }

    /// Has the file checked for damage, because a query failed.
    pub(crate) fn suspect_damage(&self) {
        self.readers.suspected.notify_one();
    }

    /// Waits until these read models have reached `position`. Returns whether they did within `timeout`.
    pub async fn reach(&self, reads: &[&str], position: Position, timeout: Duration) -> bool {
        if self.reached(reads) >= position {
            return true;
        }
        self.wanted.send_if_modified(|wanted| std::mem::replace(wanted, position.max(*wanted)) < position);
        let mut progress = self.progress.clone();
        let reached = progress.wait_for(|progress| progress.reached(reads) >= position);
        tokio::time::timeout(timeout, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    /// Waits until these read models are later than at `position`.
    pub(crate) async fn reach_later(&self, reads: &[&str], position: Position) {
        let mut progress = self.progress.clone();
        if progress.wait_for(|progress| progress.reached(reads) > position).await.is_err() {
            // The projections have ended, as the control plane is about to.
            std::future::pending::<()>().await;
        }
    }

    /// Runs a query in one read transaction, in which the read models `reads` are at the same position.
    pub(crate) async fn snapshot<T: Send + 'static>(
        &self,
        reads: &'static [&'static str],
        query: impl FnOnce(&ReadSnapshot<'_>) -> T + Send + 'static,
    ) -> Result<T, ReadSnapshotError> {
        let (readers, telemetry) = (Arc::clone(&self.readers), self.telemetry.clone());
        // The semaphore is never closed; without a permit there would only be one connection more.
        let _permit = readers.permits.acquire().await.ok();
        let (readers, now) = (Arc::clone(&readers), self.runtime.now().ok());
        let read = move || {
            let (generation, db) = readers.take().map_err(QueryError::from)?;
            let answer = in_snapshot(&db, reads, (&telemetry, now), query);
            readers.put_back(generation, db);
            answer
        };
        self.runtime.run_blocking("query", read).await?
    }
}

impl Readers {
    /// Connections to the file at `path`, for as many queries at the same time.
    pub(crate) fn new(path: &Path, at_once: u32) -> Self {
        let permits = Semaphore::new(usize::try_from(at_once).unwrap_or(1));
        Self { path: path.to_owned(), permits, at_once, idle: Mutex::default(), suspected: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, IdleReaders> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take(&self) -> Result<(u64, Connection), rusqlite::Error> {
        let (generation, idle) = {
            let mut idle = self.lock();
            (idle.generation, idle.connections.pop())
        };
        Ok((generation, idle.map_or_else(|| reading_connection(&self.path), Ok)?))
    }

    pub(crate) fn put_back(&self, generation: u64, db: Connection) {
        let mut idle = self.lock();
        if idle.generation == generation {
            idle.connections.push(db);
        }
    }

    /// Waits until no query runs. None begins until the result is dropped.
    pub(crate) async fn pause(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.permits.acquire_many(self.at_once).await.ok()
    }

    /// Called when the file was replaced, or is about to be.
    pub(crate) fn replaced(&self) {
        let mut idle = self.lock();
        idle.generation += 1;
        idle.connections.clear();
    }
}

fn in_snapshot<T>(
    db: &Connection,
    reads: &[&str],
    (telemetry, now): (&Telemetry, Option<Timestamp>),
    query: impl FnOnce(&ReadSnapshot<'_>) -> T,
) -> Result<T, ReadSnapshotError> {
    let transaction = db.unchecked_transaction().map_err(QueryError::from)?;
    let mut at = None;
    for name in reads {
        let position = checkpoint(&transaction, name).map_err(QueryError::from)?;
        if at.replace(position).is_some_and(|other| other != position) {
            return Err(ReadSnapshotError::Rebuilding);
        }
    }
    Ok(query(&ReadSnapshot { db: &transaction, position: at.unwrap_or_default(), telemetry, now }))
}
