//! The read models' database: the tables of every projection, and the checkpoint of each.
//!
//! A projection whose version or schema is not what its tables were created with gets empty tables and the checkpoint
//! 0; the tables of a read model that this version does not have are dropped. A file that cannot be used is replaced,
//! because all of its content can be rebuilt from the events. Blocking: used from blocking tasks only.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::cluster::{ClusterEvent, ClusterRestored};
use otherix_schemas::event::Event;
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::Position;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::projection::{ApplyError, Projection, execute, integer};
use crate::rebuild::{RebuildError, swap};

/// SQLite's `user_version` of a file with the tables of `checkpoints.sql`.
const LAYOUT: i64 = 1;

/// How long a connection waits for another one's transaction.
const BUSY: Duration = Duration::from_secs(5);

/// Pages that the writing connection caches, in KiB: the upper levels and the ends of the indexes of some million rows.
const CACHE_KIB: i64 = 64 * 1024;

/// What the name of the file of a rebuild ends with.
pub(crate) const NEW: &str = ".new";

/// Statements that a connection keeps prepared; all projections and queries together have fewer.
const STATEMENTS: usize = 128;

/// Why the read models cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open the read models `{}`", path.display())]
    Database {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("cannot {attempt} the unusable read models `{}`", path.display())]
    File {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the read models belong to cluster `{0}`; they may be deleted and are then rebuilt")]
    OtherCluster(String),
    #[error(
        "the read models are at position {found}, ahead of the journal at {head}; they may be deleted and are then \
         rebuilt"
    )]
    Ahead { found: Position, head: Position },
}

/// Why a projection stopped.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    #[error("cannot apply the event at position {position}")]
    Apply {
        position: Position,
        #[source]
        source: ApplyError,
    },
    /// The read model contains events that a new epoch has given up.
    #[error(
        "the read model holds events after position {kept}, which a new epoch has given up: rebuild it with `otherixd \
         rebuild`"
    )]
    GivenUp { kept: Position },
}

/// How far a projection is after a batch.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) position: Position,
    pub(crate) error: Option<ProjectionError>,
}

/// The database, open for writing.
pub(crate) struct Store {
    db: Connection,
    path: PathBuf,
    cluster: ClusterId,
    projections: &'static [&'static dyn Projection],
}

