//! Queries about VMs. Each is one statement.

use otherix_schemas::id::VmId;
use otherix_schemas::nic::{NicView, tap_name};
use otherix_schemas::outcome::OutcomeStatus;
use otherix_schemas::position::Position;
use otherix_schemas::value::VmName;
use otherix_schemas::vm::{Arch, VmCreatedV2, VmOwner, VmView, cannot_run, waiting_for_node};
use rusqlite::{Connection, Row, params};

use crate::projection::integer;
use crate::query::{
    BY_NAME, Listed, Page, QueryError, all, first, optional_parsed, optional_time, parsed, position, text, time,
    unquoted, warnings,
};

/// A VM with its node and its NIC.
const SELECT: &str = "
    SELECT vms.*, vm_nodes.name AS node_name, vm_nodes.reachable AS node_reachable,
        vm_nodes.arch AS node_arch, nics.id AS nic_id, network_id,
        network_name, bridge_name, mac, ip, nics.generation AS nic_generation, status, error, observed_generation,
        reconciled_at, COALESCE(warnings, '[]') AS warnings
    FROM vms JOIN vm_nodes ON vm_nodes.id = vms.node_id LEFT JOIN nics ON vm_id = vms.id";

/// The VM. A deleted one is found until its node has removed its tap.
///
/// # Errors
/// When the database fails or holds a malformed value.
pub fn by_id(db: &Connection, id: VmId) -> Result<Option<VmView>, QueryError> {
    first(db, &format!("{SELECT} WHERE vms.id = ?1"), [id.to_string()], view)
}

/// The VM of this name ([`VmName::key`]). A deleted one is found until its node has removed its tap, or until another
/// VM has the name.
///
/// # Errors
/// When the database fails or holds a malformed value.
pub fn by_name(db: &Connection, name: &VmName) -> Result<Option<VmView>, QueryError> {
    let query = format!("{SELECT} WHERE name_key = ?1 ORDER BY {BY_NAME}");
    first(db, &query, [&name.key(), name.as_str()], view)
}

/// A page of the VMs. A deleted one is listed until its node has removed its tap.
///
/// # Errors
/// When the database fails or holds a malformed value.
pub fn list(db: &Connection, page: Page) -> Result<Listed<VmView>, QueryError> {
    let query = format!("{SELECT} WHERE created_position > ?1 ORDER BY created_position LIMIT +?2");
    let values = params![integer(page.after), page.rows()];
    Ok(page.of(all(db, &query, values, |row| Ok((position(row, "created_position")?, view(row)?)))?))
}

fn view(row: &Row<'_>) -> Result<VmView, QueryError> {
    let VmCreatedV2 { vm_id, name, image_url, arch, node_id, owner } = serde_json::from_str(text(row, "created")?)?;
    let owner_name = row.get("owner_name")?;
    let created_at = time(row, "created_at")?;
    let deleted_at = optional_time(row, "deleted_at")?;
    let nic = nic(row)?;
    let mut view = VmView {
        id: vm_id,
        name,
        image_url,
        arch,
        owner: owner.map(|id| VmOwner { id, name: owner_name }),
        node_id,
        node_name: parsed(row, "node_name")?,
        node_reachable: row.get("node_reachable")?,
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
        // A status that was reported for an earlier generation does not apply to this one.
        (view.status, view.error) = if nic.observed_generation == Some(nic.generation) {
            (unquoted(row, "status")?, row.get("error")?)
        } else {
            (OutcomeStatus::Pending, Some(waiting_for_node(&view, &nic.tap)))
        };
    }
    if let Some(node_arch) = optional_parsed::<Arch>(row, "node_arch")?
        && node_arch != arch
        && deleted_at.is_none()
    {
        (view.status, view.error) = (OutcomeStatus::Failed, Some(cannot_run(arch, &view.node_name, node_arch)));
    }
    Ok(VmView { nic, ..view })
}

fn nic(row: &Row<'_>) -> Result<Option<NicView>, QueryError> {
    if row.get::<_, Option<String>>("nic_id")?.is_none() {
        return Ok(None);
    }
    let id = parsed(row, "nic_id")?;
    let observed_generation = row.get::<_, Option<i64>>("observed_generation")?;
    Ok(Some(NicView {
        id,
        network_id: parsed(row, "network_id")?,
        network_name: parsed(row, "network_name")?,
        bridge_name: row.get("bridge_name")?,
        mac: parsed(row, "mac")?,
        ip: optional_parsed(row, "ip")?,
        tap: tap_name(id),
        generation: position(row, "nic_generation")?,
        observed_generation: observed_generation.map(|number| Position::new(number.cast_unsigned())),
        reconciled_at: optional_time(row, "reconciled_at")?,
    }))
}
