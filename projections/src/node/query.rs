//! Queries about nodes. They read the read models of networks and VMs as well, for what is on a node. Each must run in
//! one read transaction in which all three are at the same position.

use std::collections::BTreeMap;

use otherix_schemas::id::NodeId;
use otherix_schemas::node::{
    MeshPeerView, NetworkCounts, NodeCapacity, NodeConditionKind, NodeConditionView, NodeMesh, NodeNetworkStatus,
    NodeView, Resources,
};
use otherix_schemas::value::NodeName;
use rusqlite::{Connection, Params, Row, params};

use crate::projection::integer;
use crate::query::{
    Listed, Page, QueryError, all, count, first, optional_json, optional_parsed, parsed, position, text, texts, time,
    unquoted,
};

/// A node with counts of what is on it.
const SELECT: &str = "
    SELECT nodes.*,
        (SELECT COUNT(*) FROM vms WHERE node_id = nodes.id AND deleted_at IS NULL) AS vms,
        (SELECT COUNT(*) FROM nics WHERE node_id = nodes.id AND NOT detached) AS nics,
        (SELECT COALESCE(SUM(vcpus), 0) FROM machines WHERE node_id = nodes.id)
            + (SELECT COALESCE(SUM(vcpus), 0) FROM moves WHERE node_id = nodes.id) AS vcpus,
        (SELECT COALESCE(SUM(memory_mb), 0) FROM machines WHERE node_id = nodes.id)
            + (SELECT COALESCE(SUM(memory_mb), 0) FROM moves WHERE node_id = nodes.id) AS memory_mb,
        (SELECT COALESCE(SUM(disk_gib), 0) FROM machines WHERE node_id = nodes.id)
            + (SELECT COALESCE(SUM(disk_gib), 0) FROM moves WHERE node_id = nodes.id) AS disk_gib,
        COALESCE((SELECT ready FROM network_counts WHERE node_id = nodes.id), 0) AS ready,
        COALESCE((SELECT failed FROM network_counts WHERE node_id = nodes.id), 0) AS failed,
        COALESCE((SELECT networks FROM network_total WHERE id = 1), 0) AS networks
    FROM nodes";

/// The networks that a node has reported on.
const NETWORKS: &str = "
    SELECT outcomes.*, json_extract(created, '$.name') AS name FROM outcomes JOIN networks ON networks.id = network_id
    WHERE node_id = ?1 ORDER BY name_key, created_position";

/// The nodes of the mesh except one.
const PEERS: &str = "
    SELECT id, name, mesh_address, mesh_endpoint FROM nodes WHERE mesh_address IS NOT NULL AND id <> ?1
    ORDER BY name COLLATE NOCASE";

/// What is wrong with nodes.
const CONDITIONS: &str = "SELECT node_id, kind, since, detail FROM node_conditions";

/// The node with the statuses of the networks on it, and its peers in the mesh without their reported state.
///
/// # Errors
/// When the database fails or holds a malformed value.
pub fn by_id(db: &Connection, id: NodeId) -> Result<Option<NodeView>, QueryError> {
    one(db, "id = ?1", [id.to_string()])
}

/// Like [`by_id`], for the node of this name, which is compared without case.
///
/// # Errors
/// When the database fails or holds a malformed value.
pub fn by_name(db: &Connection, name: &NodeName) -> Result<Option<NodeView>, QueryError> {
    one(db, "name = ?1 COLLATE NOCASE", [name.to_string()])
}

/// A page of the nodes, in the order in which they joined.
///
/// # Errors
/// When the database fails or holds a malformed value.
pub fn list(db: &Connection, page: Page) -> Result<Listed<NodeView>, QueryError> {
    let mut conditions: BTreeMap<NodeId, Vec<NodeConditionView>> = BTreeMap::new();
    for (node, condition) in all(db, &format!("{CONDITIONS} ORDER BY kind"), [], read_condition)? {
        conditions.entry(node).or_default().push(condition);
    }
    let query = format!("{SELECT} WHERE joined_position > ?1 ORDER BY joined_position LIMIT +?2");
    let rows = all(db, &query, params![integer(page.after), page.rows()], |row| {
        let conditions = conditions.get(&parsed(row, "id")?).cloned().unwrap_or_default();
        Ok((position(row, "joined_position")?, with_conditions(view(row)?, conditions)))
    })?;
    Ok(page.of(rows))
}

