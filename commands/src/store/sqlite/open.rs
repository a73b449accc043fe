//! The lock that lets one process write to a journal, and what SQLite's errors mean when it is opened.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use sqlx::migrate::MigrateError;

use crate::store::OpenError;

/// Returns SQLite's primary result code (sqlite.org/rescode.html).
pub(super) fn code(error: &sqlx::Error) -> Option<u32> {
    let extended = error.as_database_error()?.code()?.parse::<u32>().ok()?;
    Some(extended & 0xff)
}

/// Returns whether the error is `SQLITE_CORRUPT` or `SQLITE_NOTADB`.
pub(super) fn is_damage(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(11 | 26))
}

/// Classifies an error that occurred while the journal at `path` was opened.
pub(super) fn open_error(path: &Path, source: sqlx::Error) -> OpenError {
    let path = path.to_owned();
    match code(&source) {
        _ if is_damage(&source) => OpenError::Damaged { path, source: source.into() },
        // SQLITE_PERM, SQLITE_READONLY, SQLITE_CANTOPEN, SQLITE_AUTH.
        Some(3 | 8 | 14 | 23) => OpenError::Access { path, source: source.into() },
        Some(_) | None => OpenError::Unavailable(source.into()),
    }
}

/// Classifies an error of the migrations.
pub(super) fn migrate_error(path: &Path, error: MigrateError) -> OpenError {
    // The enum is non-exhaustive; all other variants mean the same here.
    if let MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) = error {
        return OpenError::Newer { path: path.to_owned(), version };
    }
    if let MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) = error {
        return open_error(path, source);
    }
    OpenError::Migrate(error.into())
}

/// Locks the journal for this process, and writes the process id into the lock file.
pub(super) fn lock(journal: &Path) -> Result<File, OpenError> {
    let path = journal.with_extension("lock");
    let failed = |source| OpenError::LockFile { path: path.clone(), source };
    let options = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).clone();
    let mut file = options.open(&path).map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // The file is empty for a moment after the other process has locked it.
            let holder = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(OpenError::Locked { journal: journal.to_owned(), holder });
        }
        Err(error) => return Err(failed(error.into())),
    }
    let write_pid = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", process::id())
    };
    // The process id is only informative: a full disk must not prevent the start.
    if let Err(error) = write_pid(&mut file) {
        tracing::debug!(%error, "cannot write the process id into the journal's lock file");
    }
    Ok(file)
}
