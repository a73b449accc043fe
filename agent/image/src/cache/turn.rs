//! Whoever wants the same image waits for the one who fetches it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::store::open_lock;
use crate::fetch::Cancel;

/// How often it is tried to get the lock: a lock that waits cannot be cancelled.
const POLL: Duration = Duration::from_millis(50);

/// The lock of a part or digest. Its file is removed when it is released.
#[derive(Debug)]
pub(super) struct Turn {
    path: PathBuf,
    _file: File,
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Those who have opened it already notice that it is gone. If it stays, the next cleaning removes it.
        let _left = fs::remove_file(&self.path);
    }
}

/// Takes the lock if nobody has it.
pub(super) fn try_take(path: &Path) -> io::Result<Option<Turn>> {
    loop {
        let file = open_lock(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => {}
        }
        // The one who had it has removed the file in the meantime, and another may have created it again.
        let is_current = match fs::metadata(path) {
            Ok(found) => (found.dev(), found.ino()) == file.metadata().map(|own| (own.dev(), own.ino()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if is_current {
            return Ok(Some(Turn { path: path.to_owned(), _file: file }));
        }
    }
}

/// Waits for the lock; `None` if it was cancelled.
pub(super) fn wait(path: &Path, cancel: &Cancel) -> io::Result<Option<Turn>> {
    loop {
        if let Some(turn) = try_take(path)? {
            return Ok(Some(turn));
        }
        if cancel.wait(POLL) {
            return Ok(None);
        }
    }
}
