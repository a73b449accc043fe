//! What the events of VMs and NICs change.

use otherix_schemas::cloudevent::Header;
use otherix_schemas::event::DomainEvent;
use otherix_schemas::id::{NicId, NodeId};
use otherix_schemas::nic::{NicAttached, NicBound, NicDetached};
use otherix_schemas::outcome::{OutcomeStatus, ResourceOutcome};
use otherix_schemas::vm::{VmCreated, VmDeleted};
use sqlx::sqlite::SqliteConnection;

use super::{ApplyError, integer};

pub(super) async fn created(db: &mut SqliteConnection, header: &Header, event: &VmCreated) -> Result<(), ApplyError> {
    let created = serde_json::to_string(&event.to_stored())?;
    sqlx::query(
        "INSERT INTO vms (id, created_position, name_key, created, node_id, generation, created_at)
         VALUES ($1, $2, $3, $4, $5, $2, $6)",
    )
    .bind(event.vm_id.to_string())
    .bind(integer(header.position))
    .bind(event.name.key())
    .bind(created)
    .bind(event.node_id.to_string())
    .bind(header.time.unix_micros())
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn deleted(db: &mut SqliteConnection, header: &Header, event: &VmDeleted) -> Result<(), ApplyError> {
    let id = event.vm_id.to_string();
    sqlx::query("UPDATE vms SET deleted_at = $2, generation = $3 WHERE id = $1")
        .bind(&id)
        .bind(header.time.unix_micros())
        .bind(integer(header.position))
        .execute(&mut *db)
        .await?;
    forget_if_removed(db, &id).await
}

pub(super) async fn nic_attached(
    db: &mut SqliteConnection,
    header: &Header,
    event: &NicAttached,
) -> Result<(), ApplyError> {
    let NicAttached { nic_id, vm_id, network_id, mac } = event;
    sqlx::query(
        "INSERT INTO nics (id, vm_id, network_id, network_name, bridge_name, mac, generation)
         SELECT $1, $2, id, json_extract(created, '$.name'), json_extract(created, '$.bridge_name'), $4, $5
         FROM networks WHERE id = $3",
    )
    .bind(nic_id.to_string())
    .bind(vm_id.to_string())
    .bind(network_id.to_string())
    .bind(mac.to_string())
    .bind(integer(header.position))
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn nic_bound(db: &mut SqliteConnection, header: &Header, event: &NicBound) -> Result<(), ApplyError> {
    sqlx::query(
        "UPDATE nics SET node_id = $2, generation = $3,
             status = NULL, error = NULL, warnings = '[]', observed_generation = NULL, reconciled_at = NULL
         WHERE id = $1",
    )
    .bind(event.nic_id.to_string())
    .bind(event.node_id.to_string())
    .bind(integer(header.position))
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn nic_detached(
    db: &mut SqliteConnection,
    header: &Header,
    event: &NicDetached,
) -> Result<(), ApplyError> {
    let id = event.nic_id.to_string();
    sqlx::query("UPDATE nics SET detached = 1, generation = $2 WHERE id = $1")
        .bind(&id)
        .bind(integer(header.position))
        .execute(&mut *db)
        .await?;
    // No node has a tap of it.
    sqlx::query("DELETE FROM nics WHERE id = $1 AND node_id IS NULL").bind(&id).execute(&mut *db).await?;
    forget_if_removed(db, &event.vm_id.to_string()).await
}

/// Takes in what a node says of a NIC, if it is on that node.
pub(super) async fn nic_reconciled(
    db: &mut SqliteConnection,
    header: &Header,
    (nic_id, node_id): (NicId, NodeId),
    result: &ResourceOutcome,
) -> Result<(), ApplyError> {
    let ResourceOutcome { resource: _, generation, outcome, warnings } = result;
    let (nic, node) = (nic_id.to_string(), node_id.to_string());
    sqlx::query(
        "UPDATE nics SET status = $3, error = $4, warnings = $5, observed_generation = $6, reconciled_at = $7
         WHERE id = $1 AND node_id = $2",
    )
    .bind(&nic)
    .bind(&node)
    .bind(outcome.status().as_str())
    .bind(outcome.error())
    .bind(serde_json::to_string(warnings)?)
    .bind(integer(*generation))
    .bind(header.time.unix_micros())
    .execute(&mut *db)
    .await?;
    if outcome.status() == OutcomeStatus::Removed {
        let gone = sqlx::query_scalar("DELETE FROM nics WHERE id = $1 AND node_id = $2 AND detached RETURNING vm_id");
        let gone: Option<String> = gone.bind(&nic).bind(&node).fetch_optional(&mut *db).await?;
        if let Some(vm) = gone {
            forget_if_removed(db, &vm).await?;
        }
    }
    Ok(())
}

/// Taps that were to go from a node that was removed are not waited for.
pub(super) async fn node_removed(db: &mut SqliteConnection, node: &str) -> Result<(), ApplyError> {
    sqlx::query("DELETE FROM nics WHERE node_id = $1 AND detached").bind(node).execute(&mut *db).await?;
    sqlx::query(
        "DELETE FROM vms WHERE node_id = $1 AND deleted_at IS NOT NULL
         AND NOT EXISTS (SELECT 1 FROM nics WHERE vm_id = vms.id)",
    )
    .bind(node)
    .execute(db)
    .await?;
    Ok(())
}

/// A deleted VM stays readable until its NICs' taps are gone.
async fn forget_if_removed(db: &mut SqliteConnection, vm: &str) -> Result<(), ApplyError> {
    sqlx::query(
        "DELETE FROM vms WHERE id = $1 AND deleted_at IS NOT NULL
         AND NOT EXISTS (SELECT 1 FROM nics WHERE vm_id = $1)",
    )
    .bind(vm)
    .execute(db)
    .await?;
    Ok(())
}
