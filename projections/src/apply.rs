//! What an event changes in the read models: statements in the transaction that moves the checkpoint.

use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::cluster::ClusterEvent;
use otherix_schemas::event::{DomainEvent, Event};
use otherix_schemas::id::{NetworkId, NodeId};
use otherix_schemas::network::{NetworkCreated, NetworkDeleted, NetworkEvent};
use otherix_schemas::nic::NicEvent;
use otherix_schemas::node::{
    MeshPeer, NodeChanged, NodeEvent, NodeJoined, NodeReachable, NodeReconciled, NodeRemoved, NodeUnreachable,
};
use otherix_schemas::outcome::{OutcomeStatus, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::vm::VmEvent;
use sqlx::sqlite::SqliteConnection;

mod vm;

/// Why an event cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The database.
    #[error("the read models' database failed")]
    Database(#[from] sqlx::Error),
    /// The event's data has no JSON form.
    #[error("the event has no JSON form")]
    Json(#[from] serde_json::Error),
}

/// A position as SQLite holds it.
pub(crate) fn integer(position: Position) -> i64 {
    position.get().cast_signed()
}

/// Takes an event in.
pub(crate) async fn apply(db: &mut SqliteConnection, envelope: &EventEnvelope) -> Result<(), ApplyError> {
    let header = &envelope.header;
    match &envelope.event {
        Event::Network(NetworkEvent::Created(event)) => network_created(db, header, event).await,
        Event::Network(NetworkEvent::Deleted(event)) => network_deleted(db, header, event).await,
        Event::Vm(VmEvent::Created(event)) => vm::created(db, header, event).await,
        Event::Vm(VmEvent::Deleted(event)) => vm::deleted(db, header, event).await,
        Event::Nic(NicEvent::Attached(event)) => vm::nic_attached(db, header, event).await,
        Event::Nic(NicEvent::Bound(event)) => vm::nic_bound(db, header, event).await,
        Event::Nic(NicEvent::Detached(event)) => vm::nic_detached(db, header, event).await,
        Event::Node(NodeEvent::Joined(event)) => node_joined(db, header, event).await,
        Event::Node(NodeEvent::Changed(event)) => node_changed(db, event).await,
        Event::Node(NodeEvent::Unreachable(NodeUnreachable { node_id, last_heard_at: _ })) => {
            node_presence(db, header, *node_id, false).await
        }
        Event::Node(NodeEvent::Reachable(NodeReachable { node_id })) => node_presence(db, header, *node_id, true).await,
        Event::Node(NodeEvent::Removed(event)) => node_removed(db, event).await,
        Event::Node(NodeEvent::Reconciled(event)) => node_reconciled(db, header, event).await,
        // What the earlier epoch had behind it is not in the stream any more.
        Event::Cluster(ClusterEvent::Restored(_)) => Ok(()),
    }
}

async fn network_created(db: &mut SqliteConnection, header: &Header, event: &NetworkCreated) -> Result<(), ApplyError> {
    let created = serde_json::to_string(&event.to_stored())?;
    sqlx::query(
        "INSERT INTO networks (id, created_position, name_key, type, created, generation, created_at)
         VALUES ($1, $2, $3, $4, $5, $2, $6)",
    )
    .bind(event.network_id.to_string())
    .bind(integer(header.position))
    .bind(event.name.key())
    .bind(event.spec.kind().as_str())
    .bind(created)
    .bind(header.time.unix_micros())
    .execute(&mut *db)
    .await?;
    sqlx::query("INSERT INTO awaited (network_id, node_id) SELECT $1, id FROM nodes WHERE reachable")
        .bind(event.network_id.to_string())
        .execute(db)
        .await?;
    Ok(())
}

async fn network_deleted(db: &mut SqliteConnection, header: &Header, event: &NetworkDeleted) -> Result<(), ApplyError> {
    let id = event.network_id.to_string();
    sqlx::query("UPDATE networks SET deleted_at = $2, generation = $3 WHERE id = $1")
        .bind(&id)
        .bind(header.time.unix_micros())
        .bind(integer(header.position))
        .execute(&mut *db)
        .await?;
    sqlx::query("DELETE FROM awaited WHERE network_id = $1").bind(&id).execute(&mut *db).await?;
    sqlx::query("INSERT INTO removals (network_id, node_id) SELECT $1, id FROM nodes")
        .bind(&id)
        .execute(&mut *db)
        .await?;
    forget_if_removed(db, &id).await
}

async fn node_joined(db: &mut SqliteConnection, header: &Header, event: &NodeJoined) -> Result<(), ApplyError> {
    sqlx::query(
        "INSERT INTO nodes (id, name, joined_position, joined_at, reachable_position, reachable_since)
         VALUES ($1, $2, $3, $4, $3, $4)",
    )
    .bind(event.node_id.to_string())
    .bind(event.name.as_str())
    .bind(integer(header.position))
    .bind(header.time.unix_micros())
    .execute(db)
    .await?;
    Ok(())
}

async fn node_changed(db: &mut SqliteConnection, event: &NodeChanged) -> Result<(), ApplyError> {
    let NodeChanged { node_id, mesh: MeshPeer { address, public_key, endpoint } } = event;
    sqlx::query("UPDATE nodes SET mesh_address = $2, mesh_public_key = $3, mesh_endpoint = $4 WHERE id = $1")
        .bind(node_id.to_string())
        .bind(address.to_string())
        .bind(public_key.to_string())
        .bind(endpoint.to_string())
        .execute(db)
        .await?;
    Ok(())
}

async fn node_presence(
    db: &mut SqliteConnection,
    header: &Header,
    node_id: NodeId,
    reachable: bool,
) -> Result<(), ApplyError> {
    sqlx::query("UPDATE nodes SET reachable = $2, reachable_position = $3, reachable_since = $4 WHERE id = $1")
        .bind(node_id.to_string())
        .bind(reachable)
        .bind(integer(header.position))
        .bind(header.time.unix_micros())
        .execute(db)
        .await?;
    Ok(())
}

/// Of a node that was removed nothing is shown any more, and what only waited for it is gone.
async fn node_removed(db: &mut SqliteConnection, event: &NodeRemoved) -> Result<(), ApplyError> {
    let node = event.node_id.to_string();
    for statement in [
        "DELETE FROM outcomes WHERE node_id = $1",
        "DELETE FROM awaited WHERE node_id = $1",
        "DELETE FROM removals WHERE node_id = $1",
    ] {
        sqlx::query(statement).bind(&node).execute(&mut *db).await?;
    }
    sqlx::query(
        "DELETE FROM networks WHERE deleted_at IS NOT NULL
         AND NOT EXISTS (SELECT 1 FROM removals WHERE network_id = networks.id)",
    )
    .execute(&mut *db)
    .await?;
    vm::node_removed(db, &node).await?;
    sqlx::query("DELETE FROM nodes WHERE id = $1").bind(&node).execute(db).await?;
    Ok(())
}

async fn node_reconciled(db: &mut SqliteConnection, header: &Header, event: &NodeReconciled) -> Result<(), ApplyError> {
    for result in &event.results {
        match result.resource {
            ResourceRef::Network(id) => network_reconciled(db, header, (id, event.node_id), result).await?,
            ResourceRef::Nic(id) => vm::nic_reconciled(db, header, (id, event.node_id), result).await?,
        }
    }
    Ok(())
}

async fn network_reconciled(
    db: &mut SqliteConnection,
    header: &Header,
    (network_id, node_id): (NetworkId, NodeId),
    result: &ResourceOutcome,
) -> Result<(), ApplyError> {
    let ResourceOutcome { resource: _, generation, outcome, warnings } = result;
    let (network, node) = (network_id.to_string(), node_id.to_string());
    sqlx::query(
        "INSERT INTO outcomes (network_id, node_id, status, error, generation, reconciled_at, warnings)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (network_id, node_id) DO UPDATE SET status = excluded.status, error = excluded.error,
             generation = excluded.generation, reconciled_at = excluded.reconciled_at, warnings = excluded.warnings",
    )
    .bind(&network)
    .bind(&node)
    .bind(outcome.status().as_str())
    .bind(outcome.error())
    .bind(integer(*generation))
    .bind(header.time.unix_micros())
    .bind(serde_json::to_string(warnings)?)
    .execute(&mut *db)
    .await?;
    if outcome.status() == OutcomeStatus::Removed {
        sqlx::query("DELETE FROM removals WHERE network_id = $1 AND node_id = $2")
            .bind(&network)
            .bind(&node)
            .execute(&mut *db)
            .await?;
        forget_if_removed(db, &network).await?;
    }
    Ok(())
}

/// A deleted network stays readable until every node has confirmed its removal.
async fn forget_if_removed(db: &mut SqliteConnection, network: &str) -> Result<(), ApplyError> {
    sqlx::query(
        "DELETE FROM networks WHERE id = $1 AND deleted_at IS NOT NULL
         AND NOT EXISTS (SELECT 1 FROM removals WHERE network_id = $1)",
    )
    .bind(network)
    .execute(db)
    .await?;
    Ok(())
}
