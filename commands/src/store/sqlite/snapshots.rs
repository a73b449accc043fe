//! State snapshots in the database, in chunks.
//!
//! Each chunk is a short transaction between appends. The row of the snapshot itself is inserted last, so an
//! interrupted save leaves the previous snapshot in place.

use bytes::Bytes;
use otherix_schemas::position::Epoch;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqlitePool};
use sqlx::{Row, Sqlite};

use super::{SqliteStore, rows, store_error};
use crate::config::StoreIdentity;
use crate::store::{StoreError, StoredSnapshot};

/// Bytes in a chunk: an append waits for one at most, which takes about a millisecond.
const CHUNK: usize = 256 * 1024;

/// Chunks deleted at once.
const DELETED: u32 = 16;

const NEWEST: &str = "SELECT * FROM snapshots ORDER BY position DESC LIMIT 1";

const DELETE_CHUNKS: &str = "DELETE FROM snapshot_chunks WHERE rowid IN (
    SELECT rowid FROM snapshot_chunks WHERE position NOT IN (SELECT position FROM snapshots) LIMIT +$1)";

/// Reads the newest snapshot, from one state of the database.
pub(super) async fn newest(readers: &SqlitePool) -> Result<Option<StoredSnapshot>, StoreError> {
    let mut transaction = readers.begin().await.map_err(store_error)?;
    let row = sqlx::query(NEWEST).fetch_optional(&mut *transaction).await.map_err(store_error)?;
    let Some(row) = row else { return Ok(None) };
    let position = rows::position(&row, "position").map_err(store_error)?;
    let query = sqlx::query_scalar("SELECT bytes FROM snapshot_chunks WHERE position = $1 ORDER BY number");
    let chunks: Vec<Vec<u8>> =
        query.bind(position.get().cast_signed()).fetch_all(&mut *transaction).await.map_err(store_error)?;
    let read = || -> Result<StoredSnapshot, sqlx::Error> {
        let identity =
            StoreIdentity { cluster: rows::parsed(&row, "cluster")?, epoch: Epoch::new(row.try_get("epoch")?) };
        Ok(StoredSnapshot {
            format: row.try_get("format")?,
            identity,
            position,
            event_id: rows::parsed(&row, "event_id")?,
            event_digest: rows::digest(&row, "event_digest")?,
            sha256: rows::digest(&row, "sha256")?,
            bytes: Bytes::from(chunks.concat()),
        })
    };
    match read() {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(error) => {
            tracing::warn!(%error, %position, "the state snapshot holds a malformed value and is ignored");
            Ok(None)
        }
    }
}

pub(super) async fn save(store: &SqliteStore, snapshot: &StoredSnapshot) -> Result<(), sqlx::Error> {
    let StoredSnapshot { format, identity, position, event_id, event_digest, sha256, bytes } = snapshot;
    let position = position.get().cast_signed();
    let _no_other = store.snapshots.lock().await;
    let delete = || sqlx::query("DELETE FROM snapshots WHERE position >= $1").bind(position);
    write(store, delete()).await?;
    delete_chunks(store).await?;
    for (number, chunk) in (0i64..).zip(bytes.chunks(CHUNK)) {
        let insert = sqlx::query("INSERT INTO snapshot_chunks (position, number, bytes) VALUES ($1, $2, $3)");
        write(store, insert.bind(position).bind(number).bind(chunk.to_vec())).await?;
    }
    let insert = sqlx::query(
        "INSERT INTO snapshots (position, cluster, epoch, format, event_id, event_digest, sha256)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    );
    let insert = insert
        .bind(position)
        .bind(identity.cluster.to_string())
        .bind(identity.epoch.get())
        .bind(*format)
        .bind(event_id.to_string())
        .bind(event_digest.as_bytes().to_vec())
        .bind(sha256.as_bytes().to_vec());
    write(store, insert).await?;
    write(store, sqlx::query("DELETE FROM snapshots WHERE position < $1").bind(position)).await?;
    delete_chunks(store).await
}

pub(super) async fn discard(store: &SqliteStore) -> Result<(), sqlx::Error> {
    let _no_other = store.snapshots.lock().await;
    write(store, sqlx::query("DELETE FROM snapshots")).await?;
    delete_chunks(store).await
}

/// Deletes chunks that belong to no snapshot.
async fn delete_chunks(store: &SqliteStore) -> Result<(), sqlx::Error> {
    while write(store, sqlx::query(DELETE_CHUNKS).bind(DELETED)).await? > 0 {}
    Ok(())
}

/// Runs a statement between appends. Returns how many rows it changed.
async fn write(store: &SqliteStore, query: Query<'_, Sqlite, SqliteArguments>) -> Result<u64, sqlx::Error> {
    let mut slot = store.writer.lock().await;
    let mut connection = store.take_writer(&mut slot).await?;
    let done = query.execute(&mut connection).await?;
    store.wal.wrote(CHUNK);
    *slot = Some(connection);
    Ok(done.rows_affected())
}
