//! The statements that store a batch.
//!
//! All rows of a table are one blob parameter, which the statement splits at the offsets in a JSON array. So there are
//! two statement texts, which SQLite compiles once, one round trip to the connection's thread for a batch, and neither
//! a parameter nor a result row for each event: those cost more than the insertion itself.

use std::fmt::Write as _;

use otherix_schemas::position::{Epoch, Position};
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments};

use crate::store::{Batch, Entry, IdempotencyRecord};

/// Expired idempotency records that one append deletes, beyond as many as it adds.
const EXPIRED_MAX: usize = 200;

// `$1` position before the batch, `$3` rows as `Rows::event` writes them, `$4` their offsets.
macro_rules! insert_events {
    () => {
        "INSERT INTO events (position, stream_id, stream_version, event_id, type, body, recorded_at, digest)
         SELECT $1 + 1 + key,
             CAST(substr($3, value + 118, s) AS TEXT),
             CAST(substr($3, value, 10) AS INTEGER),
             CAST(substr($3, value + 50, 36) AS TEXT),
             CAST(substr($3, value + 118 + s, t) AS TEXT),
             substr($3, value + 118 + s + t + r, CAST(substr($3, value + 40, 10) AS INTEGER)),
             CAST(substr($3, value + 118 + s + t, r) AS TEXT),
             substr($3, value + 86, 32)
         FROM (SELECT key, value,
                 CAST(substr($3, value + 10, 10) AS INTEGER) AS s,
                 CAST(substr($3, value + 20, 10) AS INTEGER) AS t,
                 CAST(substr($3, value + 30, 10) AS INTEGER) AS r
             FROM json_each($4))"
    };
}

// `$1` expected position, `$2` expected epoch.
macro_rules! is_as_expected {
    () => {
        "(SELECT epoch FROM meta) = $2 AND (SELECT COALESCE(MAX(position), 0) FROM events) = $1"
    };
}

/// Events that one statement stores. As it also reads the table that it inserts into, SQLite copies its rows first; for
/// more rows, further statements cost less than the copy.
const ONE_STATEMENT: usize = 64;

/// Stores events, or changes no row if the store is not as expected. A single statement is a transaction of its own.
const EVENTS: &str = concat!(insert_events!(), " WHERE ", is_as_expected!());

// `$5` time before which records are deleted, `$6` at most how many.
macro_rules! delete_records {
    () => {
        "DELETE FROM handled WHERE rowid IN (SELECT rowid FROM handled WHERE at < $5 ORDER BY at LIMIT +$6);"
    };
}

// `$7` rows as `Rows::record` writes them, `$8` their offsets.
macro_rules! insert_records {
    () => {
        "INSERT INTO handled (user, key, fingerprint, reply, at)
         SELECT CAST(substr($7, value + 82, u) AS TEXT),
             CAST(substr($7, value + 82 + u, k) AS TEXT),
             substr($7, value + 50, 32),
             substr($7, value + 82 + u + k, CAST(substr($7, value + 20, 10) AS INTEGER)),
             CAST(substr($7, value + 30, 20) AS INTEGER)
         FROM (SELECT value,
                 CAST(substr($7, value, 10) AS INTEGER) AS u,
                 CAST(substr($7, value + 10, 10) AS INTEGER) AS k
             FROM json_each($8))
         WHERE true
         ON CONFLICT (user, key) DO UPDATE
         SET fingerprint = excluded.fingerprint, reply = excluded.reply, at = excluded.at;"
    };
}

// Violates a constraint, which ends the transaction, if the store is not as expected.
macro_rules! begin {
    () => {
        concat!(
            "BEGIN IMMEDIATE; INSERT INTO meta (id, cluster, epoch) SELECT 1, '', 0 WHERE NOT (",
            is_as_expected!(),
            ");"
        )
    };
}

/// Stores events and idempotency records. Each statement's result wakes the caller, so there are no more than
/// necessary.
const BATCH: &str = concat!(begin!(), insert_events!(), ";", insert_records!(), "COMMIT");

/// Likewise, after deleting expired records.
const BATCH_AND_DELETION: &str =
    concat!(begin!(), insert_events!(), ";", delete_records!(), insert_records!(), "COMMIT");

