//! The log's database: tiles and checkpoints, beside the journal. Whatever is in it can be made again from the journal,
//! but for the checkpoints, which are evidence. Blocking: used from blocking tasks only.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use otherix_schemas::position::Epoch;
use otherix_tlog::tile::TileHashes;
use otherix_tlog::{Tile, TileSource, hash::HASH_LEN};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use crate::sqlite_copy::{CopyError, copy_database};

/// SQLite's `user_version` of a file with these tables.
const LAYOUT: i64 = 1;

const TABLES: &str = "
    CREATE TABLE log (id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER NOT NULL) STRICT;
    -- The hashes of a tile, one after the other; more are added until there are 256.
    CREATE TABLE tiles (
        level INTEGER NOT NULL, number INTEGER NOT NULL, hashes BLOB NOT NULL, PRIMARY KEY (level, number)
    ) STRICT, WITHOUT ROWID;
    -- The newest one of each epoch.
    CREATE TABLE checkpoints (epoch INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT;
    -- Checkpoints of this log that the journal does not continue.
    CREATE TABLE contradictions (epoch INTEGER NOT NULL, note TEXT NOT NULL, PRIMARY KEY (epoch, note)) STRICT;
";

/// How long a connection waits for another one's transaction.
const BUSY: Duration = Duration::from_secs(5);

/// Contradicting checkpoints that are kept of an epoch: one is enough.
const CONTRADICTIONS_MAX: u32 = 16;

/// The log's database.
#[derive(Debug)]
pub struct TileStore {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
}

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TileStoreError {
    #[error("cannot use the log's database `{}`", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("the log's database `{}` was written by a newer version", .0.display())]
    Newer(PathBuf),
    #[error("`{}` is not the database of a log", .0.display())]
    NoLog(PathBuf),
    #[error("the log's database is damaged: {0}")]
    Damaged(String),
    #[error("cannot read or write the log's database")]
    Access(#[from] rusqlite::Error),
    #[error("cannot delete the tiles that were made again")]
    Rebuilt(#[source] std::io::Error),
    #[error("a number in the log's database is out of range")]
    Range,
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    Ok(connection)
}

fn adopt(writer: &mut Connection) -> Result<(), rusqlite::Error> {
    let transaction = writer.transaction()?;
    transaction.execute("DELETE FROM main.tiles", [])?;
    transaction.execute("INSERT INTO main.tiles SELECT level, number, hashes FROM rebuilt.tiles", [])?;
    transaction.commit()
}

impl TileStore {
    /// Opens the database at `path`, and creates it if there is none.
    ///
    /// # Errors
    /// If it cannot be opened, or was written by a newer version.
    pub fn open(path: &Path) -> Result<Self, TileStoreError> {
        let failed = |source| TileStoreError::Open { path: path.to_owned(), source };
        let mut writer = open(path).map_err(failed)?;
        let found: i64 = writer.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
        if found > LAYOUT {
            return Err(TileStoreError::Newer(path.to_owned()));
        }
        if found == 0 {
            let transaction = writer.transaction().map_err(failed)?;
            transaction.execute_batch(TABLES).map_err(failed)?;
            transaction.pragma_update(None, "user_version", LAYOUT).map_err(failed)?;
            transaction.commit().map_err(failed)?;
        }
        let reader = open(path).map_err(failed)?;
        Ok(Self { writer: Mutex::new(writer), reader: Mutex::new(reader) })
    }

    /// Opens a database that nobody writes to, and changes nothing in it.
    ///
    /// # Errors
    /// If it cannot be opened, or was written by another version.
    pub fn open_read_only(path: &Path) -> Result<Self, TileStoreError> {
        let failed = |source| TileStoreError::Open { path: path.to_owned(), source };
        let open =
            || Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX);
        let reader = open().map_err(failed)?;
        let found: i64 = reader.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
        if found > LAYOUT {
            return Err(TileStoreError::Newer(path.to_owned()));
        }
        if found != LAYOUT {
            return Err(TileStoreError::NoLog(path.to_owned()));
        }
        Ok(Self { writer: Mutex::new(open().map_err(failed)?), reader: Mutex::new(reader) })
    }

    /// Copies the database at `path`, which another process may be writing to, to the file `to`, which must not exist:
    /// all of it as of one moment. Returns whether there is a log in it: a process may be about to make the tables, or
    /// was killed before. `pause` is called after every few megabytes, and may wait.
    ///
    /// # Errors
    /// If the database cannot be read, or the copy written.
    pub fn copy(path: &Path, to: &Path, pause: &mut dyn FnMut()) -> Result<bool, CopyError> {
        copy_database(path, to, pause)?;
        let count = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .and_then(|copy| copy.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0)));
        let failed = |source: rusqlite::Error| CopyError::Read { path: to.to_owned(), source: source.into() };
        Ok(count.map_err(failed)? > 0)
    }

    /// The epoch whose tiles these are.
    ///
    /// # Errors
    /// If the database fails.
    pub fn epoch(&self) -> Result<Option<Epoch>, TileStoreError> {
        let epoch = lock(&self.reader).query_row("SELECT epoch FROM log", [], |row| row.get(0)).optional()?;
        Ok(epoch.map(Epoch::new))
    }

    /// The newest checkpoint of each epoch.
    ///
    /// # Errors
    /// If the database fails.
    pub fn checkpoints(&self) -> Result<Vec<(Epoch, String)>, TileStoreError> {
        let reader = lock(&self.reader);
        let mut statement = reader.prepare("SELECT epoch, note FROM checkpoints ORDER BY epoch")?;
        let found = statement.query_map([], |row| Ok((Epoch::new(row.get(0)?), row.get(1)?)))?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Checks that the database's own structure is intact.
    ///
    /// # Errors
    /// [`TileStoreError::Damaged`] if it is not.
    pub fn check(&self) -> Result<(), TileStoreError> {
        let report: String = lock(&self.reader).query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if report == "ok" { Ok(()) } else { Err(TileStoreError::Damaged(report)) }
    }

    /// Makes the database that of the log of an epoch. The tiles of another one are deleted: its tree has other leaves
    /// from the kept position on.
    ///
    /// # Errors
    /// If the database fails.
    pub fn begin(&self, epoch: Epoch) -> Result<(), TileStoreError> {
        let mut writer = lock(&self.writer);
        let transaction = writer.transaction()?;
        let known: Option<u32> = transaction.query_row("SELECT epoch FROM log", [], |row| row.get(0)).optional()?;
        if known != Some(epoch.get()) {
            transaction.execute("DELETE FROM tiles", [])?;
            transaction.execute("INSERT OR REPLACE INTO log (id, epoch) VALUES (1, ?1)", [epoch.get()])?;
        }
        Ok(transaction.commit()?)
    }

    /// Replaces the tiles by those of another database, all or none.
    ///
    /// # Errors
    /// If a database fails.
    pub fn adopt(&self, other: &Path) -> Result<(), TileStoreError> {
        let mut writer = lock(&self.writer);
        writer.execute("ATTACH DATABASE ?1 AS rebuilt", [other.to_string_lossy()])?;
        let adopted = adopt(&mut writer);
        writer.execute("DETACH DATABASE rebuilt", [])?;
        Ok(adopted?)
    }

    /// The newest checkpoint of an epoch.
    ///
    /// # Errors
    /// If the database fails.
    pub fn checkpoint(&self, epoch: Epoch) -> Result<Option<String>, TileStoreError> {
        let reader = lock(&self.reader);
        let mut statement = reader.prepare_cached("SELECT note FROM checkpoints WHERE epoch = ?1")?;
        Ok(statement.query_row([epoch.get()], |row| row.get(0)).optional()?)
    }

    /// Stores tiles and the checkpoint of the tree that they make up: all of it, durably, or nothing.
    ///
    /// # Errors
    /// If the database fails.
    pub fn store(&self, epoch: Epoch, tiles: &[TileHashes], checkpoint: Option<&str>) -> Result<(), TileStoreError> {
        let mut writer = lock(&self.writer);
        let transaction = writer.transaction()?;
        for tile in tiles {
            let mut statement = transaction
                .prepare_cached("INSERT OR REPLACE INTO tiles (level, number, hashes) VALUES (?1, ?2, ?3)")?;
            let number = i64::try_from(tile.tile().index()).map_err(|_| TileStoreError::Range)?;
            statement.execute(params![tile.tile().level(), number, tile.to_bytes()])?;
        }
        if let Some(note) = checkpoint {
            let mut statement =
                transaction.prepare_cached("INSERT OR REPLACE INTO checkpoints (epoch, note) VALUES (?1, ?2)")?;
            statement.execute(params![epoch.get(), note])?;
        }
        Ok(transaction.commit()?)
    }

    /// Checkpoints of an epoch that the journal did not continue.
    ///
    /// # Errors
    /// If the database fails.
    pub fn contradictions(&self, epoch: Epoch) -> Result<Vec<String>, TileStoreError> {
        let reader = lock(&self.reader);
        let mut statement = reader.prepare_cached("SELECT note FROM contradictions WHERE epoch = ?1")?;
        let notes = statement.query_map([epoch.get()], |row| row.get(0))?;
        Ok(notes.collect::<Result<_, _>>()?)
    }

    /// Keeps a checkpoint that the journal does not continue.
    ///
    /// # Errors
    /// If the database fails.
    pub fn keep_contradiction(&self, epoch: Epoch, note: &str) -> Result<(), TileStoreError> {
        let statement = "INSERT OR IGNORE INTO contradictions (epoch, note) SELECT ?1, ?2
            WHERE (SELECT count(*) FROM contradictions WHERE epoch = ?1) < ?3";
        lock(&self.writer).execute(statement, params![epoch.get(), note, CONTRADICTIONS_MAX])?;
        Ok(())
    }
}

impl TileSource for &TileStore {
    type Error = TileStoreError;

    fn tile(&mut self, tile: Tile) -> Result<Option<Vec<u8>>, TileStoreError> {
        let number = i64::try_from(tile.index()).map_err(|_| TileStoreError::Range)?;
        let reader = lock(&self.reader);
        let mut statement = reader.prepare_cached("SELECT hashes FROM tiles WHERE level = ?1 AND number = ?2")?;
        let stored: Option<Vec<u8>> =
            statement.query_row(params![tile.level(), number], |row| row.get(0)).optional()?;
        // A tile has those that were stored when it had fewer hashes.
        let length = usize::from(tile.width()) * HASH_LEN;
        Ok(stored.filter(|hashes| hashes.len() >= length).map(|mut hashes| {
            hashes.truncate(length);
            hashes
        }))
    }
}
