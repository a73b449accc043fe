//! When the ledger is written: on a thread of its own, a while after the last change, so that neither a burst of decisions
//! nor the way from a decision to its outcome is held up; and again, with growing pauses, if it could not be written.
//!
//! What is not written yet is read from the stream at the next start.
//!
//! Cancel-safety: [`Keeper::woken`] may be dropped. When [`Keeper::finish`] is dropped, the ledger on disk may be an older one.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::{Ledger, store};

/// How long nothing must change before it is written.
const QUIET: Duration = Duration::from_millis(100);

/// How long a change may remain unwritten while others follow.
const LATEST: Duration = Duration::from_secs(1);

/// Pauses after a failure.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Keeps the ledger on disk.
#[derive(Debug)]
pub struct Keeper {
    folder: Arc<PathBuf>,
    /// The first and the last change that are not on disk.
    changes: Option<(Instant, Instant)>,
    not_before: Option<Instant>,
    pause: Duration,
    failing: bool,
    writing: JoinSet<io::Result<()>>,
}

impl Keeper {
    /// Of the ledger in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        let folder = Arc::new(folder);
        let writing = JoinSet::new();
        Self { folder, changes: None, not_before: None, pause: RETRY_MIN, failing: false, writing }
    }

    /// The ledger has changed.
    pub fn changed(&mut self) {
        let now = Instant::now();
        self.changes = Some((self.changes.map_or(now, |(first, _)| first), now));
    }

    fn due(&self) -> Option<Instant> {
        let (first, last) = self.changes?;
        let at = (last + QUIET).min(first + LATEST);
        Some(self.not_before.map_or(at, |not_before| at.max(not_before)))
    }

    /// Waits until there is something to do for [`Keeper::keep`].
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

    /// Begins to write the ledger if that is due.
    pub fn keep(&mut self, ledger: &Ledger) {
        if self.writing.is_empty() && self.due().is_some_and(|at| Instant::now() >= at) {
            self.changes = None;
            let (folder, ledger) = (Arc::clone(&self.folder), ledger.clone());
            self.writing.spawn_blocking(move || store::write(&folder, &ledger));
        }
    }

    /// Writes what is not written yet.
    pub async fn finish(&mut self, ledger: &Ledger) {
        while let Some(written) = self.writing.join_next().await {
            self.written(written);
        }
        if self.changes.take().is_some()
            && let Err(error) = store::write(&self.folder, ledger)
        {
            tracing::warn!(%error, "the ledger could not be written; the next start reads the stream");
        }
    }

    fn written(&mut self, written: Result<io::Result<()>, JoinError>) {
        match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the ledger can be written again");
                }
                (self.not_before, self.pause) = (None, RETRY_MIN);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(
                        folder = %self.folder.display(), %error,
                        "the ledger cannot be written: going on without, and trying again; a restart reads the stream"
                    );
                }
                self.changed();
                self.not_before = Some(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(RETRY_MAX);
            }
        }
    }
}
