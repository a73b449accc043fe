//! The journal in SQLite: write-ahead log, every commit flushed to the disk, one writer.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::timestamp::Timestamp;
use rustix::fs::FlockOperation;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{QueryBuilder, Row, Sqlite};

use super::{Batch, Digest, Entry, Handled, Journal, JournalError};
use crate::config::Identity;

/// The journal's migrations.
pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!();

/// Begins a transaction that no other can come between, and looks where the journal stands.
const BEGIN: &str = "BEGIN IMMEDIATE;
    SELECT epoch, (SELECT COALESCE(MAX(position), 0) FROM events) AS head FROM meta";

/// Rows in one statement: more gain nothing, and SQLite takes at most 32,766 values.
const ROWS: usize = 100;

/// SQLite's extended result codes for a failed fsync: `SQLITE_IOERR_FSYNC`, `SQLITE_IOERR_DIR_FSYNC` (sqlite.org/rescode.html).
const FSYNC_CODES: [&str; 2] = ["1034", "1290"];

/// A journal in a SQLite file. Whoever holds it is the only one who writes to it.
#[derive(Debug)]
pub struct SqliteJournal {
    identity: Identity,
    writer: SqlitePool,
    readers: SqlitePool,
    /// Held for as long as the journal is open.
    _lock: File,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The lock file cannot be made.
    #[error("cannot open the journal's lock `{path}`")]
    LockFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has the journal.
    #[error("another process writes to the journal `{0}`")]
    Locked(PathBuf),
    /// The database cannot be opened.
    #[error("cannot open the journal")]
    Database(#[from] sqlx::Error),
    /// The database's schema cannot be brought up to date.
    #[error("cannot bring the journal's schema up to date")]
    Migrate(#[from] MigrateError),
    /// The row that says whose journal it is holds something else.
    #[error("the journal does not say which cluster it belongs to")]
    Identity,
}

impl SqliteJournal {
    /// Opens the journal at `path`, and makes it for `new_cluster` if there is none.
    ///
    /// # Errors
    /// When another process has it, or the database does not open.
    pub async fn open(path: &Path, new_cluster: ClusterId) -> Result<Self, OpenError> {
        let lock = lock(&path.with_extension("lock"), path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        MIGRATIONS.run(&writer).await?;
        sqlx::query("INSERT OR IGNORE INTO meta (id, cluster, epoch) VALUES (1, $1, $2)")
            .bind(new_cluster.to_string())
            .bind(Epoch::FIRST.get())
            .execute(&writer)
            .await?;
        let row = sqlx::query("SELECT cluster, epoch FROM meta").fetch_one(&writer).await?;
        let cluster = row.try_get::<String, _>("cluster")?.parse().map_err(|_| OpenError::Identity)?;
        let identity = Identity { cluster, epoch: Epoch::new(row.try_get("epoch")?) };
        let readers = SqlitePoolOptions::new().max_connections(2).connect_with(options.read_only(true)).await?;
        Ok(Self { identity, writer, readers, _lock: lock })
    }

    /// Waits for what is under way, and closes the database.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Stores a batch in two trips to the database's thread: one begins and looks, one inserts and commits. Each trip costs
    /// more than what is done on it.
    async fn store(&self, after: Position, batch: &Batch) -> Result<(), Failure> {
        let mut connection = self.writer.acquire().await?;
        let stored = self.store_on(&mut connection, after, batch).await;
        if stored.is_err() {
            // Closing it rolls back what is open, whatever state it is in.
            connection.close_on_drop();
        }
        stored
    }

    async fn store_on(&self, db: &mut SqliteConnection, after: Position, batch: &Batch) -> Result<(), Failure> {
        let mut queries: Vec<_> = batch.entries.chunks(ROWS).map(insert_entries).collect();
        if let Some(before) = batch.forget_before {
            let mut forget = QueryBuilder::new("DELETE FROM handled WHERE at < ");
            forget.push_bind(before.unix_micros());
            queries.push(forget);
        }
        // Behind the deletion: what is forgotten may be used again in the same batch.
        queries.extend(batch.handled.chunks(ROWS).map(insert_handled));
        match queries.last_mut() {
            Some(last) => last.push("; COMMIT"),
            None => return Ok(()),
        };
        let row = sqlx::query(BEGIN).fetch_one(&mut *db).await?;
        let found = position(&row, "head")?;
        let epoch = Epoch::new(row.try_get("epoch")?);
        if found != after || epoch != self.identity.epoch {
            return Err(Failure::Fenced { found, epoch });
        }
        for query in &mut queries {
            query.build().execute(&mut *db).await?;
        }
        Ok(())
    }
}

fn lock(path: &Path, journal: &Path) -> Result<File, OpenError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| OpenError::LockFile { path: path.to_owned(), source })?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| OpenError::Locked(journal.to_owned()))?;
    Ok(file)
}

fn insert_entries(entries: &[Entry]) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(
        "INSERT INTO events (position, stream_id, stream_version, event_id, type, body, recorded_at, digest) ",
    );
    query.push_values(entries, |mut row, entry| {
        let Entry { position, stream_id, stream_version, event_id, type_name, body, recorded_at, digest } = entry;
        row.push_bind(position.get().cast_signed())
            .push_bind(stream_id.clone())
            .push_bind(*stream_version)
            .push_bind(event_id.to_string())
            .push_bind(type_name.clone())
            .push_bind(body.to_vec())
            .push_bind(recorded_at.to_string())
            .push_bind(digest.as_bytes().to_vec());
    });
    query
}

fn insert_handled(handled: &[Handled]) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("INSERT INTO handled (user, key, fingerprint, reply, at) ");
    query.push_values(handled, |mut row, handled| {
        let Handled { user, key, fingerprint, reply, at } = handled;
        row.push_bind(user.to_string())
            .push_bind(key.clone())
            .push_bind(fingerprint.as_bytes().to_vec())
            .push_bind(reply.to_vec())
            .push_bind(at.unix_micros());
    });
    // A key that was forgotten in memory may still have a row.
    query.push(
        " ON CONFLICT (user, key) DO UPDATE SET fingerprint = excluded.fingerprint, reply = excluded.reply, at = excluded.at",
    );
    query
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

    async fn handled(&self) -> Result<Vec<Handled>, JournalError> {
        let rows = sqlx::query("SELECT * FROM handled ORDER BY at").fetch_all(&self.readers).await.map_err(database)?;
        rows.iter().map(|row| handled(row).map_err(database)).collect()
    }
}
