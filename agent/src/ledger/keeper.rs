//! Decides when the ledger is written: on another thread, some time after the last change, so that neither a burst of
//! decisions nor the time from a decision to its outcome is affected; with growing delays after failures.
//!
//! What is not written is read from the stream at the next start.
//!
//! Cancel-safety: [`Keeper::woken`] may be dropped. If [`Keeper::finish`] is dropped, the ledger on disk may be older.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use otherix_runtime::{Backoff, SystemRuntime};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::{Ledger, store};

/// The ledger is written when it has not changed for this time.
const QUIET: Duration = Duration::from_millis(100);

/// The longest time that a change remains unwritten while others follow.
const LATEST: Duration = Duration::from_secs(1);

/// Delays after a failure.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Writes the ledger to disk.
#[derive(Debug)]
pub struct Keeper {
    folder: Arc<PathBuf>,
    /// When the first and the last change that are not on disk were made.
    changes: Option<(Instant, Instant)>,
    not_before: Option<Instant>,
    backoff: Backoff,
    failing: bool,
    writing: JoinSet<io::Result<()>>,
}

impl Keeper {
    pub fn new(folder: PathBuf) -> Self {
        let folder = Arc::new(folder);
        let backoff = Backoff::new(RETRY_MIN, RETRY_MAX, &SystemRuntime);
        Self { folder, changes: None, not_before: None, backoff, failing: false, writing: JoinSet::new() }
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

    /// Waits until [`Keeper::keep`] has something to do.
    pub async fn woken(&mut self) {
        if let Some(written) = self.writing.join_next().await {
            self.written(written);
            return;
        }
        match self.due() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Starts writing the ledger if that is due.
    pub fn keep(&mut self, ledger: &Ledger) {
        if self.writing.is_empty() && self.due().is_some_and(|at| Instant::now() >= at) {
            self.changes = None;
            let (folder, ledger) = (Arc::clone(&self.folder), ledger.clone());
            self.writing.spawn_blocking(move || store::write(&folder, &ledger));
        }
    }

    /// Writes the changes that are not on disk.
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

    fn written(&mut self, written: Result<io::Result<()>, JoinError>) {
        match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the ledger can be written again");
                }
                self.not_before = None;
                self.backoff.reset();
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
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
