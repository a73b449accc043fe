//! From a row of the database to a value.

use std::str::FromStr;

use bytes::Bytes;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::store_error;
use crate::store::{Digest, Entry, IdempotencyRecord, StoreError};

pub(super) fn position(row: &SqliteRow, column: &str) -> Result<Position, sqlx::Error> {
    Ok(Position::new(row.try_get::<i64, _>(column)?.cast_unsigned()))
}

/// Parses a text column.
pub(super) fn parsed<T: FromStr>(row: &SqliteRow, column: &str) -> Result<T, sqlx::Error>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let decode = |source: T::Err| sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(source) };
    row.try_get::<&str, _>(column)?.parse().map_err(decode)
}

pub(super) fn digest(row: &SqliteRow, column: &str) -> Result<Digest, sqlx::Error> {
    Digest::try_from(row.try_get::<Vec<u8>, _>(column)?)
        .map_err(|_| sqlx::Error::ColumnDecode { index: column.to_owned(), source: "not 32 bytes".into() })
}

pub(super) fn entry(row: &SqliteRow) -> Result<Entry, StoreError> {
    let position = position(row, "position").map_err(store_error)?;
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
    read().map_err(|source| StoreError::Malformed { position, source: source.into() })
}

/// The position of an event, and its bytes.
pub(super) fn body(row: &SqliteRow) -> Result<(Position, Bytes), StoreError> {
    let position = position(row, "position").map_err(store_error)?;
    let body = row.try_get::<Vec<u8>, _>("body");
    let body = body.map_err(|source| StoreError::Malformed { position, source: source.into() })?;
    Ok((position, Bytes::from(body)))
}

pub(super) fn idempotency_record(row: &SqliteRow) -> Result<IdempotencyRecord, sqlx::Error> {
    let at = Timestamp::from_unix_micros(row.try_get("at")?)
        .map_err(|source| sqlx::Error::ColumnDecode { index: "at".to_owned(), source: Box::new(source) })?;
    Ok(IdempotencyRecord {
        user: parsed(row, "user")?,
        key: row.try_get("key")?,
        fingerprint: digest(row, "fingerprint")?,
        reply: Bytes::from(row.try_get::<Vec<u8>, _>("reply")?),
        at,
    })
}
