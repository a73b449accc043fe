//! The database of refused commands. Blocking: used from blocking tasks only.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use otherix_schemas::refusal::{RefusalQuery, Refusals};
use rusqlite::{Connection, OpenFlags, Transaction, params};

use super::Refusal;
use super::select::select;

/// SQLite's `user_version` of a file with these tables.
const LAYOUT: i64 = 2;

const TABLES: &str = "
    CREATE TABLE refusals (
        id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, last_time INTEGER NOT NULL,
        count INTEGER NOT NULL, actor TEXT NOT NULL, actor_name TEXT NOT NULL, resource TEXT NOT NULL,
        request TEXT NOT NULL, name TEXT, ids TEXT NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL
    ) STRICT;
    CREATE INDEX refusals_by_name ON refusals (name, resource, id) WHERE name IS NOT NULL;
    CREATE TABLE concerned (
        resource_id TEXT NOT NULL, refusal INTEGER NOT NULL REFERENCES refusals ON DELETE CASCADE,
        PRIMARY KEY (resource_id, refusal)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX concerned_by_refusal ON concerned (refusal);
";

/// What layout 2 has beside [`TABLES`]: how many refusals each caller has.
const CALLERS: &str = "
    DROP INDEX IF EXISTS refusals_by_actor;
    CREATE INDEX refusals_by_actor ON refusals (actor, id DESC);
    CREATE TABLE callers (actor TEXT PRIMARY KEY, kept INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX callers_by_kept ON callers (kept);
    INSERT INTO callers SELECT actor, count(*) FROM refusals GROUP BY actor;
    CREATE TRIGGER refusal_added AFTER INSERT ON refusals BEGIN
        INSERT INTO callers VALUES (new.actor, 1) ON CONFLICT DO UPDATE SET kept = kept + 1;
    END;
    CREATE TRIGGER refusal_removed AFTER DELETE ON refusals BEGIN
        UPDATE callers SET kept = kept - 1 WHERE actor = old.actor;
        DELETE FROM callers WHERE actor = old.actor AND kept = 0;
    END;
";

/// The same command of the same caller within so many microseconds is counted, not stored again.
const REPEATED: i64 = 60 * 1_000_000;

/// How many refusals are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Of one caller: whoever makes more loses its own.
    pub(super) of_actor: i64,
    /// In all: the caller who has most loses its own.
    pub(super) all: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { of_actor: 1_000, all: 100_000 }
    }
}