impl Store {
    /// Opens the database at `path` and brings its tables up to date with `projections`. `head` is the event store's.
    pub(crate) fn open(
        path: &Path,
        cluster: ClusterId,
        head: Position,
        projections: &'static [&'static dyn Projection],
    ) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Database { path: path.to_owned(), source };
        let db = match open_file(path) {
            Ok(Some(db)) => db,
            Ok(None) => {
                tracing::warn!(
                    path = %path.display(),
                    "the read models have another version's layout; rebuilding them"
                );
                remove_database(path)?;
                create_file(path).map_err(failed)?
            }
            Err(error) if is_unusable(&error) => {
                set_aside(path, &error.to_string())?;
                create_file(path).map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        let mut store = Self { db, path: path.to_owned(), cluster, projections };
        store.check_source(cluster, head).map_err(failed)??;
        store.update_schemas().map_err(failed)?;
        Ok(store)
    }

    /// Checks the file for damage, which takes some seconds for each GB. Returns a description of it.
    pub(crate) fn damage(&self) -> Result<Option<String>, rusqlite::Error> {
        let report: String = self.db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        Ok((report != "ok").then_some(report))
    }

    /// Replaces the file, because of this damage, by an empty one: everything in it can be derived from the events.
    pub(crate) fn replace(&mut self, damage: &str, head: Position) -> Result<(), OpenError> {
        let failed = |source| OpenError::Database { path: self.path.clone(), source };
        // The old file is closed before it is moved.
        drop(std::mem::replace(&mut self.db, Connection::open_in_memory().map_err(failed)?));
        if self.path.exists() {
            set_aside(&self.path, damage)?;
        }
        *self = Self::open(&self.path, self.cluster, head, self.projections)?;
        Ok(())
    }

    /// Begins new read models in a file beside this one; what an interrupted rebuild has left there is removed.
    pub(crate) fn beside(&self) -> Result<Self, OpenError> {
        let path = with_suffix(&self.path, NEW);
        remove_database(&path)?;
        let new = Self::open(&path, self.cluster, Position::ZERO, self.projections);
        if new.is_err() {
            remove_database(&path)?;
        }
        new
    }

    /// Closes and removes the file.
    pub(crate) fn discard(&mut self) -> Result<(), OpenError> {
        self.close()?;
        remove_database(&self.path)
    }

    /// Replaces the file by that of `new`. Both are closed, and neither is usable until [`Store::reopen`].
    pub(crate) fn replace_by(&mut self, new: &mut Self) -> Result<(), RebuildError> {
        // Its last connection writes the write-ahead log back and removes it.
        self.close()?;
        new.close()?;
        swap(&new.path, &self.path)
    }

    fn close(&mut self) -> Result<(), OpenError> {
        let none = Connection::open_in_memory();
        let none = none.map_err(|source| OpenError::Database { path: self.path.clone(), source })?;
        drop(std::mem::replace(&mut self.db, none));
        Ok(())
    }

    /// Opens the file again. Returns the checkpoints.
    pub(crate) fn reopen(&mut self) -> Result<Vec<Position>, OpenError> {
        self.close()?;
        *self = Self::open(&self.path, self.cluster, Position::new(u64::MAX), self.projections)?;
        self.checkpoints().map_err(|source| OpenError::Database { path: self.path.clone(), source })
    }

    /// Whether the content is of this cluster and not ahead of its events. A new file becomes this cluster's.
    fn check_source(&self, cluster: ClusterId, head: Position) -> Result<Result<(), OpenError>, rusqlite::Error> {
        execute(&self.db, "INSERT OR IGNORE INTO source (id, cluster) VALUES (1, ?1)", [cluster.to_string()])?;
        let found: String = self.db.query_row("SELECT cluster FROM source", [], |row| row.get(0))?;
        if found != cluster.to_string() {
            return Ok(Err(OpenError::OtherCluster(found)));
        }
        let furthest = self.db.query_row("SELECT COALESCE(MAX(position), 0) FROM checkpoints", [], position)?;
        if furthest > head {
            return Ok(Err(OpenError::Ahead { found: furthest, head }));
        }
        Ok(Ok(()))
    }

    fn update_schemas(&mut self) -> Result<(), rusqlite::Error> {
        // Otherwise dropping a table would look for references to each of its rows.
        self.db.pragma_update(None, "foreign_keys", false)?;
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let stored: Vec<String> =
            tx.prepare("SELECT name FROM checkpoints")?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for name in stored.iter().filter(|name| self.projections.iter().all(|projection| projection.name() != *name)) {
            tracing::info!(read_model = name, "dropping a read model that this version does not have");
            drop_tables(&tx, name)?;
        }
        for projection in self.projections {
            update_schema(&tx, *projection)?;
        }
        tx.commit()?;
        self.db.pragma_update(None, "foreign_keys", true)
    }

    /// The checkpoint of each projection, in the order of the projections.
    pub(crate) fn checkpoints(&self) -> Result<Vec<Position>, rusqlite::Error> {
        self.projections.iter().map(|projection| checkpoint(&self.db, projection.name())).collect()
    }

    /// Applies events and moves the checkpoints in one transaction. `events` are all those from `after` to the last of
    /// them, so each projection whose checkpoint is at `after` or later applies those that it lacks; others are left
    /// behind. A projection that cannot apply an event stops before it, without effect on the others.
    pub(crate) fn apply(&mut self, after: Position, events: &[EventEnvelope]) -> Result<Vec<Applied>, rusqlite::Error> {
        let mut tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut applied = Vec::with_capacity(self.projections.len());
        for projection in self.projections {
            // From the database: a batch whose caller was dropped may have been committed since.
            let checkpoint = checkpoint(&tx, projection.name())?;
            let lacking = events.partition_point(|event| event.header.position <= checkpoint);
            applied.push(match events.get(lacking..) {
                Some(lacking @ [_, ..]) if checkpoint >= after => apply_to(&mut tx, *projection, checkpoint, lacking)?,
                Some(_) | None => Applied { position: checkpoint, error: None },
            });
        }
        tx.commit()?;
        Ok(applied)
    }
}

/// Applies `events` to one read model, up to the first that cannot be applied.
fn apply_to(
    tx: &mut Transaction<'_>,
    projection: &dyn Projection,
    checkpoint: Position,
    mut events: &[EventEnvelope],
) -> Result<Applied, rusqlite::Error> {
    let mut error = None;
    loop {
        let savepoint = tx.savepoint()?;
        let Err(stop) = apply_all(&savepoint, projection, checkpoint, events) else {
            let position = events.last().map_or(checkpoint, |event| event.header.position);
            let update = "UPDATE checkpoints SET position = ?2 WHERE name = ?1";
            execute(&savepoint, update, params![projection.name(), integer(position)])?;
            savepoint.commit()?;
            return Ok(Applied { position, error });
        };
        // On some errors, as of a full disk, SQLite rolls the whole transaction back.
        if savepoint.is_autocommit()
            && let ProjectionError::Apply { source: ApplyError::Database(source), .. } = stop.reason
        {
            return Err(source);
        }
        savepoint.finish()?;
        events = events.get(..stop.before).unwrap_or_default();
        error = Some(stop.reason);
    }
}

/// Why not all events of a batch can be applied.
struct Stop {
    /// Number of events that can.
    before: usize,
    reason: ProjectionError,
}