fn one(db: &Connection, condition: &str, parameters: impl Params) -> Result<Option<NodeView>, QueryError> {
    let query = format!("{SELECT} WHERE {condition}");
    let Some(mut view) = first(db, &query, parameters, view)? else { return Ok(None) };
    let id = view.id.to_string();
    let conditions = all(db, &format!("{CONDITIONS} WHERE node_id = ?1 ORDER BY kind"), [&id], read_condition)?;
    view = with_conditions(view, conditions.into_iter().map(|(_, condition)| condition).collect());
    view.networks = Some(all(db, NETWORKS, [&id], network)?);
    if let Some(mesh) = &mut view.mesh {
        mesh.peers = Some(all(db, PEERS, [&id], peer)?);
    }
    Ok(Some(view))
}

/// How many networks are ready on a node, and how many have failed; those that are neither are pending.
fn network_counts(row: &Row<'_>) -> Result<NetworkCounts, QueryError> {
    let (ready, failed) = (count(row, "ready")?, count(row, "failed")?);
    let pending = count(row, "networks")?.saturating_sub(ready).saturating_sub(failed);
    Ok(NetworkCounts { ready, pending, failed })
}

fn view(row: &Row<'_>) -> Result<NodeView, QueryError> {
    let capacity = optional_json::<NodeCapacity>(row, "capacity")?;
    let allocated = Resources {
        vcpus: count(row, "vcpus")?,
        memory_mb: count(row, "memory_mb")?,
        disk_gib: count(row, "disk_gib")?,
    };
    Ok(NodeView {
        id: parsed(row, "id")?,
        name: parsed(row, "name")?,
        reachable: row.get("reachable")?,
        reachable_since: time(row, "reachable_since")?,
        joined_at: time(row, "joined_at")?,
        arch: optional_parsed(row, "arch")?,
        description: optional_parsed(row, "description")?,
        labels: serde_json::from_str(text(row, "labels")?)?,
        cordoned: row.get("cordoned")?,
        allocated: capacity.as_ref().map(|_| allocated),
        capacity,
        vms: count(row, "vms")?,
        nics: count(row, "nics")?,
        network_counts: network_counts(row)?,
        networks: None,
        mesh: mesh(row)?,
        conditions: Vec::new(),
        warnings: Vec::new(),
    })
}

fn read_condition(row: &Row<'_>) -> Result<(NodeId, NodeConditionView), QueryError> {
    let kind: NodeConditionKind = unquoted(row, "kind")?;
    let (since, detail, hint) = (time(row, "since")?, row.get("detail")?, kind.hint().to_owned());
    Ok((parsed(row, "node_id")?, NodeConditionView { kind, since, detail, hint }))
}

fn with_conditions(view: NodeView, conditions: Vec<NodeConditionView>) -> NodeView {
    let warning = |condition: &NodeConditionView| {
        let NodeConditionView { kind: _, since, detail, hint } = condition;
        format!("{detail} (since {since}): {hint}")
    };
    NodeView { warnings: conditions.iter().map(warning).collect(), conditions, ..view }
}

/// A peer before its reported state is filled in.
fn peer(row: &Row<'_>) -> Result<MeshPeerView, QueryError> {
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

/// A node's membership in the mesh, without its peers.
fn mesh(row: &Row<'_>) -> Result<Option<NodeMesh>, QueryError> {
    if row.get::<_, Option<String>>("mesh_address")?.is_none() {
        return Ok(None);
    }
    Ok(Some(NodeMesh {
        address: parsed(row, "mesh_address")?,
        public_key: parsed(row, "mesh_public_key")?,
        endpoint: parsed(row, "mesh_endpoint")?,
        peers: None,
    }))
}

fn network(row: &Row<'_>) -> Result<NodeNetworkStatus, QueryError> {
    Ok(NodeNetworkStatus {
        network_id: parsed(row, "network_id")?,
        network_name: parsed(row, "name")?,
        status: unquoted(row, "status")?,
        error: row.get("error")?,
        warnings: texts(row, "warnings")?,
        observed_generation: position(row, "generation")?,
        reconciled_at: time(row, "reconciled_at")?,
    })
}
