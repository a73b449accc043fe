//! Questions about networks.

use otherix_schemas::event::StoredShape;
use otherix_schemas::id::NetworkId;
use otherix_schemas::network::{
    Lifetime, NetworkCreated, NetworkCreatedV1, NetworkKind, NetworkNodeStatus, NetworkStatus, NetworkView,
    UnreportedNode,
};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::NetworkName;
use sqlx::Row;
use sqlx::sqlite::{SqlitePool, SqliteRow};

use super::{Listed, Page, Query, QueryError, count, named, parsed, position, time};
use crate::apply::integer;

/// A part of the list of networks.
#[derive(Clone, Copy, Debug)]
pub struct NetworkPage {
    /// Only this kind.
    pub kind: Option<NetworkKind>,
    /// Which part.
    pub page: Page,
}

/// A network with the nodes' outcomes; a deleted one as long as a node has not confirmed its removal.
///
/// # Errors
/// When the read models cannot be read.
pub async fn network_by_id(pool: &SqlitePool, id: NetworkId) -> Result<Option<NetworkView>, QueryError> {
    let query = format!("{SELECT} WHERE networks.id = $1");
    one(pool, sqlx::query(sqlx::AssertSqlSafe(query)).bind(id.to_string())).await
}

/// The network that has this name, whatever the case.
///
/// # Errors
/// When the read models cannot be read.
pub async fn network_by_name(pool: &SqlitePool, name: &NetworkName) -> Result<Option<NetworkView>, QueryError> {
    let query = format!("{SELECT} WHERE name_key = $1 AND deleted_at IS NULL");
    one(pool, sqlx::query(sqlx::AssertSqlSafe(query)).bind(name.key())).await
}

/// A page of the networks that are not deleted, without the nodes' outcomes.
///
/// # Errors
/// When the read models cannot be read.
pub async fn networks(pool: &SqlitePool, part: NetworkPage) -> Result<Listed<NetworkView>, QueryError> {
    let NetworkPage { kind, page } = part;
    let query = format!(
        "{SELECT} WHERE deleted_at IS NULL AND created_position > $1 AND ($2 IS NULL OR type = $2)
         ORDER BY created_position LIMIT $3"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(integer(page.after))
        .bind(kind.map(NetworkKind::as_str))
        .bind(page.rows())
        .fetch_all(pool)
        .await?;
    page.of(&rows, "created_position", view)
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
            AND outcomes.generation = networks.generation) AS ready,
        (SELECT json_group_array(json_array(name, warnings)) FROM (
            SELECT nodes.name, warnings FROM outcomes JOIN nodes ON nodes.id = node_id
            WHERE network_id = networks.id AND warnings <> '[]' ORDER BY nodes.name)) AS node_warnings
    FROM networks";

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
    let NetworkCreated { network_id, name, spec } = stored.upcast()?;
    let deleted_at = row.try_get::<Option<i64>, _>("deleted_at")?;
    let life = Lifetime {
        created_at: time(row, "created_at")?,
        deleted_at: deleted_at.map(Timestamp::from_unix_micros).transpose()?,
    };
    let status = NetworkStatus {
        nodes: None,
        unreported: None,
        ready: count(row, "ready")?,
        reported: count(row, "reported")?,
        expected: count(row, "expected")?,
        warnings: node_warnings(row.try_get("node_warnings")?)?,
    };
    Ok(NetworkView::new(network_id, name, &spec, position(row, "generation")?, life).with_status(status))
}

/// The nodes' warnings as texts that name the node, from pairs of its name and a JSON array.
fn node_warnings(pairs: &str) -> Result<Vec<String>, QueryError> {
    let mut texts = Vec::new();
    for (node, warnings) in serde_json::from_str::<Vec<(String, String)>>(pairs)? {
        let warnings: Vec<String> = serde_json::from_str(&warnings)?;
        texts.extend(warnings.into_iter().map(|warning| format!("on {node}: {warning}")));
    }
    Ok(texts)
}

fn node_status(row: &SqliteRow) -> Result<NetworkNodeStatus, QueryError> {
    Ok(NetworkNodeStatus {
        node_id: parsed(row, "node_id")?,
        node_name: parsed(row, "name")?,
        status: named(row.try_get("status")?)?,
        error: row.try_get("error")?,
        observed_generation: position(row, "generation")?,
        reconciled_at: time(row, "reconciled_at")?,
        reachable: row.try_get("reachable")?,
        awaited: row.try_get("awaited")?,
    })
}

fn silent_node(row: &SqliteRow) -> Result<UnreportedNode, QueryError> {
    Ok(UnreportedNode {
        node_id: parsed(row, "node_id")?,
        node_name: parsed(row, "name")?,
        reachable: row.try_get("reachable")?,
        awaited: row.try_get("awaited")?,
    })
}
