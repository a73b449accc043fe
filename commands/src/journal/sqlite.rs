//! The journal in SQLite: write-ahead log, every commit flushed to the disk, one writer.

use std::fs::File;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use otherix_schemas::event::StreamId;
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::timestamp::Timestamp;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, QueryBuilder, Row};
use tokio::sync::Mutex;

use super::open::{OpenError, is_damage, lock, not_migrated, refused};
use super::statements::{guarded, insert_entries, is_one_statement, lone};
use super::{Batch, Digest, Entry, Gap, Handled, Journal, JournalError};
use crate::config::Identity;

/// The journal's migrations.
pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!();

/// Where the journal stands.
const STAND: &str = "SELECT epoch, (SELECT COALESCE(MAX(position), 0) FROM events) AS head FROM meta";

/// SQLite's extended result codes for a failed fsync: `SQLITE_IOERR_FSYNC`, `SQLITE_IOERR_DIR_FSYNC` (sqlite.org/rescode.html).
const FSYNC_CODES: [&str; 2] = ["1034", "1290"];

/// A journal in a SQLite file. Whoever holds it is the only one who writes to it.
#[derive(Debug)]
pub struct SqliteJournal {
    identity: Identity,
    writer: SqliteConnectOptions,
    /// The one connection that writes; none after something went wrong on it. Not a pool, which would ask the database's
    /// thread whether the connection is well before and after each use.
    connection: Mutex<Option<SqliteConnection>>,
    readers: SqlitePool,
    /// Held for as long as the journal is open for writing.
    _lock: Option<File>,
}

impl SqliteJournal {
    /// Opens the journal at `path`, and makes it for `new_cluster` if there is none.
    ///
    /// # Errors
    /// When another process has it, or the database does not open.
    pub async fn open(path: &Path, new_cluster: ClusterId) -> Result<Self, OpenError> {
        let lock = lock(path)?;
        let writer = options(path).create_if_missing(true).synchronous(SqliteSynchronous::Full);
        let failed = |error| refused(path, error);
        let mut connection = writer.connect().await.map_err(failed)?;
        MIGRATIONS.run(&mut connection).await.map_err(|error| not_migrated(path, error))?;
        sqlx::query("INSERT OR IGNORE INTO meta (id, cluster, epoch) VALUES (1, $1, $2)")
            .bind(new_cluster.to_string())
            .bind(Epoch::FIRST.get())
            .execute(&mut connection)
            .await
            .map_err(failed)?;
        let readers = readers(writer.clone()).await.map_err(failed)?;
        let identity = identity_in(path, &readers).await?;
        Ok(Self { identity, writer, connection: Mutex::new(Some(connection)), readers, _lock: Some(lock) })
    }

    /// Opens the journal at `path` for reading, also while another process writes to it.
    ///
    /// # Errors
    /// When there is none, or the database does not open.
    pub async fn open_to_read(path: &Path) -> Result<Self, OpenError> {
        if !path.exists() {
            return Err(OpenError::Missing(path.to_owned()));
        }
        let readers = readers(options(path)).await.map_err(|error| refused(path, error))?;
        let found: Option<i64> = sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations")
            .fetch_one(&readers)
            .await
            .map_err(|error| refused(path, error))?;
        let known = MIGRATIONS.iter().map(|migration| migration.version).max();
        match found {
            Some(version) if Some(version) > known => Err(OpenError::Newer { path: path.to_owned(), version }),
            Some(_) | None => {
                let identity = identity_in(path, &readers).await?;
                let writer = options(path).read_only(true);
                Ok(Self { identity, writer, connection: Mutex::new(None), readers, _lock: None })
            }
        }
    }