/// How long a connection waits for another one's transaction.
const BUSY: Duration = Duration::from_secs(5);

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RefusalStoreError {
    #[error("cannot use the database of refused commands `{}`", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("the database of refused commands `{}` was written by a newer version", .0.display())]
    Newer(PathBuf),
    #[error("cannot move the damaged database of refused commands `{}`", path.display())]
    SetAside {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read or write the database of refused commands")]
    Access(#[from] rusqlite::Error),
    #[error("a refused command is malformed")]
    Malformed,
}

/// The database.
#[derive(Debug)]
pub(super) struct RefusalStore {
    path: PathBuf,
    connection: Mutex<Connection>,
    limits: Limits,
}

impl RefusalStore {
    /// Opens the database at `path`, and creates it if there is none. One that is damaged is moved aside.
    pub(super) fn open(path: &Path, limits: Limits) -> Result<Self, RefusalStoreError> {
        let connection = match connect(path) {
            Err(RefusalStoreError::Open { source, .. }) if is_unusable(&source) => {
                set_aside(path, &source)?;
                connect(path)?
            }
            opened => opened?,
        };
        Ok(Self { path: path.to_owned(), connection: Mutex::new(connection), limits })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out `work`. A file that turns out to be damaged is moved aside, and an empty one takes its place.
    fn attempt<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, RefusalStoreError>,
    ) -> Result<T, RefusalStoreError> {
        let mut connection = self.lock();
        let done = work(&mut connection);
        if let Err(RefusalStoreError::Access(error)) = &done
            && is_unusable(error)
        {
            // Closed before it is moved.
            *connection = Connection::open_in_memory()?;
            set_aside(&self.path, error)?;
            *connection = connect(&self.path)?;
        }
        done
    }

    /// Stores refusals, all or none.
    pub(super) fn record(&self, refusals: &[Refusal]) -> Result<(), RefusalStoreError> {
        if refusals.is_empty() {
            return Ok(());
        }
        self.attempt(|connection| {
            let transaction = connection.transaction()?;
            for refusal in refusals {
                if !count(&transaction, refusal)? {
                    insert(&transaction, refusal, self.limits.of_actor)?;
                }
            }
            shrink(&transaction, self.limits.all)?;
            Ok(transaction.commit()?)
        })
    }

    /// Returns what a query selects; see [`select`].
    pub(super) fn list(&self, query: &RefusalQuery, is_auditor: bool) -> Result<Refusals, RefusalStoreError> {
        self.attempt(|connection| select(connection, query, is_auditor))
    }
}

/// Opens a database with the tables of this version.
fn connect(path: &Path) -> Result<Connection, RefusalStoreError> {
    let failed = |source| RefusalStoreError::Open { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // The last ones may be lost with the machine's power.
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        let found = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        Ok((connection, found))
    };
    let (mut connection, found): (Connection, i64) = open().map_err(failed)?;
    if found > LAYOUT {
        return Err(RefusalStoreError::Newer(path.to_owned()));
    }
    if found < LAYOUT {
        let transaction = connection.transaction().map_err(failed)?;
        if found == 0 {
            transaction.execute_batch(TABLES).map_err(failed)?;
        }
        transaction.execute_batch(CALLERS).map_err(failed)?;
        transaction.pragma_update(None, "user_version", LAYOUT).map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    Ok(connection)
}

/// Whether the error is about the file's content.
fn is_unusable(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt))
}

/// Moves a file that cannot be used, so that it can be examined, and removes its write-ahead log.
fn set_aside(path: &Path, error: &rusqlite::Error) -> Result<(), RefusalStoreError> {
    let with_suffix = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = with_suffix(".unusable");
    tracing::warn!(
        path = %path.display(), %error, moved_to = %aside.display(),
        "the database of refused commands cannot be used; beginning an empty one"
    );
    let failed = |source| RefusalStoreError::SetAside { path: path.to_owned(), source };
    fs::rename(path, &aside).map_err(failed)?;
    for log in ["-wal", "-shm"].map(with_suffix) {
        match fs::remove_file(&log) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// The ids as they are compared.
fn ids(refusal: &Refusal) -> String {
    refusal.ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Counts a repeated refusal. Returns whether it is one.
fn count(transaction: &Transaction<'_>, refusal: &Refusal) -> Result<bool, rusqlite::Error> {
    let now = refusal.time.unix_micros();
    let mut statement = transaction.prepare_cached(
        "UPDATE refusals SET count = count + 1, last_time = ?1, message = ?2 WHERE id = (
             SELECT max(id) FROM refusals WHERE actor = ?3 AND request = ?4 AND code = ?5 AND ids = ?6 AND name IS ?7
             AND last_time BETWEEN ?1 - ?8 AND ?1
         )",
    )?;
    let Refusal { actor, request, code, message, name, .. } = refusal;
    let values = params![now, message, actor, request, code.as_str(), ids(refusal), name, REPEATED];
    Ok(statement.execute(values)? > 0)
}

/// Stores a refusal, and deletes the oldest ones of its caller that are more than `limit`.
fn insert(transaction: &Transaction<'_>, refusal: &Refusal, limit: i64) -> Result<(), rusqlite::Error> {
    let Refusal { time, actor, actor_name, request, ids: concerned, name, code, message } = refusal;
    let resource = request.split('.').next().unwrap_or_default();
    transaction
        .prepare_cached(
            "INSERT INTO refusals (time, last_time, count, actor, actor_name, resource, request, name, ids, code,
             message) VALUES (?1, ?1, 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            time.unix_micros(),
            actor,
            actor_name,
            resource,
            request,
            name,
            ids(refusal),
            code.as_str(),
            message
        ])?;
    let id = transaction.last_insert_rowid();
    for resource in concerned {
        transaction
            .prepare_cached("INSERT OR IGNORE INTO concerned (resource_id, refusal) VALUES (?1, ?2)")?
            .execute(params![resource.to_string(), id])?;
    }
    transaction
        .prepare_cached(
            "DELETE FROM refusals WHERE id IN (
                 SELECT id FROM refusals WHERE actor = ?1 ORDER BY id DESC LIMIT -1 OFFSET +?2
             )",
        )?
        .execute(params![actor, limit])?;
    Ok(())
}

/// Deletes the oldest of the caller who has most, until not more than `limit` are left.
fn shrink(transaction: &Transaction<'_>, limit: i64) -> Result<(), rusqlite::Error> {
    let kept: i64 =
        transaction.prepare_cached("SELECT coalesce(sum(kept), 0) FROM callers")?.query_row([], |row| row.get(0))?;
    for _ in limit..kept {
        transaction
            .prepare_cached(
                "DELETE FROM refusals WHERE id = (
                     SELECT min(id) FROM refusals WHERE actor = (SELECT actor FROM callers ORDER BY kept DESC LIMIT 1)
                 )",
            )?
            .execute([])?;
    }
    Ok(())
}
