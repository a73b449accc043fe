//! What the relay must remember outside of NATS: which stream it has found to be the journal's copy, and the durable
//! consumers of a stream that is being made anew. Small files in a folder of their own, written whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use otherix_schemas::error::Causes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A consumer of a stream that is made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Consumer {
    /// Its configuration, as the server gave it.
    pub(super) config: Value,
    /// Up to this sequence everything is acknowledged.
    pub(super) floor: u64,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Notes(PathBuf);

/// A note cannot be kept or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} `{}`", path.display())]
pub struct NoteError {
    /// What was attempted.
    attempt: &'static str,
    /// On what.
    path: PathBuf,
    /// Why not.
    #[source]
    source: io::Error,
}

impl Notes {
    /// Notes in this folder; it is made when there is something to note.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// When the stream was created that was last found to be a copy of the journal.
    pub(super) fn verified(&self) -> Option<String> {
        // Without the note, the stream is compared again.
        fs::read_to_string(self.verified_file()).ok()
    }

    pub(super) fn set_verified(&self, created: &str) {
        if self.verified().as_deref() != Some(created)
            && let Err(error) = write(&self.verified_file(), created.as_bytes())
        {
            tracing::warn!(error = %Causes(&error), "the stream will be compared with the journal once more");
        }
    }

    /// The consumers of an account's stream that are to be made again.
    pub(super) fn consumers(&self, account: &str) -> Result<Vec<Consumer>, NoteError> {
        let path = self.consumers_file(account);
        let failed = |source| NoteError { attempt: "read", path: path.clone(), source };
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| failed(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failed(error)),
        }
    }

    /// How long ago the noted consumers were made again, if they were.
    pub(super) fn restored(&self, account: &str) -> Option<Duration> {
        let made = fs::metadata(self.restored_file(account)).ok()?.modified().ok()?;
        // A clock that was set back makes it now.
        Some(made.elapsed().unwrap_or_default())
    }

    pub(super) fn set_restored(&self, account: &str) -> Result<(), NoteError> {
        write(&self.restored_file(account), b"")
    }

    /// Notes consumers in place of those that are noted; they are yet to be made again.
    pub(super) fn set_consumers(&self, account: &str, consumers: &[Consumer]) -> Result<(), NoteError> {
        let path = self.consumers_file(account);
        let failed = |source| NoteError { attempt: "write", path: path.clone(), source };
        // In this order: consumers that seem made again, and are not, would be lost.
        let remove = |path: &Path| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
        if consumers.is_empty() {
            remove(&path).map_err(failed)?;
        }
        remove(&self.restored_file(account)).map_err(failed)?;
        if consumers.is_empty() {
            return Ok(());
        }
        write(&path, &serde_json::to_vec_pretty(consumers).map_err(|error| failed(error.into()))?)
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
    let new = path.with_extension("new");
    let durably = || {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    };
    durably().map_err(|source| NoteError { attempt: "write", path: path.to_owned(), source })
}