    /// Begins a new epoch: stores its first event behind `after`, and fences every writer of the old one.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub async fn begin_epoch(&mut self, after: Position, first: &Entry, epoch: Epoch) -> Result<(), JournalError> {
        let mut connection = self.connect().await.map_err(database)?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(database)?;
        let row = sqlx::query(STAND).fetch_one(&mut *transaction).await.map_err(database)?;
        let (found, old) = stand(&row).map_err(database)?;
        if found != after || old != self.identity.epoch {
            return Err(JournalError::Fenced { expected: after, found, epoch: old });
        }
        let mut insert = QueryBuilder::new("");
        insert_entries(&mut insert, std::slice::from_ref(first));
        insert.build().execute(&mut *transaction).await.map_err(database)?;
        sqlx::query("UPDATE meta SET epoch = $1")
            .bind(epoch.get())
            .execute(&mut *transaction)
            .await
            .map_err(database)?;
        transaction.commit().await.map_err(database)?;
        self.identity.epoch = epoch;
        *self.connection.lock().await = Some(connection);
        Ok(())
    }

    /// Takes an empty journal for another cluster's: one that was lost, and is made again.
    ///
    /// # Errors
    /// When the database fails. One that is not empty stays as it is.
    pub async fn become_cluster(&mut self, cluster: ClusterId) -> Result<(), JournalError> {
        let mut connection = self.connect().await.map_err(database)?;
        let changed = sqlx::query("UPDATE meta SET cluster = $1 WHERE NOT EXISTS (SELECT 1 FROM events)")
            .bind(cluster.to_string())
            .execute(&mut connection)
            .await
            .map_err(database)?;
        *self.connection.lock().await = Some(connection);
        if changed.rows_affected() == 1 {
            self.identity.cluster = cluster;
        }
        Ok(())
    }

    /// Whether the database's file is sound, as SQLite itself judges; what is wrong otherwise.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn check_file(&self) -> Result<(), JournalError> {
        let said: Vec<String> =
            sqlx::query_scalar("PRAGMA integrity_check(3)").fetch_all(&self.readers).await.map_err(database)?;
        if said == ["ok"] {
            return Ok(());
        }
        Err(JournalError::Damaged(sqlx::Error::Protocol(said.join("; "))))
    }

    /// Waits for what is under way, and closes the database.
    pub async fn close(&self) {
        self.readers.close().await;
        if let Some(connection) = self.connection.lock().await.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(error = %error, "the journal's database did not close");
        }
    }

    /// The connection that writes. Whoever is done with it, and nothing went wrong, puts it back; dropped, it rolls back what is
    /// open on it.
    async fn connect(&self) -> Result<SqliteConnection, sqlx::Error> {
        let connection = self.connection.lock().await.take();
        match connection {
            Some(connection) => Ok(connection),
            None => self.writer.connect().await,
        }
    }

    /// Stores a batch in one trip to the database's thread, for a trip costs more than what is done on it: whatever is stored
    /// is stored only if the journal stands where it should.
    async fn store(&self, after: Position, batch: &Batch) -> Result<(), Failure> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut connection = self.connect().await?;
        let epoch = self.identity.epoch;
        let stored = if is_one_statement(batch) {
            let done = lone(after, epoch, &batch.entries).build().execute(&mut connection).await?;
            usize::try_from(done.rows_affected()).unwrap_or(usize::MAX)
        } else {
            guarded(after, epoch, batch).build().fetch_all(&mut connection).await?.len()
        };
        let fenced = if stored == batch.entries.len() + batch.handled.len() {
            None
        } else {
            Some(stand(&sqlx::query(STAND).fetch_one(&mut connection).await?)?)
        };
        *self.connection.lock().await = Some(connection);
        fenced.map_or(Ok(()), |(found, epoch)| Err(Failure::Fenced { found, epoch }))
    }
}

/// The head and the epoch of [`STAND`].
fn stand(row: &SqliteRow) -> Result<(Position, Epoch), sqlx::Error> {
    Ok((position(row, "head")?, Epoch::new(row.try_get("epoch")?)))
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).journal_mode(SqliteJournalMode::Wal).busy_timeout(Duration::from_secs(5))
}

async fn readers(options: SqliteConnectOptions) -> Result<SqlitePool, sqlx::Error> {
    SqlitePoolOptions::new().max_connections(2).connect_with(options.create_if_missing(false).read_only(true)).await
}

async fn identity_in(path: &Path, database: &SqlitePool) -> Result<Identity, OpenError> {
    let failed = |error| refused(path, error);
    let row = sqlx::query("SELECT cluster, epoch FROM meta").fetch_one(database).await.map_err(failed)?;
    let cluster = row.try_get::<String, _>("cluster").map_err(failed)?.parse().map_err(|_| OpenError::Identity)?;
    Ok(Identity { cluster, epoch: Epoch::new(row.try_get("epoch").map_err(failed)?) })
}

