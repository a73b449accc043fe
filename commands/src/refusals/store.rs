//! The database of refused commands. Blocking: used from blocking tasks only.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use otherix_schemas::error::ErrorCode;
use otherix_schemas::refusal::{NamedResource, REFUSALS_MAX, RefusalQuery, RefusalView, Refusals};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::name_key;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, Row, Transaction, params, params_from_iter};

use super::Refusal;

/// SQLite's `user_version` of a file with these tables.
const LAYOUT: i64 = 1;

const TABLES: &str = "
    CREATE TABLE refusals (
        id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, last_time INTEGER NOT NULL,
        count INTEGER NOT NULL, actor TEXT NOT NULL, actor_name TEXT NOT NULL, resource TEXT NOT NULL,
        request TEXT NOT NULL, name TEXT, ids TEXT NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL
    ) STRICT;
    CREATE INDEX refusals_by_actor ON refusals (actor, id);
    CREATE INDEX refusals_by_name ON refusals (name, resource, id) WHERE name IS NOT NULL;
    CREATE TABLE concerned (
        resource_id TEXT NOT NULL, refusal INTEGER NOT NULL REFERENCES refusals ON DELETE CASCADE,
        PRIMARY KEY (resource_id, refusal)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX concerned_by_refusal ON concerned (refusal);
";

/// The same command of the same caller within so many microseconds is counted, not stored again.
const REPEATED: i64 = 60 * 1_000_000;

/// Refusals of one caller that are kept: whoever makes more loses its own.
const OF_ACTOR_MAX: i64 = 1_000;

/// Refusals that are kept in all.
const ALL_MAX: i64 = 100_000;

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
    #[error("cannot read or write the database of refused commands")]
    Access(#[from] rusqlite::Error),
    #[error("a refused command is malformed")]
    Malformed,
}

/// The database.
#[derive(Debug)]
pub(super) struct RefusalStore(Mutex<Connection>);

impl RefusalStore {
    /// Opens the database at `path`, and creates it if there is none.
    pub(super) fn open(path: &Path) -> Result<Self, RefusalStoreError> {
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
        if found == 0 {
            let transaction = connection.transaction().map_err(failed)?;
            transaction.execute_batch(TABLES).map_err(failed)?;
            transaction.pragma_update(None, "user_version", LAYOUT).map_err(failed)?;
            transaction.commit().map_err(failed)?;
        }
        Ok(Self(Mutex::new(connection)))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores refusals, all or none.
    pub(super) fn record(&self, refusals: &[Refusal]) -> Result<(), RefusalStoreError> {
        if refusals.is_empty() {
            return Ok(());
        }
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        for refusal in refusals {
            if !count(&transaction, refusal)? {
                insert(&transaction, refusal)?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// Returns the latest refusals that a query selects; those about users and keys for an auditor only.
    pub(super) fn list(&self, query: &RefusalQuery, is_auditor: bool) -> Result<Refusals, RefusalStoreError> {
        let mut sources: Vec<String> = Vec::new();
        let mut values: Vec<Value> = Vec::new();
        if !query.ids.is_empty() {
            let marks = vec!["?"; query.ids.len()].join(", ");
            sources.push(format!("SELECT refusal FROM concerned WHERE resource_id IN ({marks})"));
            values.extend(query.ids.iter().map(|id| Value::from(id.to_string())));
        }
        if let Some(NamedResource { resource, name }) = &query.named {
            sources.push("SELECT id FROM refusals WHERE name = ? AND resource = ?".to_owned());
            values.extend([Value::from(name_key(name.trim())), Value::from(resource.clone())]);
        }
        let mut conditions = Vec::new();
        if !sources.is_empty() {
            conditions.push(format!("id IN ({})", sources.join(" UNION ")));
        }
        if !is_auditor {
            conditions.push("request NOT LIKE 'user.%' AND request NOT LIKE 'join-token.%'".to_owned());
            conditions.push("request NOT IN ('node.enroll', 'node.rotate-key')".to_owned());
        }
        let condition = if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") };
        let statement = format!(
            "SELECT time, count, last_time, actor, actor_name, request, code, message FROM refusals \
             WHERE {condition} ORDER BY id DESC LIMIT {}",
            REFUSALS_MAX + 1
        );
        let connection = self.lock();
        let mut statement = connection.prepare(&statement)?;
        let rows = statement.query_and_then(params_from_iter(values), view)?;
        let mut refusals = rows.collect::<Result<Vec<RefusalView>, RefusalStoreError>>()?;
        let is_truncated = refusals.len() > REFUSALS_MAX;
        refusals.truncate(REFUSALS_MAX);
        refusals.reverse();
        Ok(Refusals { refusals, is_truncated })
    }
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

/// Stores a refusal, and deletes the oldest that are too many.
fn insert(transaction: &Transaction<'_>, refusal: &Refusal) -> Result<(), rusqlite::Error> {
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
        .execute(params![actor, OF_ACTOR_MAX])?;
    transaction.prepare_cached("DELETE FROM refusals WHERE id <= ?1 - ?2")?.execute(params![id, ALL_MAX])?;
    Ok(())
}

fn view(row: &Row<'_>) -> Result<RefusalView, RefusalStoreError> {
    let time = |index| -> Result<Timestamp, RefusalStoreError> {
        Timestamp::from_unix_micros(row.get(index)?).map_err(|_| RefusalStoreError::Malformed)
    };
    let text = |index| row.get::<_, String>(index);
    let code = serde_json::from_value::<ErrorCode>(text(6)?.into()).map_err(|_| RefusalStoreError::Malformed)?;
    Ok(RefusalView {
        time: time(0)?,
        count: row.get(1)?,
        last_time: time(2)?,
        actor: text(3)?.parse().map_err(|_| RefusalStoreError::Malformed)?,
        actor_name: text(4)?,
        request: text(5)?,
        code,
        message: text(7)?,
    })
}
