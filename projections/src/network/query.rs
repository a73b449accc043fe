//! Queries about networks. Each must run in one read transaction, or a network and its nodes' statuses could be of
//! different positions.

use otherix_schemas::event::StoredShape;
use otherix_schemas::id::NetworkId;
use otherix_schemas::network::{
    Lifetime, NetworkChanged, NetworkChangedV1, NetworkKind, NetworkNodeStatus, NetworkStatus, NetworkView,
    UnreportedNode,
};
use otherix_schemas::value::NetworkName;
use rusqlite::{Connection, Params, Row, params};

use crate::projection::integer;
use crate::query::{
    BY_NAME, Listed, Page, QueryError, all, count, first, optional_time, parsed, position, text, time, unquoted,
};

/// Which part of the list of networks is requested.
#[derive(Clone, Copy, Debug)]
pub struct NetworkPage {
    /// Only networks of this type.
    pub kind: Option<NetworkKind>,
    pub page: Page,
}

/// The network with the nodes' statuses. A deleted one is found until every node has confirmed its removal.
///
/// # Errors
/// When the database fails or holds a malformed value.
pub fn by_id(db: &Connection, id: NetworkId) -> Result<Option<NetworkView>, QueryError> {
    one(db, "networks.id = ?1", [id.to_string()])
}

/// The network of this name ([`NetworkName::key`]), with the nodes' statuses. A deleted one is found until every node
/// has confirmed its removal, or until another network has the name.
///
/// # Errors
/// When the database fails or holds a malformed value.
pub fn by_name(db: &Connection, name: &NetworkName) -> Result<Option<NetworkView>, QueryError> {
    let condition = format!("name_key = ?1 ORDER BY {BY_NAME}");
    one(db, &condition, [&name.key(), name.as_str()])
}

/// A page of the networks, without the nodes' statuses. A deleted one is listed until every node has confirmed its
/// removal.
///
/// # Errors
/// When the database fails or holds a malformed value.
pub fn list(db: &Connection, part: NetworkPage) -> Result<Listed<NetworkView>, QueryError> {
    let NetworkPage { kind, page } = part;
    let query = format!(
        "{SELECT} WHERE created_position > ?1 AND (?2 IS NULL OR type = ?2)
         ORDER BY created_position LIMIT +?3"
    );
    let values = params![integer(page.after), kind.map(NetworkKind::as_str), page.rows()];
    let rows = all(db, &query, values, |row| Ok((position(row, "created_position")?, view(row)?)))?;
    Ok(page.of(rows))
}

/// A network with counts of its statuses. The expected nodes of a deleted one are those that had to remove it when it
/// was deleted.
const SELECT: &str = "
    SELECT networks.*,
        CASE WHEN deleted_at IS NULL THEN (SELECT COUNT(*) FROM network_nodes)
            ELSE (SELECT COUNT(*) FROM removals WHERE network_id = networks.id)
                + (SELECT COUNT(*) FROM outcomes WHERE network_id = networks.id AND status = 'removed'
                    AND outcomes.generation = networks.generation)
            END AS expected,
        (SELECT COUNT(*) FROM outcomes WHERE network_id = networks.id) AS reported,
        (SELECT COUNT(*) FROM outcomes WHERE network_id = networks.id AND status = 'ready'
            AND outcomes.generation = networks.generation) AS ready,
        (SELECT json_group_array(json_array(name, warnings)) FROM (
            SELECT name, warnings FROM outcomes JOIN network_nodes ON network_nodes.id = node_id
            WHERE network_id = networks.id AND warnings <> '[]' ORDER BY name)) AS node_warnings
    FROM networks";

/// The network as [`list`] has it.
///
/// # Errors
/// When the database fails or holds a malformed value.
pub fn listed(db: &Connection, id: NetworkId) -> Result<Option<NetworkView>, QueryError> {
    first(db, &format!("{SELECT} WHERE networks.id = ?1"), [id.to_string()], view)
}

fn one(db: &Connection, condition: &str, parameters: impl Params) -> Result<Option<NetworkView>, QueryError> {
    let Some(mut view) = first(db, &format!("{SELECT} WHERE {condition}"), parameters, view)? else { return Ok(None) };
    let waiting = if view.deleted_at.is_some() { "removals" } else { "awaited" };
    let reported = format!(
        "SELECT outcomes.*, name, reachable,
             EXISTS (SELECT 1 FROM {waiting} WHERE network_id = ?1 AND node_id = id) AS awaited
         FROM outcomes JOIN network_nodes ON id = node_id WHERE network_id = ?1 ORDER BY name"
    );
    view.status.nodes = Some(all(db, &reported, [view.id.to_string()], node_status)?);
    // A node that joined after the deletion has nothing to remove.
    let expected = if view.deleted_at.is_some() { "awaited" } else { "TRUE" };
    let unreported = format!(
        "SELECT id AS node_id, name, reachable,
             EXISTS (SELECT 1 FROM {waiting} WHERE network_id = ?1 AND node_id = id) AS awaited
         FROM network_nodes WHERE NOT EXISTS (SELECT 1 FROM outcomes WHERE network_id = ?1 AND node_id = id)
             AND {expected} ORDER BY name"
    );
    view.status.unreported = Some(all(db, &unreported, [view.id.to_string()], unreported_node)?);
    Ok(Some(view))
}

fn view(row: &Row<'_>) -> Result<NetworkView, QueryError> {
    let stored: NetworkChangedV1 = serde_json::from_str(text(row, "created")?)?;
    let NetworkChanged { network_id, name, spec, metadata } = stored.upcast()?;
    let lifetime = Lifetime { created_at: time(row, "created_at")?, deleted_at: optional_time(row, "deleted_at")? };
    let status = NetworkStatus {
        nodes: None,
        unreported: None,
        ready: count(row, "ready")?,
        reported: count(row, "reported")?,
        expected: count(row, "expected")?,
        warnings: node_warnings(text(row, "node_warnings")?)?,
    };
    let view = NetworkView::new(network_id, name, &spec, position(row, "generation")?, lifetime);
    Ok(view.with_metadata(metadata).with_updated_at(time(row, "updated_at")?).with_status(status))
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

fn node_status(row: &Row<'_>) -> Result<NetworkNodeStatus, QueryError> {
    Ok(NetworkNodeStatus {
        node_id: parsed(row, "node_id")?,
        node_name: parsed(row, "name")?,
        status: unquoted(row, "status")?,
        error: row.get("error")?,
        observed_generation: position(row, "generation")?,
        reconciled_at: time(row, "reconciled_at")?,
        reachable: row.get("reachable")?,
        awaited: row.get("awaited")?,
    })
}

fn unreported_node(row: &Row<'_>) -> Result<UnreportedNode, QueryError> {
    Ok(UnreportedNode {
        node_id: parsed(row, "node_id")?,
        node_name: parsed(row, "name")?,
        reachable: row.get("reachable")?,
        awaited: row.get("awaited")?,
    })
}
