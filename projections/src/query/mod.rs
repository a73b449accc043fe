//! Questions, answered from the read models.

mod network;
mod node;
mod vm;

use std::str::FromStr;

use otherix_schemas::event::StoredError;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::{Timestamp, TimestampError};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

pub use self::network::{NetworkPage, network_by_id, network_by_name, networks};
pub use self::node::{node_by_id, node_by_name, nodes};
pub use self::vm::{vm_by_id, vm_by_name, vms};

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The database.
    #[error("the read models' database failed")]
    Database(#[from] sqlx::Error),
    /// A row that holds something else.
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

/// A part of a list.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// At most so many.
    pub limit: u32,
    /// Only what came to be after this position.
    pub after: Position,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Listed<View> {
    /// In the order in which they came to be.
    pub views: Vec<View>,
    /// The position of the last one, if there are more.
    pub next: Option<Position>,
}

impl Page {
    /// Rows to ask for: one more than are shown tells whether there are more.
    fn rows(self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// The page of these rows; `position` is the column that they are in the order of.
    fn of<View>(
        self,
        rows: &[SqliteRow],
        position: &str,
        view: impl Fn(&SqliteRow) -> Result<View, QueryError>,
    ) -> Result<Listed<View>, QueryError> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        let rows = rows.get(..limit).unwrap_or(rows);
        let last = rows.last().filter(|_| more).map(|row| crate::query::position(row, position)).transpose()?;
        Ok(Listed { views: rows.iter().map(view).collect::<Result<_, _>>()?, next: last })
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// A column that holds a value of ours as text.
fn parsed<T>(row: &SqliteRow, column: &str) -> Result<T, QueryError>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    row.try_get::<String, _>(column)?.parse().map_err(|error: T::Err| QueryError::Malformed(error.into()))
}

/// A column that holds a text which is a value of ours in JSON, without its quotes.
fn named<T: serde::de::DeserializeOwned>(text: String) -> Result<T, QueryError> {
    Ok(serde_json::from_value(text.into())?)
}

fn time(row: &SqliteRow, column: &str) -> Result<Timestamp, QueryError> {
    Ok(Timestamp::from_unix_micros(row.try_get(column)?)?)
}

fn position(row: &SqliteRow, column: &str) -> Result<Position, sqlx::Error> {
    Ok(Position::new(row.try_get::<i64, _>(column)?.cast_unsigned()))
}

fn count(row: &SqliteRow, column: &str) -> Result<u64, sqlx::Error> {
    Ok(row.try_get::<i64, _>(column)?.cast_unsigned())
}

fn warnings(row: &SqliteRow) -> Result<Vec<String>, QueryError> {
    Ok(serde_json::from_str(row.try_get("warnings")?)?)
}
