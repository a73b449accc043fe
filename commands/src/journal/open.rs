//! Why a journal does not open, in words that say what to do, and the lock that lets one process write.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use sqlx::migrate::MigrateError;

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none.
    #[error("there is no journal `{}`", .0.display())]
    Missing(PathBuf),
    /// The lock file cannot be made.
    #[error("cannot open the journal's lock `{}`", path.display())]
    LockFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has the journal.
    #[error("another process{} writes to the journal `{}`", holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), journal.display())]
    Locked {
        /// The journal.
        journal: PathBuf,
        /// Which process, if it said so.
        holder: Option<u32>,
    },
    /// It may not be read or written.
    #[error("cannot read and write the journal `{}`", path.display())]
    Access {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The file is damaged, or no database.
    #[error("the journal `{}` is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A newer otherixd has written it.
    #[error("the journal `{}` has schema version {version}, which this otherixd does not know", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema's version.
        version: i64,
    },
    /// The database does not work otherwise.
    #[error("cannot open the journal")]
    Database(#[source] sqlx::Error),
    /// The database's schema cannot be brought up to date.
    #[error("cannot bring the journal's schema up to date")]
    Migrate(#[source] MigrateError),
    /// The row that says whose journal it is holds something else.
    #[error("the journal does not say which cluster it belongs to")]
    Identity,
}

impl OpenError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing(_) => {
                "name the state folder with --state; `otherixd run` makes a new journal in an empty one"
            }
            Self::Locked { .. } => "stop the otherixd that runs on this state folder, or use another one",
            Self::LockFile { .. } | Self::Access { .. } => {
                "otherixd must own the state folder and be able to write there: look at owner, mode and mount options"
            }
            Self::Damaged { .. } | Self::Identity => DAMAGED,
            Self::Newer { .. } => "run the newer otherixd; to go back, restore a backup that the older one made",
            Self::Database(_) | Self::Migrate(_) => "look at the disk and its free space",
        }
    }
}

/// What to do about a damaged file.
pub(super) const DAMAGED: &str = "restore journal.db from a backup (without journal.db-wal and journal.db-shm); what the backup \
     lacks is taken over from the stream by `otherixd journal adopt`";

/// SQLite's primary result code (sqlite.org/rescode.html).
pub(super) fn code(error: &sqlx::Error) -> Option<u32> {
    let extended = error.as_database_error()?.code()?.parse::<u32>().ok()?;
    Some(extended & 0xff)
}

/// `SQLITE_CORRUPT` and `SQLITE_NOTADB`.
pub(super) fn is_damage(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(11 | 26))
}

/// An error of the database as one of opening the journal at `path`.
pub(super) fn refused(path: &Path, source: sqlx::Error) -> OpenError {
    let path = path.to_owned();
    match code(&source) {
        _ if is_damage(&source) => OpenError::Damaged { path, source },
        // SQLITE_PERM, SQLITE_READONLY, SQLITE_CANTOPEN, SQLITE_AUTH.
        Some(3 | 8 | 14 | 23) => OpenError::Access { path, source },
        Some(_) | None => OpenError::Database(source),
    }
}

/// An error of the migrations likewise.
pub(super) fn not_migrated(path: &Path, error: MigrateError) -> OpenError {
    // The enum may grow, and every other one means the same here.
    if let MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) = error {
        return OpenError::Newer { path: path.to_owned(), version };
    }
    if let MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) = error {
        return refused(path, source);
    }
    OpenError::Migrate(error)
}

/// Locks the journal for this process, and says in the file which that is.
pub(super) fn lock(journal: &Path) -> Result<File, OpenError> {
    let path = journal.with_extension("lock");
    let failed = |source| OpenError::LockFile { path: path.clone(), source };
    let options = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).clone();
    let mut file = options.open(&path).map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut said = String::new();
            // Empty for the moment in which the other one writes it.
            let holder = file.read_to_string(&mut said).ok().and_then(|_| said.trim().parse().ok());
            return Err(OpenError::Locked { journal: journal.to_owned(), holder });
        }
        Err(error) => return Err(failed(error.into())),
    }
    let note = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", process::id())
    };
    // On a full disk there is no note; the lock counts.
    if let Err(error) = note(&mut file) {
        tracing::debug!(%error, "the journal's lock does not say who holds it");
    }
    Ok(file)
}
