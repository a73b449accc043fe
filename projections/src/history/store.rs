//! The history's database: the tables of the read models, and of their versions. Blocking: used from blocking tasks
//! only.

use std::path::{Path, PathBuf};

use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::cluster::{ClusterEvent, ClusterRestored};
use otherix_schemas::event::Event;
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::Position;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::tables::{self, Table};
use crate::HISTORIC;
use crate::projection::{execute, integer};
use crate::store::{OpenError, ProjectionError, is_unusable, position, remove_database, writing_connection};

/// To be increased when the tables of versions change.
const LAYOUT: u32 = 2;

/// Pages that a reading connection caches, in KiB: there is one at a time, and lists of nodes read much.
const CACHE_KIB: u32 = 64 * 1024;

/// What the history was made with and up to which event. One row.
const PROGRESS: &str = "
    CREATE TABLE progress (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        cluster TEXT NOT NULL,
        made_with TEXT NOT NULL,
        position INTEGER NOT NULL
    ) STRICT;";

/// The database, open for writing.
pub(super) struct HistoryStore {
    db: Connection,
    path: PathBuf,
    cluster: ClusterId,
}

/// The position of the last event in the history.
pub(super) fn progress(db: &Connection) -> Result<Position, rusqlite::Error> {
    db.prepare_cached("SELECT position FROM progress")?.query_row([], position)
}

/// Lets a connection read the history at the position that [`look_at`] sets.
pub(super) fn prepare_to_read(db: &Connection) -> Result<(), rusqlite::Error> {
    let is_prepared = "SELECT 1 FROM temp.sqlite_schema WHERE name = 'as_of'";
    if db.prepare_cached(is_prepared)?.exists([])? {
        return Ok(());
    }
    let views: String = tables::of_read_models(HISTORIC)?.iter().map(Table::view).collect();
    db.execute_batch(&format!(
        "PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -{CACHE_KIB};
         CREATE TEMP TABLE as_of (position INTEGER NOT NULL);
         INSERT INTO as_of (position) VALUES (0);
         {views}"
    ))
}

/// Sets the position at which the history is read.
pub(super) fn look_at(db: &Connection, at: Position) -> Result<(), rusqlite::Error> {
    execute(db, "UPDATE temp.as_of SET position = ?1", [integer(at)]).map(drop)
}

impl HistoryStore {
    /// Opens the history, or begins a new one: if there is none, or if it is of another version or cluster, ahead of
    /// `head`, or damaged.
    pub(super) fn open(path: &Path, cluster: ClusterId, head: Position) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Database { path: path.to_owned(), source };
        let tables = tables::of_read_models(HISTORIC).map_err(failed)?;
        let reason = match Self::open_existing(path, cluster, head) {
            Ok(Ok(db)) => return Self::with_triggers(db, path, cluster, &tables).map_err(failed),
            Ok(Err(reason)) => reason.to_owned(),
            Err(error) if is_unusable(&error) => error.to_string(),
            Err(error) => return Err(failed(error)),
        };
        tracing::info!(path = %path.display(), reason, "building the history from the events");
        remove_database(path)?;
        let db = create(path, cluster, &tables).map_err(failed)?;
        Self::with_triggers(db, path, cluster, &tables).map_err(failed)
    }

    /// The connection to an existing history, or why it cannot be continued.
    fn open_existing(
        path: &Path,
        cluster: ClusterId,
        head: Position,
    ) -> Result<Result<Connection, &'static str>, rusqlite::Error> {
        if !path.exists() {
            return Ok(Err("there is none"));
        }
        let db = writing_connection(path)?;
        let is_any = "SELECT 1 FROM sqlite_schema WHERE name = 'progress'";
        if !db.prepare(is_any)?.exists([])? {
            return Ok(Err("it was not begun"));
        }
        let row = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        let found = db.query_row("SELECT cluster, made_with FROM progress", [], row).optional()?;
        Ok(match found {
            None => Err("it was not begun"),
            Some((other, _)) if other != cluster.to_string() => Err("it is of another cluster"),
            Some((_, with)) if with != made_with() => Err("it was made by another version"),
            Some(_) if progress(&db)? > head => Err("it is ahead of the journal"),
            Some(_) => Ok(db),
        })
    }

    fn with_triggers(
        db: Connection,
        path: &Path,
        cluster: ClusterId,
        tables: &[Table],
    ) -> Result<Self, rusqlite::Error> {
        let triggers: String = tables.iter().map(Table::triggers).collect();
        db.execute_batch(&format!(
            "PRAGMA temp_store = MEMORY;
             CREATE TEMP TABLE applying (position INTEGER NOT NULL);
             INSERT INTO applying (position) VALUES (0);
             {triggers}"
        ))?;
        Ok(Self { db, path: path.to_owned(), cluster })
    }

    /// Begins the history again. If it fails, it can be tried again, and nothing is applied until it has succeeded.
    pub(super) fn reset(&mut self) -> Result<(), OpenError> {
        let failed = |source| OpenError::Database { path: self.path.clone(), source };
        // The old file is closed before it is removed.
        drop(std::mem::replace(&mut self.db, Connection::open_in_memory().map_err(failed)?));
        remove_database(&self.path)?;
        let tables = tables::of_read_models(HISTORIC).map_err(failed)?;
        let db = create(&self.path, self.cluster, &tables).map_err(failed)?;
        *self = Self::with_triggers(db, &self.path, self.cluster, &tables).map_err(failed)?;
        Ok(())
    }

    /// Checks the file for damage, which takes some seconds for each GB. Returns a description of it.
    pub(super) fn damage(&self) -> Result<Option<String>, rusqlite::Error> {
        let report: String = self.db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        Ok((report != "ok").then_some(report))
    }

    /// The position of the last event that was applied.
    pub(super) fn position(&self) -> Result<Position, rusqlite::Error> {
        progress(&self.db)
    }

    /// Applies those of the events after `after` that the history lacks, up to the first that cannot be applied.
    /// Returns the position of the last event in the history. None is applied if the history is before `after`, because
    /// it was begun again.
    pub(super) fn apply(
        &mut self,
        after: Position,
        mut events: &[EventEnvelope],
    ) -> Result<(Position, Option<ProjectionError>), rusqlite::Error> {
        let mut error = None;
        loop {
            let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            // From the database: a batch whose caller was dropped may have been committed since.
            let before = progress(&tx)?;
            if before < after {
                return Ok((before, error));
            }
            let lacking = events.partition_point(|event| event.header.position <= before);
            events = events.get(lacking..).unwrap_or_default();
            match apply_all(&tx, before, events) {
                Ok(position) => {
                    execute(&tx, "UPDATE progress SET position = ?1", [integer(position)])?;
                    tx.commit()?;
                    return Ok((position, error));
                }
                Err(Stop { position, number, reason }) => {
                    tx.rollback()?;
                    // The events before it are applied again.
                    events = events.get(..number).unwrap_or_default();
                    error = Some(reason.into_error(position)?);
                }
            }
        }
    }
}

