//! The event store in a SQLite file: write-ahead log, every commit flushed to the disk, one writing process.
//!
//! Limits are written `LIMIT +$1`. SQLite plans for the value of a plain `LIMIT $1`, and so compiles the statement
//! again whenever a value is bound (`sqlite3ExprIsInteger`, 3.50), which takes longer than reading an event.

mod open;
mod rows;
mod snapshots;
mod statements;
mod wal;

use std::convert::Infallible;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use otherix_schemas::event::StreamId;
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::value::UserId;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Row};
use tokio::sync::Mutex;

use self::open::{is_damage, lock, migrate_error, open_error};
use self::wal::Wal;
use super::{Batch, Entry, EventStore, Gap, IdempotencyRecord, OpenError, StoreError, StoredSnapshot};
use crate::config::StoreIdentity;
use crate::sqlite_copy::{CopyError, copy_database};

/// The journal's migrations.
static MIGRATIONS: Migrator = sqlx::migrate!();

/// The migration that adds the tables of state snapshots.
const SNAPSHOTS_SINCE: i64 = 2;

const HEAD: &str = "SELECT epoch, (SELECT COALESCE(MAX(position), 0) FROM events) AS head FROM meta";

/// Extended result codes for a failed fsync: `SQLITE_IOERR_FSYNC`, `SQLITE_IOERR_DIR_FSYNC` (sqlite.org/rescode.html).
const FSYNC_CODES: [&str; 2] = ["1034", "1290"];

/// Extended result code for a violated primary key: `SQLITE_CONSTRAINT_PRIMARYKEY`.
const PRIMARY_KEY_CODE: &str = "1555";

/// Connections for reading: one for the read models and the relay, one for the writer's look-ups, and one each for
/// nodes and people that list events.
const READERS: u32 = 4;

/// How long a reader may wait for a connection before that is logged.
const ACQUIRE_SLOW: Duration = Duration::from_secs(30);

/// How long a statement waits for another process that has locked the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The page cache of the connection that writes, in KiB: a large batch must fit, or SQLite writes its pages twice.
const WRITER_CACHE_KIB: u32 = 32 * 1024;

/// Rows that a connection's thread may be ahead of their reader: a page of events.
const READ_AHEAD: usize = 1000;

/// An event store in a SQLite file. A process that opened it for writing is the only one that writes to it.
#[derive(Debug)]
pub struct SqliteStore {
    identity: StoreIdentity,
    options: SqliteConnectOptions,
    /// The one connection that writes; none after a failure on it. Locked while something is written, so that no writer
    /// of this process finds the file busy. Not a pool, which would ping the connection's thread before and after each
    /// use.
    writer: Mutex<Option<SqliteConnection>>,
    readers: SqlitePool,
    /// Locked while a snapshot is saved or deleted: two at once would delete each other's chunks.
    snapshots: Mutex<()>,
    wal: Wal,
    has_snapshots: bool,
    /// Held for as long as the store is open for writing.
    _lock: Option<File>,
}

