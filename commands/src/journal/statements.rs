//! What the journal says to SQLite to store a batch: built here, run elsewhere.

use otherix_schemas::position::{Epoch, Position};
use sqlx::{QueryBuilder, Sqlite};

use super::{Batch, Entry, Handled};

/// Rows in one statement: more gain nothing, and SQLite takes at most 32,766 values.
const ROWS: usize = 100;

/// Most batches: some events, and no answers to remember.
pub(super) fn is_one_statement(batch: &Batch) -> bool {
    batch.handled.is_empty() && batch.forget_before.is_none() && batch.entries.len() <= ROWS
}

/// One statement is a transaction of its own. It has one result, which comes when all is durable; each of several wakes whoever waits
/// for them all.
pub(super) fn lone(after: Position, epoch: Epoch, entries: &[Entry]) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("");
    insert_entries(&mut query, entries);
    guard(&mut query, after, epoch);
    query
}

/// A transaction that no other can come between. Each of its statements does nothing unless the journal is of the `epoch` and stands
/// where the statement before it left it; a row is given for each that is inserted.
pub(super) fn guarded(after: Position, epoch: Epoch, batch: &Batch) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("BEGIN IMMEDIATE; ");
    let mut head = after;
    for entries in batch.entries.chunks(ROWS) {
        insert_entries(&mut query, entries);
        guard(&mut query, head, epoch);
        query.push(" RETURNING 1; ");
        head = entries.last().map_or(head, |last| last.position);
    }
    if let Some(before) = batch.forget_before {
        query.push("DELETE FROM handled ");
        guard(&mut query, head, epoch);
        query.push(" AND at < ").push_bind(before.unix_micros()).push("; ");
    }
    // Behind the deletion: what is forgotten may be used again in the same batch.
    for handled in batch.handled.chunks(ROWS) {
        insert_handled(&mut query, handled);
        guard(&mut query, head, epoch);
        // A key that was forgotten in memory may still have a row.
        query.push(
            " ON CONFLICT (user, key) DO UPDATE
             SET fingerprint = excluded.fingerprint, reply = excluded.reply, at = excluded.at RETURNING 1; ",
        );
    }
    query.push("COMMIT");
    query
}

fn guard(query: &mut QueryBuilder<Sqlite>, head: Position, epoch: Epoch) {
    query.push(" WHERE (SELECT epoch FROM meta) = ").push_bind(epoch.get());
    query.push(" AND (SELECT COALESCE(MAX(position), 0) FROM events) = ").push_bind(head.get().cast_signed());
}

/// Inserts entries; a condition may follow.
pub(super) fn insert_entries(query: &mut QueryBuilder<Sqlite>, entries: &[Entry]) {
    query.push(
        "INSERT INTO events (position, stream_id, stream_version, event_id, type, body, recorded_at, digest)
         SELECT * FROM (",
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
    query.push(")");
}

/// Inserts what was handled; a condition must follow.
fn insert_handled(query: &mut QueryBuilder<Sqlite>, handled: &[Handled]) {
    query.push("INSERT INTO handled (user, key, fingerprint, reply, at) SELECT * FROM (");
    query.push_values(handled, |mut row, handled| {
        let Handled { user, key, fingerprint, reply, at } = handled;
        row.push_bind(user.to_string())
            .push_bind(key.clone())
            .push_bind(fingerprint.as_bytes().to_vec())
            .push_bind(reply.to_vec())
            .push_bind(at.unix_micros());
    });
    query.push(")");
}
