//! Questions about nodes.

use std::collections::BTreeMap;

use otherix_schemas::id::NodeId;
use otherix_schemas::node::{MeshPeerView, NetworkCounts, NodeMesh, NodeNetworkStatus, NodeView};
use otherix_schemas::value::NodeName;
use sqlx::Row;
use sqlx::sqlite::{SqlitePool, SqliteRow};

use super::{Listed, Page, Query, QueryError, count, named, parsed, position, time, warnings};
use crate::apply::integer;

/// A node with what is on it.
const SELECT: &str = "
    SELECT nodes.*,
        (SELECT COUNT(*) FROM vms WHERE node_id = nodes.id AND deleted_at IS NULL) AS vms,
        (SELECT COUNT(*) FROM nics WHERE node_id = nodes.id AND NOT detached) AS nics,
        (SELECT COUNT(*) FROM networks WHERE deleted_at IS NULL) AS networks
    FROM nodes";

/// How many networks are ready on each node, and how many have failed.
const COUNTS: &str = "
    SELECT node_id, COUNT(*) FILTER (WHERE status = 'ready') AS ready, COUNT(*) FILTER (WHERE status = 'failed') AS failed
    FROM outcomes JOIN networks ON networks.id = network_id
    WHERE deleted_at IS NULL AND outcomes.generation = networks.generation";

/// The nodes of the mesh but one.
const PEERS: &str = "
    SELECT id, name, mesh_address, mesh_endpoint FROM nodes WHERE mesh_address IS NOT NULL AND id <> $1
    ORDER BY name COLLATE NOCASE";

/// A node, with how each network fares on it, and its peers in the mesh without what it says of them.
///
/// # Errors
/// When the read models cannot be read.
pub async fn node_by_id(pool: &SqlitePool, id: NodeId) -> Result<Option<NodeView>, QueryError> {
    let query = format!("{SELECT} WHERE id = $1");
    one(pool, sqlx::query(sqlx::AssertSqlSafe(query)).bind(id.to_string())).await
}

/// The node that has this name, whatever the case, like [`node_by_id`].
///
/// # Errors
/// When the read models cannot be read.
pub async fn node_by_name(pool: &SqlitePool, name: &NodeName) -> Result<Option<NodeView>, QueryError> {
    let query = format!("{SELECT} WHERE name = $1 COLLATE NOCASE");
    one(pool, sqlx::query(sqlx::AssertSqlSafe(query)).bind(name.to_string())).await
}

/// A page of the nodes, in the order of their joining.
///
/// # Errors
/// When the read models cannot be read.
pub async fn nodes(pool: &SqlitePool, page: Page) -> Result<Listed<NodeView>, QueryError> {
    let query = format!("{SELECT} WHERE joined_position > $1 ORDER BY joined_position LIMIT $2");
    let counts = format!("{COUNTS} GROUP BY node_id");
    // One transaction, or the counts could be of another moment.
    let mut snapshot = pool.begin().await?;
    let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(integer(page.after)).bind(page.rows());
    let rows = query.fetch_all(&mut *snapshot).await?;
    let mut counted = BTreeMap::new();
    for row in sqlx::query(sqlx::AssertSqlSafe(counts)).fetch_all(&mut *snapshot).await? {
        counted.insert(parsed::<NodeId>(&row, "node_id")?, settled(&row)?);
    }
    page.of(&rows, "joined_position", |row| {
        let settled = counted.get(&parsed(row, "id")?).copied().unwrap_or_default();
        view(row, settled, None)
    })
}

async fn one(pool: &SqlitePool, query: Query<'_>) -> Result<Option<NodeView>, QueryError> {
    let mut snapshot = pool.begin().await?;
    let Some(row) = query.fetch_optional(&mut *snapshot).await? else { return Ok(None) };
    let id: String = row.try_get("id")?;
    let counts = format!("{COUNTS} AND node_id = $1 GROUP BY node_id");
    let counts = sqlx::query(sqlx::AssertSqlSafe(counts)).bind(&id).fetch_optional(&mut *snapshot).await?;
    let settled = counts.as_ref().map(settled).transpose()?.unwrap_or_default();
    let networks = sqlx::query(
        "SELECT outcomes.*, json_extract(created, '$.name') AS name FROM outcomes JOIN networks ON networks.id = network_id
         WHERE node_id = $1 ORDER BY name_key, created_position",
    );
    let networks = networks.bind(&id).fetch_all(&mut *snapshot).await?;
    let networks = networks.iter().map(on_node).collect::<Result<_, _>>()?;
    let mut view = view(&row, settled, Some(networks))?;
    if let Some(mesh) = &mut view.mesh {
        let peers = sqlx::query(PEERS).bind(&id).fetch_all(&mut *snapshot).await?;
        mesh.peers = Some(peers.iter().map(peer).collect::<Result<_, _>>()?);
    }
    Ok(Some(view))
}

/// How many networks are ready, and how many have failed.
type Settled = (u64, u64);

fn settled(row: &SqliteRow) -> Result<Settled, QueryError> {
    Ok((count(row, "ready")?, count(row, "failed")?))
}

fn view(
    row: &SqliteRow,
    (ready, failed): Settled,
    networks: Option<Vec<NodeNetworkStatus>>,
) -> Result<NodeView, QueryError> {
    let pending = count(row, "networks")?.saturating_sub(ready).saturating_sub(failed);
    Ok(NodeView {
        id: parsed(row, "id")?,
        name: parsed(row, "name")?,
        reachable: row.try_get("reachable")?,
        reachable_since: time(row, "reachable_since")?,
        joined_at: time(row, "joined_at")?,
        vms: count(row, "vms")?,
        nics: count(row, "nics")?,
        network_counts: NetworkCounts { ready, pending, failed },
        networks,
        mesh: mesh(row)?,
    })
}

/// A peer that nothing is known of yet.
fn peer(row: &SqliteRow) -> Result<MeshPeerView, QueryError> {
    Ok(MeshPeerView {
        node_id: parsed(row, "id")?,
        node_name: parsed(row, "name")?,
        address: parsed(row, "mesh_address")?,
        endpoint: parsed(row, "mesh_endpoint")?,
        established: false,
        last_handshake_at: None,
        rx_bytes: 0,
        tx_bytes: 0,
    })
}

/// A node's place in the mesh, without its peers.
fn mesh(row: &SqliteRow) -> Result<Option<NodeMesh>, QueryError> {
    if row.try_get::<Option<String>, _>("mesh_address")?.is_none() {
        return Ok(None);
    }
    Ok(Some(NodeMesh {
        address: parsed(row, "mesh_address")?,
        public_key: parsed(row, "mesh_public_key")?,
        endpoint: parsed(row, "mesh_endpoint")?,
        peers: None,
    }))
}

fn on_node(row: &SqliteRow) -> Result<NodeNetworkStatus, QueryError> {
    Ok(NodeNetworkStatus {
        network_id: parsed(row, "network_id")?,
        network_name: parsed(row, "name")?,
        status: named(row.try_get("status")?)?,
        error: row.try_get("error")?,
        warnings: warnings(row)?,
        observed_generation: position(row, "generation")?,
        reconciled_at: time(row, "reconciled_at")?,
    })
}