impl SqliteStore {
    /// Opens the journal at `path` for writing, and creates it for `new_cluster` if there is none.
    ///
    /// # Errors
    /// If another process has locked it, or the database cannot be opened or migrated.
    pub async fn open(path: &Path, new_cluster: ClusterId) -> Result<Self, OpenError> {
        let lock = lock(path)?;
        let options = options(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("wal_autocheckpoint", "0")
            .pragma("temp_store", "memory")
            .pragma("cache_size", format!("-{WRITER_CACHE_KIB}"));
        let failed = |error| open_error(path, error);
        let mut writer = options.connect().await.map_err(failed)?;
        MIGRATIONS.run(&mut writer).await.map_err(|error| migrate_error(path, error))?;
        sqlx::query("INSERT OR IGNORE INTO meta (id, cluster, epoch) VALUES (1, $1, $2)")
            .bind(new_cluster.to_string())
            .bind(Epoch::FIRST.get())
            .execute(&mut writer)
            .await
            .map_err(failed)?;
        let readers = readers(options.clone()).await.map_err(failed)?;
        let identity = read_identity(path, &readers).await?;
        Ok(Self {
            identity,
            options,
            writer: Mutex::new(Some(writer)),
            readers,
            snapshots: Mutex::new(()),
            wal: Wal::default(),
            has_snapshots: true,
            _lock: Some(lock),
        })
    }

    /// Opens the journal at `path` for reading, also while another process writes to it.
    ///
    /// # Errors
    /// If there is none, or the database cannot be opened.
    pub async fn open_read_only(path: &Path) -> Result<Self, OpenError> {
        if !path.exists() {
            return Err(OpenError::Missing(path.to_owned()));
        }
        let readers = readers(options(path)).await.map_err(|error| open_error(path, error))?;
        let found: Option<i64> = sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations")
            .fetch_one(&readers)
            .await
            .map_err(|error| open_error(path, error))?;
        let known = MIGRATIONS.iter().map(|migration| migration.version).max();
        if let Some(version) = found.filter(|version| Some(*version) > known) {
            return Err(OpenError::Newer { path: path.to_owned(), version });
        }
        let identity = read_identity(path, &readers).await?;
        Ok(Self {
            identity,
            options: options(path).read_only(true),
            writer: Mutex::new(None),
            readers,
            snapshots: Mutex::new(()),
            wal: Wal::default(),
            has_snapshots: found >= Some(SNAPSHOTS_SINCE),
            _lock: None,
        })
    }

    /// Copies the journal at `path`, which another process may be writing to, to the file `to`, which must not exist:
    /// all of it as of one moment. Blocking. `pause` is called after every few megabytes, and may wait.
    ///
    /// # Errors
    /// If the journal cannot be read, or the copy written.
    pub fn copy(path: &Path, to: &Path, pause: &mut dyn FnMut()) -> Result<(), CopyError> {
        copy_database(path, to, pause)
    }

    /// Takes the connection out of the locked slot, or opens a new one. After success it is put back; dropped, it
    /// rolls back its transaction.
    async fn take_writer(&self, slot: &mut Option<SqliteConnection>) -> Result<SqliteConnection, sqlx::Error> {
        match slot.take() {
            Some(connection) => Ok(connection),
            None => self.options.connect().await,
        }
    }

    async fn store(&self, after: Position, batch: &Batch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let append = statements::append(after, self.identity.epoch, batch);
        let mut slot = self.writer.lock().await;
        let mut connection = self.take_writer(&mut slot).await.map_err(store_error)?;
        let is_fenced = match append.query.execute(&mut connection).await {
            Ok(done) => append.changes.is_some_and(|changes| changes != done.rows_affected()),
            Err(error) if is_fence(&error) => true,
            Err(error) => return Err(store_error(error)),
        };
        if is_fenced {
            let row = sqlx::query(HEAD).fetch_one(&self.readers).await.map_err(store_error)?;
            let (found, epoch) = head(&row).map_err(store_error)?;
            return Err(StoreError::Fenced { expected: after, found, epoch });
        }
        self.wal.appended(batch, &mut connection).await;
        *slot = Some(connection);
        Ok(())
    }

    async fn store_epoch(&self, after: Position, first: &Entry, epoch: Epoch) -> Result<(), StoreError> {
        let mut slot = self.writer.lock().await;
        let mut connection = self.take_writer(&mut slot).await.map_err(store_error)?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(store_error)?;
        let row = sqlx::query(HEAD).fetch_one(&mut *transaction).await.map_err(store_error)?;
        let (found, current) = head(&row).map_err(store_error)?;
        if found != after || current != self.identity.epoch {
            return Err(StoreError::Fenced { expected: after, found, epoch: current });
        }
        let previous = Position::new(first.position.get() - 1);
        statements::event(previous, first).execute(&mut *transaction).await.map_err(store_error)?;
        let set_epoch = sqlx::query("UPDATE meta SET epoch = $1").bind(epoch.get());
        set_epoch.execute(&mut *transaction).await.map_err(store_error)?;
        sqlx::query("DELETE FROM snapshots").execute(&mut *transaction).await.map_err(store_error)?;
        transaction.commit().await.map_err(store_error)?;
        *slot = Some(connection);
        Ok(())
    }
}

/// Returns whether the append's first statement found the store not as expected.
fn is_fence(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    error.code().is_some_and(|code| code == PRIMARY_KEY_CODE) && error.message().contains("meta.id")
}

/// Returns the columns of [`HEAD`].
fn head(row: &SqliteRow) -> Result<(Position, Epoch), sqlx::Error> {
    Ok((rows::position(row, "head")?, Epoch::new(row.try_get("epoch")?)))
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT)
}

