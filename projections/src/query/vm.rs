//! Questions about VMs.

use otherix_schemas::id::VmId;
use otherix_schemas::nic::{NicView, tap_name};
use otherix_schemas::outcome::OutcomeStatus;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::VmName;
use otherix_schemas::vm::{VmCreatedV1, VmView, waiting_for_node};
use sqlx::Row;
use sqlx::sqlite::{SqlitePool, SqliteRow};

use super::{Listed, Page, Query, QueryError, named, parsed, position, time, warnings};
use crate::apply::integer;

/// A VM with its node and its NIC.
const SELECT: &str = "
    SELECT vms.*, nodes.name AS node_name, nodes.reachable AS node_reachable, nics.id AS nic_id, network_id, network_name,
        bridge_name, mac, nics.generation AS nic_generation, status, error, observed_generation, reconciled_at,
        COALESCE(warnings, '[]') AS warnings
    FROM vms JOIN nodes ON nodes.id = vms.node_id LEFT JOIN nics ON vm_id = vms.id";

/// A VM; a deleted one as long as its node has not removed its tap.
///
/// # Errors
/// When the read models cannot be read.
pub async fn vm_by_id(pool: &SqlitePool, id: VmId) -> Result<Option<VmView>, QueryError> {
    let query = format!("{SELECT} WHERE vms.id = $1");
    one(pool, sqlx::query(sqlx::AssertSqlSafe(query)).bind(id.to_string())).await
}

/// The VM that has this name, whatever the case.
///
/// # Errors
/// When the read models cannot be read.
pub async fn vm_by_name(pool: &SqlitePool, name: &VmName) -> Result<Option<VmView>, QueryError> {
    let query = format!("{SELECT} WHERE name_key = $1 AND deleted_at IS NULL");
    one(pool, sqlx::query(sqlx::AssertSqlSafe(query)).bind(name.key())).await
}

/// A page of the VMs that are not deleted.
///
/// # Errors
/// When the read models cannot be read.
pub async fn vms(pool: &SqlitePool, page: Page) -> Result<Listed<VmView>, QueryError> {
    let query =
        format!("{SELECT} WHERE deleted_at IS NULL AND created_position > $1 ORDER BY created_position LIMIT $2");
    let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(integer(page.after)).bind(page.rows());
    page.of(&query.fetch_all(pool).await?, "created_position", view)
}

async fn one(pool: &SqlitePool, query: Query<'_>) -> Result<Option<VmView>, QueryError> {
    query.fetch_optional(pool).await?.as_ref().map(view).transpose()
}

fn view(row: &SqliteRow) -> Result<VmView, QueryError> {
    let VmCreatedV1 { vm_id, name, image_url, arch, node_id } = serde_json::from_str(row.try_get("created")?)?;
    let created_at = time(row, "created_at")?;
    let deleted_at = row.try_get::<Option<i64>, _>("deleted_at")?.map(Timestamp::from_unix_micros).transpose()?;
    let nic = nic(row)?;
    let mut view = VmView {
        id: vm_id,
        name,
        image_url,
        arch,
        node_id,
        node_name: parsed(row, "node_name")?,
        node_reachable: row.try_get("node_reachable")?,
        nic: None,
        status: OutcomeStatus::Ready,
        error: None,
        warnings: warnings(row)?,
        generation: position(row, "generation")?,
        created_at,
        updated_at: deleted_at.unwrap_or(created_at),
        deleted_at,
    };
    if let Some(nic) = &nic {
        // What the node said of an earlier decision is no word on this one.
        let said =
            row.try_get::<Option<String>, _>("status")?.filter(|_| nic.observed_generation == Some(nic.generation));
        (view.status, view.error) = match said {
            Some(status) => (named(status)?, row.try_get("error")?),
            None => (OutcomeStatus::Pending, Some(waiting_for_node(&view, &nic.tap))),
        };
    }
    Ok(VmView { nic, ..view })
}

fn nic(row: &SqliteRow) -> Result<Option<NicView>, QueryError> {
    let Some(id) = row.try_get::<Option<String>, _>("nic_id")? else { return Ok(None) };
    let id = id.parse().map_err(|error: otherix_schemas::id::IdError| QueryError::Malformed(error.into()))?;
    let observed_generation = row.try_get::<Option<i64>, _>("observed_generation")?;
    let reconciled_at = row.try_get::<Option<i64>, _>("reconciled_at")?;
    Ok(Some(NicView {
        id,
        network_id: parsed(row, "network_id")?,
        network_name: parsed(row, "network_name")?,
        bridge_name: row.try_get("bridge_name")?,
        mac: parsed(row, "mac")?,
        tap: tap_name(id),
        generation: position(row, "nic_generation")?,
        observed_generation: observed_generation.map(|number| Position::new(number.cast_unsigned())),
        reconciled_at: reconciled_at.map(Timestamp::from_unix_micros).transpose()?,
    }))
}