fn apply_all(
    db: &Connection,
    projection: &dyn Projection,
    checkpoint: Position,
    events: &[EventEnvelope],
) -> Result<(), Stop> {
    let mut last = checkpoint;
    for (before, event) in events.iter().enumerate() {
        let position = event.header.position;
        if let Event::Cluster(ClusterEvent::Restored(ClusterRestored { kept, .. })) = &event.event
            && last > *kept
        {
            return Err(Stop { before, reason: ProjectionError::GivenUp { kept: *kept } });
        }
        last = position;
        let stop = |source| Stop { before, reason: ProjectionError::Apply { position, source } };
        projection.apply(db, event).map_err(stop)?;
    }
    Ok(())
}

/// Creates empty tables for a read model unless it has those of this version.
fn update_schema(tx: &Transaction<'_>, projection: &dyn Projection) -> Result<(), rusqlite::Error> {
    let name = projection.name();
    let stored = tx
        .query_row("SELECT version, schema FROM checkpoints WHERE name = ?1", [name], |row| {
            Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?))
        })
        .optional()?;
    match stored {
        Some((version, schema)) if version == projection.version() && schema == projection.schema() => return Ok(()),
        Some(_) => {
            tracing::info!(read_model = name, "a read model was made by another version; rebuilding it");
            drop_tables(tx, name)?;
        }
        None => tracing::info!(read_model = name, "building a read model"),
    }
    let before = tables(tx)?;
    tx.execute_batch(projection.schema())?;
    let created: Vec<String> = tables(tx)?.into_iter().filter(|table| !before.contains(table)).collect();
    execute(
        tx,
        "INSERT INTO checkpoints (name, version, schema, tables, position) VALUES (?1, ?2, ?3, ?4, 0)",
        params![name, projection.version(), projection.schema(), serde_json::Value::from(created).to_string()],
    )?;
    Ok(())
}

/// Drops a read model, with the tables that were created for it.
fn drop_tables(tx: &Transaction<'_>, name: &str) -> Result<(), rusqlite::Error> {
    let tables: Vec<String> = tx
        .prepare("SELECT json_each.value FROM checkpoints, json_each(tables) WHERE name = ?1")?
        .query_map([name], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for table in tables {
        tx.execute_batch(&format!("DROP TABLE IF EXISTS \"{}\"", table.replace('"', "\"\"")))?;
    }
    execute(tx, "DELETE FROM checkpoints WHERE name = ?1", [name])?;
    Ok(())
}

fn tables(db: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?.query_map([], |row| row.get(0))?.collect()
}

/// The last event that was applied to a read model.
pub(crate) fn checkpoint(db: &Connection, name: &str) -> Result<Position, rusqlite::Error> {
    db.prepare_cached("SELECT position FROM checkpoints WHERE name = ?1")?.query_row([name], position)
}

pub(crate) fn position(row: &rusqlite::Row<'_>) -> Result<Position, rusqlite::Error> {
    Ok(Position::new(row.get::<_, i64>(0)?.cast_unsigned()))
}

/// Opens the file, or creates it. `None` if it has another layout.
fn open_file(path: &Path) -> Result<Option<Connection>, rusqlite::Error> {
    let db = writing_connection(path)?;
    let layout: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if layout == LAYOUT {
        return Ok(Some(db));
    }
    if layout != 0 || !tables(&db)?.is_empty() {
        return Ok(None);
    }
    drop(db);
    create_file(path).map(Some)
}

fn create_file(path: &Path) -> Result<Connection, rusqlite::Error> {
    let mut db = writing_connection(path)?;
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(include_str!("checkpoints.sql"))?;
    tx.pragma_update(None, "user_version", LAYOUT)?;
    tx.commit()?;
    Ok(db)
}

pub(crate) fn writing_connection(path: &Path) -> Result<Connection, rusqlite::Error> {
    let db = Connection::open(path)?;
    db.busy_timeout(BUSY)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    let _mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    // What a power failure loses is rebuilt from the events.
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(db)
}

/// A connection for queries.
pub(crate) fn reading_connection(path: &Path) -> Result<Connection, rusqlite::Error> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(BUSY)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(db)
}

/// Moves a file that cannot be used, so that it can be examined.
fn set_aside(path: &Path, error: &str) -> Result<(), OpenError> {
    let aside = with_suffix(path, ".unusable");
    tracing::warn!(
        path = %path.display(), error, moved_to = %aside.display(),
        "the read models cannot be used; rebuilding them"
    );
    fs::rename(path, &aside).map_err(file("move", path))?;
    remove_log(path)
}

/// Whether the error is about the file's content.
pub(crate) fn is_unusable(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Removes a database that is not open, if there is one.
pub(crate) fn remove_database(path: &Path) -> Result<(), OpenError> {
    remove_file(path)?;
    remove_log(path)
}

/// Removes the write-ahead log of a file that is gone, so that SQLite does not apply it to the next one.
fn remove_log(path: &Path) -> Result<(), OpenError> {
    remove_file(&with_suffix(path, "-wal"))?;
    remove_file(&with_suffix(path, "-shm"))
}

fn remove_file(path: &Path) -> Result<(), OpenError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn file<'p>(attempt: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> OpenError + use<'p> {
    move |source| OpenError::File { attempt, path: path.to_owned(), source }
}
