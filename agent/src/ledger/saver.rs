//! Determines when the ledger is saved: on another thread, some time after the last change, so that saving delays
//! neither a burst of decisions nor the execution of one; with growing delays after failures.
//!
//! Decisions that are not saved are read from the stream at the next start.
//!
//! Cancel-safety: [`LedgerSaver::wait`] may be dropped. If [`LedgerSaver::finish`] is dropped, the ledger on disk may
//! be older.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use otherix_runtime::{Backoff, Runtime, TaskSet};
use otherix_schemas::position::Position;
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::Instant;

use super::{Ledger, store};

/// The ledger is saved when it has not changed for this time.
const QUIET: Duration = Duration::from_millis(100);

/// The longest time that a change remains unsaved while others follow.
const LATEST: Duration = Duration::from_secs(1);

/// Delays after a failure.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Saves the ledger to disk.
#[derive(Debug)]
pub struct LedgerSaver {
    folder: Arc<PathBuf>,
    /// When the first and the last unsaved change were made.
    changes: Option<(Instant, Instant)>,
    /// Present after a failure.
    not_before: Option<Instant>,
    backoff: Backoff,
    /// The last attempt failed.
    is_failing: bool,
    writing: TaskSet<io::Result<Position>>,
    /// The last decision in the ledger on disk.
    saved: watch::Sender<Position>,
    runtime: Arc<dyn Runtime>,
}

impl LedgerSaver {
    /// `saved` receives the position of each ledger that was saved.
    pub fn new(folder: PathBuf, runtime: Arc<dyn Runtime>, saved: watch::Sender<Position>) -> Self {
        let folder = Arc::new(folder);
        let backoff = Backoff::new(RETRY_MIN, RETRY_MAX, runtime.as_ref());
        let writing = TaskSet::default();
        Self { folder, changes: None, not_before: None, backoff, is_failing: false, writing, saved, runtime }
    }

    /// Records that the ledger has changed.
    pub fn changed(&mut self) {
        let now = Instant::now();
        self.changes = Some((self.changes.map_or(now, |(first, _)| first), now));
    }

    fn due(&self) -> Option<Instant> {
        let (first, last) = self.changes?;
        let at = (last + QUIET).min(first + LATEST);
        Some(self.not_before.map_or(at, |not_before| at.max(not_before)))
    }

    /// Waits until [`LedgerSaver::save_if_due`] may have something to do.
    pub async fn wait(&mut self) {
        if let Some(written) = self.writing.join_next().await {
            self.written(written);
            return;
        }
        match self.due() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Starts to save the ledger, if that is due.
    pub fn save_if_due(&mut self, ledger: &Ledger) {
        if self.writing.is_empty() && self.due().is_some_and(|at| Instant::now() >= at) {
            self.changes = None;
            let (folder, ledger) = (Arc::clone(&self.folder), ledger.clone());
            let write = move || store::write(&folder, &ledger).map(|()| ledger.position());
            self.writing.add(self.runtime.run_blocking("save ledger", write));
        }
    }

    /// Saves the ledger if it has unsaved changes, and waits until that is done.
    pub async fn finish(&mut self, ledger: &Ledger) {
        while let Some(written) = self.writing.join_next().await {
            self.written(written);
        }
        if self.changes.take().is_some()
            && let Err(error) = store::write(&self.folder, ledger)
        {
            tracing::warn!(%error, "cannot write the ledger: the next start reads the stream");
        }
    }

    fn written(&mut self, written: Result<io::Result<Position>, JoinError>) {
        match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(position) => {
                self.saved.send_replace(position);
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("the ledger can be written again");
                }
                self.not_before = None;
                self.backoff.reset();
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(
                        folder = %self.folder.display(), %error,
                        "cannot write the ledger: retrying; a restart before that reads the stream"
                    );
                }
                self.changed();
                self.not_before = Some(Instant::now() + self.backoff.next_delay());
            }
        }
    }
}
