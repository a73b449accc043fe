//! The history of the read models: what they were at any position. The projections are applied once more, to a database
//! of its own, in which triggers keep every version of each row (docs/adr/0033).

mod answer;
mod follow;
mod store;
mod tables;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use otherix_runtime::Runtime;
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::Position;
use otherix_schemas::projection::ProjectionErrorView;
use rusqlite::{ErrorCode, InterruptHandle};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

pub use self::follow::HistoryFollower;
use self::store::{HistoryStore, look_at, prepare_to_read, progress};
use crate::node::telemetry::Telemetry;
use crate::query::QueryError;
use crate::queue::CallerLimit;
use crate::read_models::{OpenError, ReadSnapshot, ReadSnapshotError, Readers};

/// How far the history is.
#[derive(Clone, Debug, Default)]
pub struct HistoryProgress {
    pub position: Position,
    /// Why it stopped.
    pub error: Option<String>,
    /// The last such error, also if it is over.
    pub last_error: Option<ProjectionErrorView>,
}

/// The history. Clones share everything.
#[derive(Clone, Debug)]
pub struct History {
    shared: Arc<Shared>,
    progress: watch::Receiver<HistoryProgress>,
    wanted: watch::Sender<Position>,
    runtime: Arc<dyn Runtime>,
}

#[derive(Debug)]
struct Shared {
    readers: Readers,
    /// The queries of each caller that wait or are answered.
    callers: CallerLimit,
}

/// Opens the history at `path`, or begins one if there is none that can be continued. `head` is the event store's.
///
/// # Errors
/// When the database cannot be opened or written to.
pub fn open(
    path: &Path,
    cluster: ClusterId,
    head: Position,
    runtime: Arc<dyn Runtime>,
) -> Result<(HistoryFollower, History), OpenError> {
    let store = HistoryStore::open(path, cluster, head)?;
    let position = store.position().map_err(|source| OpenError::Database { path: path.to_owned(), source })?;
    let (progress, progress_receiver) = watch::channel(HistoryProgress { position, ..HistoryProgress::default() });
    let (wanted, wanted_receiver) = watch::channel(Position::ZERO);
    // One query at a time.
    let shared = Arc::new(Shared { readers: Readers::new(path, 1), callers: CallerLimit::default() });
    let history =
        History { shared: Arc::clone(&shared), progress: progress_receiver, wanted, runtime: Arc::clone(&runtime) };
    Ok((HistoryFollower::new(store, progress, wanted_receiver, shared, runtime), history))
}

impl History {
    /// How far the history is, as of its last transaction.
    pub fn progress(&self) -> HistoryProgress {
        self.progress.borrow().clone()
    }

    /// Waits until the history contains `position`. Returns whether it did within `limit`.
    pub async fn reach(&self, position: Position, limit: Duration) -> bool {
        let mut progress = self.progress.clone();
        if progress.borrow().position >= position {
            return true;
        }
        self.wanted.send_if_modified(|wanted| std::mem::replace(wanted, position.max(*wanted)) < position);
        let reached = progress.wait_for(|progress| progress.position >= position);
        let reached = timeout(limit, reached).await.is_ok_and(|reached| reached.is_ok());
        if !reached {
            // Nobody waits any more: the history leaves time to others again.
            self.wanted.send_if_modified(|wanted| *wanted == position && std::mem::take(wanted) == position);
        }
        reached
    }

    /// Runs a query on the read models as they were at `position`, for `limit` at most.
    async fn snapshot<T: Send + 'static>(
        &self,
        position: Position,
        limit: Duration,
        query: impl FnOnce(&ReadSnapshot<'_>) -> T + Send + 'static,
    ) -> Result<T, ReadSnapshotError> {
        let shared = Arc::clone(&self.shared);
        let (interrupt, interrupted) = oneshot::channel();
        let read = move || read(&shared.readers, position, interrupt, query);
        let mut task = self.runtime.run_blocking("query of the past", read);
        if let Ok(result) = timeout(limit, &mut task).await {
            return result?;
        }
        if let Ok(interrupt) = interrupted.await {
            let interrupt: InterruptHandle = interrupt;
            interrupt.interrupt();
        }
        task.await?
    }
}

fn read<T>(
    readers: &Readers,
    position: Position,
    interrupt: oneshot::Sender<InterruptHandle>,
    query: impl FnOnce(&ReadSnapshot<'_>) -> T,
) -> Result<T, ReadSnapshotError> {
    let (generation, db) = readers.take().map_err(QueryError::from)?;
    // Nobody receives it if the query is not waited for any more.
    let _unused = interrupt.send(db.get_interrupt_handle());
    prepare_to_read(&db).and_then(|()| look_at(&db, position)).map_err(QueryError::from)?;
    let transaction = db.unchecked_transaction().map_err(QueryError::from)?;
    if progress(&transaction).map_err(QueryError::from)? < position {
        return Err(ReadSnapshotError::Rebuilding);
    }
    // What heartbeats told is no part of the history.
    let telemetry = Telemetry::default();
    let answer = query(&ReadSnapshot { db: &transaction, position, telemetry: &telemetry, now: None });
    transaction.finish().map_err(QueryError::from)?;
    readers.put_back(generation, db);
    Ok(answer)
}

/// Whether a query has failed because it took too long.
pub(crate) fn is_interrupted(error: &QueryError) -> bool {
    let QueryError::Database(error) = error else { return false };
    error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
}