/// Rows of a table in one blob, each of which begins with numbers of fixed width.
#[derive(Default)]
struct Rows {
    bytes: Vec<u8>,
    /// A JSON array of the rows' offsets, from 1, without its last bracket.
    offsets: String,
}

impl Rows {
    fn begin(&mut self) {
        self.offsets.push(if self.offsets.is_empty() { '[' } else { ',' });
        // Writing to a string cannot fail.
        let _infallible = write!(self.offsets, "{}", self.bytes.len() + 1);
    }

    fn number(&mut self, number: impl std::fmt::Display, width: usize) {
        self.bytes.extend_from_slice(format!("{number:0>width$}").as_bytes());
    }

    fn event(&mut self, entry: &Entry) {
        let Entry { position: _, stream_id, stream_version, event_id, type_name, body, recorded_at, digest } = entry;
        let recorded_at = recorded_at.to_string();
        self.begin();
        self.number(stream_version, 10);
        for length in [stream_id.len(), type_name.len(), recorded_at.len(), body.len()] {
            self.number(length, 10);
        }
        self.bytes.extend_from_slice(event_id.to_string().as_bytes());
        self.bytes.extend_from_slice(digest.as_bytes());
        for bytes in [stream_id.as_bytes(), type_name.as_bytes(), recorded_at.as_bytes(), body] {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn record(&mut self, record: &IdempotencyRecord) {
        let IdempotencyRecord { user, key, fingerprint, reply, at } = record;
        self.begin();
        for length in [user.as_str().len(), key.len(), reply.len()] {
            self.number(length, 10);
        }
        self.bytes.extend_from_slice(format!("{:020}", at.unix_micros()).as_bytes());
        self.bytes.extend_from_slice(fingerprint.as_bytes());
        for bytes in [user.as_str().as_bytes(), key.as_bytes(), reply] {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn into_parameters(self) -> (Vec<u8>, String) {
        let offsets = if self.offsets.is_empty() { "[]".to_owned() } else { self.offsets + "]" };
        (self.bytes, offsets)
    }
}

/// A statement, and how many rows it changes if the store is as expected.
pub(super) struct Append {
    pub(super) query: Query<'static, Sqlite, SqliteArguments>,
    /// None if the statement fails instead.
    pub(super) changes: Option<u64>,
}

/// Returns the statement that stores an event within a transaction that has checked the store's head.
pub(super) fn event(after: Position, entry: &Entry) -> Query<'static, Sqlite, SqliteArguments> {
    bind_events(insert_events!(), after, Epoch::FIRST, std::slice::from_ref(entry))
}

/// Returns the statements that store a batch after a position.
pub(super) fn append(after: Position, epoch: Epoch, batch: &Batch) -> Append {
    let has_records = !batch.idempotency.is_empty() || batch.expire_before.is_some();
    if !has_records && batch.entries.len() <= ONE_STATEMENT {
        let query = bind_events(EVENTS, after, epoch, &batch.entries);
        return Append { query, changes: Some(batch.entries.len() as u64) };
    }
    let mut rows = Rows::default();
    batch.idempotency.iter().for_each(|record| rows.record(record));
    let (bytes, offsets) = rows.into_parameters();
    let limit = i64::try_from(batch.idempotency.len() + EXPIRED_MAX).unwrap_or(i64::MAX);
    let text = if batch.expire_before.is_some() { BATCH_AND_DELETION } else { BATCH };
    let query = bind_events(text, after, epoch, &batch.entries)
        .bind(batch.expire_before.map(|before| before.unix_micros()))
        .bind(limit)
        .bind(bytes)
        .bind(offsets);
    Append { query, changes: None }
}

fn bind_events(
    text: &'static str,
    after: Position,
    epoch: Epoch,
    entries: &[Entry],
) -> Query<'static, Sqlite, SqliteArguments> {
    let mut rows = Rows::default();
    entries.iter().for_each(|entry| rows.event(entry));
    let (bytes, offsets) = rows.into_parameters();
    sqlx::query(text).bind(after.get().cast_signed()).bind(epoch.get()).bind(bytes).bind(offsets)
}
