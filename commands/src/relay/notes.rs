//! What the relay keeps outside of NATS: which stream it has found to be a copy of the event store, and the durable
//! consumers of a stream that is being rebuilt. Small files in a folder of their own, replaced atomically.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use otherix_runtime::files;
use otherix_schemas::error::Causes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A consumer of a stream that is being rebuilt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedConsumer {
    /// Its configuration, as the server returned it.
    pub(super) config: Value,
    /// The sequence up to which everything is acknowledged.
    pub(super) floor: u64,
}

/// The folder of the notes.
#[derive(Clone, Debug)]
pub struct Notes(PathBuf);

/// A note cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} `{}`", path.display())]
pub struct NoteError {
    attempt: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Notes {
    /// Returns the notes in this folder, which is created with the first note.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// Returns the creation time of the stream that was last found to be a copy of the event store.
    pub(super) fn verified(&self) -> Option<String> {
        // Without the note, the stream is compared as a whole.
        fs::read_to_string(self.verified_file()).ok()
    }

    pub(super) fn set_verified(&self, created: &str) {
        if self.verified().as_deref() != Some(created)
            && let Err(error) = write(&self.verified_file(), created.as_bytes())
        {
            let error = Causes(&error);
            tracing::warn!(%error, "cannot note that the stream is a copy of the journal; the next start compares it");
        }
    }

    /// Returns the consumers of an account's stream that are to be restored.
    pub(super) fn consumers(&self, account: &str) -> Result<Vec<SavedConsumer>, NoteError> {
        let path = self.consumers_file(account);
        let failed = |source| NoteError { attempt: "read", path: path.clone(), source };
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| failed(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Returns how long ago the saved consumers were restored, if they were.
    pub(super) fn restored(&self, account: &str) -> Option<Duration> {
        let restored_at = fs::metadata(self.restored_file(account)).ok()?.modified().ok()?;
        // Zero if the clock was set back.
        Some(restored_at.elapsed().unwrap_or_default())
    }

    pub(super) fn set_restored(&self, account: &str) -> Result<(), NoteError> {
        write(&self.restored_file(account), b"")
    }

    /// Replaces the saved consumers by others, which are to be restored.
    pub(super) fn set_consumers(&self, account: &str, consumers: &[SavedConsumer]) -> Result<(), NoteError> {
        let path = self.consumers_file(account);
        let failed = |source| NoteError { attempt: "write", path: path.clone(), source };
        // In this order: consumers that seem restored, and are not, would be lost.
        if consumers.is_empty() {
            files::remove(&path).map_err(failed)?;
        }
        files::remove(&self.restored_file(account)).map_err(failed)?;
        if consumers.is_empty() {
            return Ok(());
        }
        write(&path, &serde_json::to_vec_pretty(consumers).map_err(|error| failed(error.into()))?)
    }

    /// Removes saved consumers that `matches` accepts. Whether the others are restored does not change.
    pub(super) fn forget_consumer(
        &self,
        account: &str,
        matches: impl Fn(&SavedConsumer) -> bool,
    ) -> Result<(), NoteError> {
        let saved = self.consumers(account)?;
        let kept: Vec<SavedConsumer> = saved.iter().filter(|consumer| !matches(consumer)).cloned().collect();
        if kept.len() == saved.len() {
            return Ok(());
        }
        if kept.is_empty() {
            return self.set_consumers(account, &[]);
        }
        let path = self.consumers_file(account);
        let failed = |source| NoteError { attempt: "write", path: path.clone(), source };
        write(&path, &serde_json::to_vec_pretty(&kept).map_err(|error| failed(error.into()))?)
    }

    fn verified_file(&self) -> PathBuf {
        self.0.join("verified")
    }

    fn restored_file(&self, account: &str) -> PathBuf {
        self.0.join(format!("consumers-{account}.restored"))
    }

    fn consumers_file(&self, account: &str) -> PathBuf {
        self.0.join(format!("consumers-{account}.json"))
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), NoteError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = files::create_private_folder(folder).and_then(|()| files::replace(path, content));
    written.map_err(|source| NoteError { attempt: "write", path: path.to_owned(), source })
}