/// Why not all events can be applied.
struct Stop {
    position: Position,
    /// How many events there are before it.
    number: usize,
    reason: StopReason,
}

enum StopReason {
    GivenUp(Position),
    Apply(crate::projection::ApplyError),
}

impl StopReason {
    /// The error of the event, unless it is one of the database, which concerns all events.
    fn into_error(self, position: Position) -> Result<ProjectionError, rusqlite::Error> {
        match self {
            Self::GivenUp(kept) => Ok(ProjectionError::GivenUp { kept }),
            Self::Apply(crate::projection::ApplyError::Database(error)) if !is_about_row(&error) => Err(error),
            Self::Apply(source) => Ok(ProjectionError::Apply { position, source }),
        }
    }
}

/// Whether an error of the database is due to what the statement says.
fn is_about_row(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{ConstraintViolation, TypeMismatch, Unknown};
    matches!(error.sqlite_error_code(), None | Some(ConstraintViolation | TypeMismatch | Unknown))
}

fn apply_all(db: &Connection, before: Position, events: &[EventEnvelope]) -> Result<Position, Stop> {
    let mut last = before;
    for (number, event) in events.iter().enumerate() {
        let position = event.header.position;
        let stop = |reason| Stop { position, number, reason };
        if let Event::Cluster(ClusterEvent::Restored(ClusterRestored { kept, .. })) = &event.event
            && last > *kept
        {
            return Err(stop(StopReason::GivenUp(*kept)));
        }
        let failed = |error| stop(StopReason::Apply(error));
        execute(db, "UPDATE temp.applying SET position = ?1", [integer(position)])
            .map_err(|error| failed(error.into()))?;
        for projection in HISTORIC {
            projection.apply(db, event).map_err(failed)?;
        }
        last = position;
    }
    Ok(last)
}

/// Which versions of the read models the rows are of.
fn made_with() -> String {
    let models: Vec<_> =
        HISTORIC.iter().map(|model| (model.name(), model.version(), model.schema().to_owned())).collect();
    serde_json::json!({ "layout": LAYOUT, "models": models }).to_string()
}

fn create(path: &Path, cluster: ClusterId, tables: &[Table]) -> Result<Connection, rusqlite::Error> {
    let mut db = writing_connection(path)?;
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for projection in HISTORIC {
        tx.execute_batch(projection.schema())?;
    }
    tx.execute_batch(&tables.iter().map(Table::creation).collect::<String>())?;
    tx.execute_batch(PROGRESS)?;
    let row = "INSERT INTO progress (id, cluster, made_with, position) VALUES (1, ?1, ?2, 0)";
    execute(&tx, row, params![cluster.to_string(), made_with()])?;
    tx.commit()?;
    Ok(db)
}

#[cfg(test)]
mod tests;
