//! Questions about networks, answered from the read models.

use std::str::FromStr;

use otherix_schemas::event::NetworkCreated;
use otherix_schemas::event::stored::{NetworkCreatedV1, StoredError};
use otherix_schemas::id::NetworkId;
use otherix_schemas::network::NetworkKind;
use otherix_schemas::outcome::OutcomeStatus;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::{Timestamp, TimestampError};
use otherix_schemas::value::NetworkName;
use otherix_schemas::view::{Lifetime, NetworkStatus, NetworkView, NodeStatus, SilentNode};
use sqlx::Row;
use sqlx::sqlite::{SqlitePool, SqliteRow};

use crate::apply::integer;

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

/// A part of the list of networks.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Only this kind.
    pub kind: Option<NetworkKind>,
    /// At most so many.
    pub limit: u32,
    /// Only networks that were created after this position.
    pub after: Position,
}

/// A page of networks.
#[derive(Clone, Debug)]
pub struct Networks {
    /// The networks, in the order of their creation.
    pub views: Vec<NetworkView>,
    /// The creation of the last one, if there are more.
    pub next: Option<Position>,
}

/// A network with the nodes' outcomes; a deleted one as long as a node has not confirmed its removal.
///
/// # Errors
/// When the read models cannot be read.
pub async fn by_id(pool: &SqlitePool, id: NetworkId) -> Result<Option<NetworkView>, QueryError> {
    let query = format!("{SELECT} WHERE networks.id = $1");
    one(pool, sqlx::query(sqlx::AssertSqlSafe(query)).bind(id.to_string())).await
}

/// The network that has this name, whatever the case.
///
/// # Errors
/// When the read models cannot be read.
pub async fn by_name(pool: &SqlitePool, name: &NetworkName) -> Result<Option<NetworkView>, QueryError> {
    let query = format!("{SELECT} WHERE name_key = $1 AND deleted_at IS NULL");
    one(pool, sqlx::query(sqlx::AssertSqlSafe(query)).bind(name.key())).await
}