async fn readers(options: SqliteConnectOptions) -> Result<SqlitePool, sqlx::Error> {
    let options = options.create_if_missing(false).read_only(true).row_buffer_size(READ_AHEAD);
    let pool = SqlitePoolOptions::new().max_connections(READERS).test_before_acquire(false);
    pool.acquire_slow_threshold(ACQUIRE_SLOW).connect_with(options).await
}

async fn read_identity(path: &Path, database: &SqlitePool) -> Result<StoreIdentity, OpenError> {
    let failed = |error| open_error(path, error);
    let row = sqlx::query("SELECT cluster, epoch FROM meta").fetch_one(database).await.map_err(failed)?;
    let cluster = row.try_get::<String, _>("cluster").map_err(failed)?.parse().map_err(|_| OpenError::Identity)?;
    Ok(StoreIdentity { cluster, epoch: Epoch::new(row.try_get("epoch").map_err(failed)?) })
}

/// Classifies an error of the database.
fn store_error(error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
    if code.is_some_and(|code| FSYNC_CODES.contains(&code.as_str())) {
        StoreError::NotDurable(error.into())
    } else if is_damage(&error) {
        StoreError::Damaged(error.into())
    } else {
        StoreError::Unavailable(error.into())
    }
}

impl EventStore for SqliteStore {
    fn identity(&self) -> StoreIdentity {
        self.identity
    }

    async fn append(&self, after: Position, batch: &Batch) -> Result<(), StoreError> {
        self.store(after, batch).await
    }

    async fn head(&self) -> Result<Position, StoreError> {
        let row = sqlx::query(HEAD).fetch_one(&self.readers).await.map_err(store_error)?;
        Ok(head(&row).map_err(store_error)?.0)
    }

    async fn read(&self, after: Position, limit: u32) -> Result<Vec<Entry>, StoreError> {
        let query = sqlx::query("SELECT * FROM events WHERE position > $1 ORDER BY position LIMIT +$2");
        let query = query.bind(after.get().cast_signed()).bind(limit);
        let rows = query.fetch_all(&self.readers).await.map_err(store_error)?;
        rows.iter().map(rows::entry).collect()
    }

    async fn read_bodies(&self, after: Position, limit: u32) -> Result<Vec<(Position, Bytes)>, StoreError> {
        let query = sqlx::query("SELECT position, body FROM events WHERE position > $1 ORDER BY position LIMIT +$2");
        let query = query.bind(after.get().cast_signed()).bind(limit);
        let rows = query.fetch_all(&self.readers).await.map_err(store_error)?;
        rows.iter().map(rows::body).collect()
    }

    async fn gaps(&self) -> Result<Vec<Gap>, StoreError> {
        let query = sqlx::query(
            "SELECT position AS next,
                 (SELECT COALESCE(MAX(kept.position), 0) FROM events AS kept
                  WHERE kept.position < events.position) AS kept
             FROM events WHERE stream_id = $1 ORDER BY position",
        );
        let query = query.bind(StreamId::Cluster(self.identity.cluster).to_string());
        let found = query.fetch_all(&self.readers).await.map_err(store_error)?;
        let gap = |row: &SqliteRow| Ok(Gap { kept: rows::position(row, "kept")?, next: rows::position(row, "next")? });
        found.iter().map(|row| gap(row).map_err(store_error)).collect()
    }

