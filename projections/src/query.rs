//! What the queries of all read models have in common: pages, and reading values from rows.
//!
//! Limits are written `LIMIT +?1`: SQLite compiles a statement with a plain `LIMIT ?1` again whenever a value is bound.

use std::str::FromStr;

use otherix_schemas::event::StoredError;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::{Timestamp, TimestampError};
use rusqlite::{Connection, Params, Row};

/// Why a query has no result.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("the read models' database failed")]
    Database(#[from] rusqlite::Error),
    #[error("the read models hold a malformed value")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<StoredError> for QueryError {
    fn from(error: StoredError) -> Self {
        Self::Malformed(error.into())
    }
}

impl From<TimestampError> for QueryError {
    fn from(error: TimestampError) -> Self {
        Self::Malformed(error.into())
    }
}

impl From<serde_json::Error> for QueryError {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed(error.into())
    }
}

/// Which part of a list is requested.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub limit: u32,
    /// Only resources that were created after this position.
    pub after: Position,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Listed<View> {
    /// In the order of creation.
    pub views: Vec<View>,
    /// The position of each, after which the next page begins if it is the last one shown.
    pub positions: Vec<Position>,
    /// Whether there are more.
    pub has_more: bool,
}

impl<View> Listed<View> {
    /// The position after which the next page begins, if there is one.
    pub fn next(&self) -> Option<Position> {
        self.positions.last().copied().filter(|_| self.has_more)
    }

    /// Leaves the second half for the next page. Returns whether there was one.
    pub(crate) fn halve(&mut self) -> bool {
        let kept = self.views.len() / 2;
        if kept == 0 {
            return false;
        }
        self.has_more = true;
        self.views.truncate(kept);
        self.positions.truncate(kept);
        true
    }
}

impl Page {
    /// How many rows to select: one more than the page shows, to know whether there are more.
    pub(crate) fn rows(self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// The page of the selected rows, each with the position that the list is ordered by.
    pub(crate) fn of<View>(self, mut rows: Vec<(Position, View)>) -> Listed<View> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let (positions, views) = rows.into_iter().unzip();
        Listed { views, positions, has_more }
    }
}

/// Orders the resources that have one name as it is compared: first the one that is not deleted, then the one deleted
/// last. Names are unique, except that an earlier version compared them by fewer rules: the one whose name is exactly
/// `?2` comes first.
pub(crate) const BY_NAME: &str =
    "deleted_at IS NOT NULL, deleted_at DESC, json_extract(created, '$.name') = ?2 DESC, created_position";

/// The first row of a query, if it has one.
pub(crate) fn first<T>(
    db: &Connection,
    sql: &str,
    parameters: impl Params,
    read: impl FnOnce(&Row<'_>) -> Result<T, QueryError>,
) -> Result<Option<T>, QueryError> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    rows.next()?.map(read).transpose()
}

/// All rows of a query.
pub(crate) fn all<T>(
    db: &Connection,
    sql: &str,
    parameters: impl Params,
    mut read: impl FnMut(&Row<'_>) -> Result<T, QueryError>,
) -> Result<Vec<T>, QueryError> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// The text in a column.
pub(crate) fn text<'r>(row: &'r Row<'_>, column: &str) -> Result<&'r str, QueryError> {
    row.get_ref(column)?.as_str().map_err(|error| QueryError::Malformed(error.into()))
}

/// The value whose text form is in a column.
pub(crate) fn parsed<T>(row: &Row<'_>, column: &str) -> Result<T, QueryError>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    text(row, column)?.parse().map_err(|error: T::Err| QueryError::Malformed(error.into()))
}

/// Like [`parsed`], of a column that may be NULL.
pub(crate) fn optional_parsed<T>(row: &Row<'_>, column: &str) -> Result<Option<T>, QueryError>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text = row.get::<_, Option<String>>(column)?;
    text.map(|text| text.parse().map_err(|error: T::Err| QueryError::Malformed(error.into()))).transpose()
}

/// The value whose JSON form is in a column; `None` for NULL.
pub(crate) fn optional_json<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: &str,
) -> Result<Option<T>, QueryError> {
    let text = row.get::<_, Option<String>>(column)?;
    Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
}

/// The value whose JSON form is a string, which is in a column without its quotes.
pub(crate) fn unquoted<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T, QueryError> {
    Ok(serde_json::from_value(text(row, column)?.into())?)
}

pub(crate) fn time(row: &Row<'_>, column: &str) -> Result<Timestamp, QueryError> {
    Ok(Timestamp::from_unix_micros(row.get(column)?)?)
}

pub(crate) fn optional_time(row: &Row<'_>, column: &str) -> Result<Option<Timestamp>, QueryError> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_unix_micros).transpose()?)
}

pub(crate) fn position(row: &Row<'_>, column: &str) -> Result<Position, QueryError> {
    Ok(Position::new(row.get::<_, i64>(column)?.cast_unsigned()))
}

pub(crate) fn count(row: &Row<'_>, column: &str) -> Result<u64, QueryError> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

pub(crate) fn texts(row: &Row<'_>, column: &str) -> Result<Vec<String>, QueryError> {
    Ok(serde_json::from_str(text(row, column)?)?)
}