/// A page of the networks that are not deleted, without the nodes' outcomes.
///
/// # Errors
/// When the read models cannot be read.
pub async fn list(pool: &SqlitePool, page: Page) -> Result<Networks, QueryError> {
    let query = format!(
        "{SELECT} WHERE deleted_at IS NULL AND created_position > $1 AND ($2 IS NULL OR type = $2)
         ORDER BY created_position LIMIT $3"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(integer(page.after))
        .bind(page.kind.map(NetworkKind::as_str))
        .bind(i64::from(page.limit) + 1)
        .fetch_all(pool)
        .await?;
    let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    let rows = rows.get(..limit).unwrap_or(&rows);
    let views = rows.iter().map(view).collect::<Result<Vec<_>, _>>()?;
    let last = rows.last().filter(|_| more).map(|row| row.try_get::<i64, _>("created_position")).transpose()?;
    Ok(Networks { views, next: last.map(|position| Position::new(position.cast_unsigned())) })
}

/// A network with counts of its outcomes. A deleted network's nodes are those that were to remove it when it was deleted.
const SELECT: &str = "
    SELECT networks.*,
        CASE WHEN deleted_at IS NULL THEN (SELECT COUNT(*) FROM nodes)
            ELSE (SELECT COUNT(*) FROM removals WHERE network_id = networks.id)
                + (SELECT COUNT(*) FROM outcomes WHERE network_id = networks.id AND status = 'removed'
                    AND outcomes.generation = networks.generation)
            END AS expected,
        (SELECT COUNT(*) FROM outcomes WHERE network_id = networks.id) AS reported,
        (SELECT COUNT(*) FROM outcomes WHERE network_id = networks.id AND status = 'ready'
            AND outcomes.generation = networks.generation) AS ready
    FROM networks";

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

async fn one(pool: &SqlitePool, query: Query<'_>) -> Result<Option<NetworkView>, QueryError> {
    // One transaction, or the network and its outcomes could be of different moments.
    let mut snapshot = pool.begin().await?;
    let Some(row) = query.fetch_optional(&mut *snapshot).await? else { return Ok(None) };
    let mut view = view(&row)?;
    let waiting = if view.deleted_at.is_some() { "removals" } else { "awaited" };
    let reported = format!(
        "SELECT outcomes.*, nodes.name, reachable,
             EXISTS (SELECT 1 FROM {waiting} WHERE network_id = $1 AND node_id = nodes.id) AS awaited
         FROM outcomes JOIN nodes ON nodes.id = node_id WHERE network_id = $1 ORDER BY nodes.name"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(reported)).bind(view.id.to_string()).fetch_all(&mut *snapshot).await?;
    view.status.nodes = Some(rows.iter().map(node_status).collect::<Result<_, _>>()?);
    // A node that joined behind the deletion has nothing to remove.
    let expected = if view.deleted_at.is_some() { "awaited" } else { "TRUE" };
    let silent = format!(
        "SELECT nodes.id AS node_id, nodes.name, reachable,
             EXISTS (SELECT 1 FROM {waiting} WHERE network_id = $1 AND node_id = nodes.id) AS awaited
         FROM nodes WHERE NOT EXISTS (SELECT 1 FROM outcomes WHERE network_id = $1 AND node_id = nodes.id)
             AND {expected} ORDER BY nodes.name"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(silent)).bind(view.id.to_string()).fetch_all(&mut *snapshot).await?;
    view.status.unreported = Some(rows.iter().map(silent_node).collect::<Result<_, _>>()?);
    Ok(Some(view))
}

fn view(row: &SqliteRow) -> Result<NetworkView, QueryError> {
    let stored: NetworkCreatedV1 = serde_json::from_str(row.try_get("created")?)?;
    let NetworkCreated { network_id, name, spec } = stored.try_into()?;
    let deleted_at = row.try_get::<Option<i64>, _>("deleted_at")?;
    let life = Lifetime {
        created_at: Timestamp::from_unix_micros(row.try_get("created_at")?)?,
        deleted_at: deleted_at.map(Timestamp::from_unix_micros).transpose()?,
    };
    let status = NetworkStatus {
        nodes: None,
        unreported: None,
        ready: count(row, "ready")?,
        reported: count(row, "reported")?,
        expected: count(row, "expected")?,
        warnings: Vec::new(),
    };
    Ok(NetworkView::new(network_id, name, &spec, position(row, "generation")?, life).with_status(status))
}

fn node_status(row: &SqliteRow) -> Result<NodeStatus, QueryError> {
    let malformed = |error: serde_json::Error| QueryError::Malformed(error.into());
    let status: OutcomeStatus =
        serde_json::from_value(row.try_get::<String, _>("status")?.into()).map_err(malformed)?;
    Ok(NodeStatus {
        node_id: parsed(row, "node_id")?,
        node_name: parsed(row, "name")?,
        status,
        error: row.try_get("error")?,
        observed_generation: position(row, "generation")?,
        reconciled_at: Timestamp::from_unix_micros(row.try_get("reconciled_at")?)?,
        reachable: row.try_get("reachable")?,
        awaited: row.try_get("awaited")?,
    })
}

fn silent_node(row: &SqliteRow) -> Result<SilentNode, QueryError> {
    Ok(SilentNode {
        node_id: parsed(row, "node_id")?,
        node_name: parsed(row, "name")?,
        reachable: row.try_get("reachable")?,
        awaited: row.try_get("awaited")?,
    })
}

fn parsed<T>(row: &SqliteRow, column: &str) -> Result<T, QueryError>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    row.try_get::<String, _>(column)?.parse().map_err(|error: T::Err| QueryError::Malformed(error.into()))
}

fn position(row: &SqliteRow, column: &str) -> Result<Position, sqlx::Error> {
    Ok(Position::new(row.try_get::<i64, _>(column)?.cast_unsigned()))
}

fn count(row: &SqliteRow, column: &str) -> Result<u64, sqlx::Error> {
    Ok(row.try_get::<i64, _>(column)?.cast_unsigned())
}