    async fn begin_epoch(&mut self, after: Position, first: &Entry, epoch: Epoch) -> Result<(), StoreError> {
        self.store_epoch(after, first, epoch).await?;
        self.identity.epoch = epoch;
        Ok(())
    }

    async fn adopt_cluster(&mut self, cluster: ClusterId) -> Result<(), StoreError> {
        let changed = {
            let mut slot = self.writer.lock().await;
            let mut connection = self.take_writer(&mut slot).await.map_err(store_error)?;
            let query = sqlx::query("UPDATE meta SET cluster = $1 WHERE NOT EXISTS (SELECT 1 FROM events)");
            let changed = query.bind(cluster.to_string()).execute(&mut connection).await.map_err(store_error)?;
            *slot = Some(connection);
            changed
        };
        if changed.rows_affected() == 1 {
            self.identity.cluster = cluster;
        }
        Ok(())
    }

    async fn idempotency_record(&self, user: &UserId, key: &str) -> Result<Option<IdempotencyRecord>, StoreError> {
        let query = sqlx::query("SELECT * FROM handled WHERE user = $1 AND key = $2").bind(user.as_str()).bind(key);
        let row = query.fetch_optional(&self.readers).await.map_err(store_error)?;
        row.map(|row| rows::idempotency_record(&row).map_err(store_error)).transpose()
    }

    async fn idempotency_records(
        &self,
        after: Option<&IdempotencyRecord>,
        limit: u32,
    ) -> Result<Vec<IdempotencyRecord>, StoreError> {
        let (at, user, key) =
            after.map_or((i64::MIN, "", ""), |last| (last.at.unix_micros(), last.user.as_str(), last.key.as_str()));
        let query =
            sqlx::query("SELECT * FROM handled WHERE (at, user, key) > ($1, $2, $3) ORDER BY at, user, key LIMIT +$4");
        let query = query.bind(at).bind(user).bind(key).bind(limit);
        let found = query.fetch_all(&self.readers).await.map_err(store_error)?;
        found.iter().map(|row| rows::idempotency_record(row).map_err(store_error)).collect()
    }

    async fn idempotency_keys(
        &self,
        after: Option<(&UserId, &str)>,
        limit: u32,
    ) -> Result<Vec<(UserId, String)>, StoreError> {
        let (user, key) = after.map_or(("", ""), |(user, key)| (user.as_str(), key));
        let query = "SELECT user, key FROM handled WHERE (user, key) > ($1, $2) ORDER BY user, key LIMIT +$3";
        let query = sqlx::query(query).bind(user).bind(key).bind(limit);
        let found = query.fetch_all(&self.readers).await.map_err(store_error)?;
        let pair = |row: &SqliteRow| Ok((rows::parsed(row, "user")?, row.try_get("key")?));
        found.iter().map(|row| pair(row).map_err(store_error)).collect()
    }

    async fn snapshot(&self) -> Result<Option<StoredSnapshot>, StoreError> {
        if !self.has_snapshots {
            return Ok(None);
        }
        snapshots::newest(&self.readers).await
    }

    async fn save_snapshot(&self, snapshot: &StoredSnapshot) -> Result<(), StoreError> {
        snapshots::save(self, snapshot).await.map_err(store_error)
    }

    async fn discard_snapshots(&self) -> Result<(), StoreError> {
        snapshots::discard(self).await.map_err(store_error)
    }

    async fn upkeep(&self) -> Infallible {
        self.wal.keep_short(&self.options, &self.writer).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        let report: Vec<String> =
            sqlx::query_scalar("PRAGMA integrity_check(3)").fetch_all(&self.readers).await.map_err(store_error)?;
        if report == ["ok"] {
            return Ok(());
        }
        Err(StoreError::Damaged(report.join("; ").into()))
    }

    async fn close(&self) {
        self.readers.close().await;
        if let Err(error) = self.wal.close().await {
            tracing::warn!(%error, "cannot close the journal's database");
        }
        if let Some(connection) = self.writer.lock().await.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "cannot close the journal's database");
        }
    }
}