/// What can go wrong while a batch is stored.
enum Failure {
    Fenced { found: Position, epoch: Epoch },
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

fn database(error: sqlx::Error) -> JournalError {
    let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
    if code.is_some_and(|code| FSYNC_CODES.contains(&code.as_str())) {
        JournalError::Fsync(error)
    } else if is_damage(&error) {
        JournalError::Damaged(error)
    } else {
        JournalError::Database(error)
    }
}

fn position(row: &SqliteRow, column: &str) -> Result<Position, sqlx::Error> {
    Ok(Position::new(row.try_get::<i64, _>(column)?.cast_unsigned()))
}

/// A text column that holds a value of ours.
fn parsed<T: FromStr>(row: &SqliteRow, column: &str) -> Result<T, sqlx::Error>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let decode = |source: T::Err| sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(source) };
    row.try_get::<String, _>(column)?.parse().map_err(decode)
}

fn digest(row: &SqliteRow, column: &str) -> Result<Digest, sqlx::Error> {
    Digest::try_from(row.try_get::<Vec<u8>, _>(column)?)
        .map_err(|_| sqlx::Error::ColumnDecode { index: column.to_owned(), source: "not 32 bytes".into() })
}

fn entry(row: &SqliteRow) -> Result<Entry, JournalError> {
    let position = position(row, "position").map_err(database)?;
    let read = || -> Result<Entry, sqlx::Error> {
        Ok(Entry {
            position,
            stream_id: row.try_get("stream_id")?,
            stream_version: row.try_get("stream_version")?,
            event_id: parsed(row, "event_id")?,
            type_name: row.try_get("type")?,
            body: Bytes::from(row.try_get::<Vec<u8>, _>("body")?),
            recorded_at: parsed(row, "recorded_at")?,
            digest: digest(row, "digest")?,
        })
    };
    read().map_err(|source| JournalError::Malformed { position, source: Box::new(source) })
}

fn handled(row: &SqliteRow) -> Result<Handled, sqlx::Error> {
    let at = Timestamp::from_unix_micros(row.try_get("at")?)
        .map_err(|source| sqlx::Error::ColumnDecode { index: "at".to_owned(), source: Box::new(source) })?;
    Ok(Handled {
        user: parsed(row, "user")?,
        key: row.try_get("key")?,
        fingerprint: digest(row, "fingerprint")?,
        reply: Bytes::from(row.try_get::<Vec<u8>, _>("reply")?),
        at,
    })
}

impl Journal for SqliteJournal {
    fn identity(&self) -> Identity {
        self.identity
    }

    async fn append(&self, after: Position, batch: &Batch) -> Result<(), JournalError> {
        self.store(after, batch).await.map_err(|failure| match failure {
            Failure::Fenced { found, epoch } => JournalError::Fenced { expected: after, found, epoch },
            Failure::Database(error) => database(error),
        })
    }

    async fn head(&self) -> Result<Position, JournalError> {
        let row = sqlx::query("SELECT COALESCE(MAX(position), 0) AS head FROM events")
            .fetch_one(&self.readers)
            .await
            .map_err(database)?;
        position(&row, "head").map_err(database)
    }

    async fn read(&self, after: Position, limit: u32) -> Result<Vec<Entry>, JournalError> {
        let rows = sqlx::query("SELECT * FROM events WHERE position > $1 ORDER BY position LIMIT $2")
            .bind(after.get().cast_signed())
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(database)?;
        rows.iter().map(entry).collect()
    }

    async fn gaps(&self) -> Result<Vec<Gap>, JournalError> {
        let rows = sqlx::query(
            "SELECT position AS next,
                 (SELECT COALESCE(MAX(kept.position), 0) FROM events AS kept WHERE kept.position < events.position) AS kept
             FROM events WHERE stream_id = $1 ORDER BY position",
        )
        .bind(StreamId::Cluster(self.identity.cluster).to_string())
        .fetch_all(&self.readers)
        .await
        .map_err(database)?;
        let gap = |row: &SqliteRow| Ok(Gap { kept: position(row, "kept")?, next: position(row, "next")? });
        rows.iter().map(|row| gap(row).map_err(database)).collect()
    }

    async fn handled(&self) -> Result<Vec<Handled>, JournalError> {
        let rows = sqlx::query("SELECT * FROM handled ORDER BY at").fetch_all(&self.readers).await.map_err(database)?;
        rows.iter().map(|row| handled(row).map_err(database)).collect()
    }
}
