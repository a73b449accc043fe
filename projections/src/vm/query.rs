//! Queries about VMs. Each is one statement.

use otherix_schemas::id::VmId;
use otherix_schemas::nic::{NicView, tap_name};
use otherix_schemas::outcome::OutcomeStatus;
use otherix_schemas::position::Position;
use otherix_schemas::value::{NodeName, VmName};
use otherix_schemas::vm::{
    Arch, Machine, MachinePhase, MachineStatus, MachineView, Power, VmCreatedV3, VmMoveView, VmOwner, VmView,
    cannot_run, copy_on, moving_to, waiting_for_machine, waiting_for_node,
};
use rusqlite::{Connection, Row, params};

use crate::projection::integer;
use crate::query::{
    BY_NAME, Listed, Page, QueryError, all, first, optional_parsed, optional_time, parsed, position, text, texts, time,
    unquoted,
};

/// A VM with its node and its NIC.
const SELECT: &str = "
    SELECT vms.*, vm_nodes.name AS node_name, vm_nodes.reachable AS node_reachable,
        vm_nodes.arch AS node_arch, nics.id AS nic_id, network_id,
        network_name, bridge_name, mac, ip, nics.generation AS nic_generation, status, error, observed_generation,
        reconciled_at, COALESCE(warnings, '[]') AS warnings, power, machine_generation, machine_status, machine_error,
        COALESCE(machine_warnings, '[]') AS machine_warnings, machine_state, machine_observed,
        moves.node_id AS move_node_id, targets.name AS move_node_name, progress, since,
        (SELECT name FROM copies JOIN vm_nodes ON vm_nodes.id = copies.node_id WHERE vm_id = vms.id) AS copy_on
    FROM vms JOIN vm_nodes ON vm_nodes.id = vms.node_id
        LEFT JOIN nics ON nics.vm_id = vms.id LEFT JOIN machines ON machines.vm_id = vms.id
        LEFT JOIN moves ON moves.vm_id = vms.id LEFT JOIN vm_nodes AS targets ON targets.id = moves.node_id";

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
    let created: VmCreatedV3 = serde_json::from_str(text(row, "created")?)?;
    let VmCreatedV3 { vm_id, name, image_url, arch, node_id: _, owner, machine } = created;
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
        description: optional_parsed(row, "description")?,
        labels: serde_json::from_str(text(row, "labels")?)?,
        node_id: parsed(row, "node_id")?,
        node_name: parsed(row, "node_name")?,
        node_reachable: row.get("node_reachable")?,
        nic: None,
        machine: None,
        moving: moving(row)?,
        status: OutcomeStatus::Ready,
        error: None,
        warnings: texts(row, "warnings")?,
        generation: position(row, "generation")?,
        created_at,
        updated_at: time(row, "updated_at")?,
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
    if let Some(machine) = machine {
        let reported = reported(row, machine)?;
        view.warnings.extend(reported.warnings);
        // What prevents most comes first: a failure, then the NIC, which is there before the machine.
        let is_worse = |status| match status {
            OutcomeStatus::Failed => view.status != OutcomeStatus::Failed,
            OutcomeStatus::Pending => matches!(view.status, OutcomeStatus::Ready | OutcomeStatus::Removed),
            OutcomeStatus::Ready | OutcomeStatus::Removed => nic.is_none(),
        };
        match reported.outcome {
            None if is_worse(OutcomeStatus::Pending) => {
                let error = waiting_for_machine(&view, reported.view.power);
                (view.status, view.error) = (OutcomeStatus::Pending, Some(error));
            }
            Some((status, error)) if is_worse(status) => (view.status, view.error) = (status, error),
            None | Some(_) => {}
        }
        view.machine = Some(reported.view);
    }
    if let Some(VmMoveView { node_name, progress, .. }) = &view.moving {
        view.status = OutcomeStatus::Pending;
        view.error = Some(moving_to(node_name, progress.as_deref()));
    }
    view.warnings.extend(row.get::<_, Option<String>>("move_error")?);
    view.warnings.extend(optional_parsed::<NodeName>(row, "copy_on")?.map(|node| copy_on(&node)));
    if let Some(node_arch) = optional_parsed::<Arch>(row, "node_arch")?
        && node_arch != arch
        && deleted_at.is_none()
    {
        (view.status, view.error) = (OutcomeStatus::Failed, Some(cannot_run(arch, &view.node_name, node_arch)));
    }
    Ok(VmView { nic, ..view })
}

fn moving(row: &Row<'_>) -> Result<Option<VmMoveView>, QueryError> {
    let Some(node_id) = optional_parsed(row, "move_node_id")? else { return Ok(None) };
    let (node_name, since) = (parsed(row, "move_node_name")?, time(row, "since")?);
    Ok(Some(VmMoveView { node_id, node_name, progress: row.get("progress")?, since }))
}

/// A machine, and what its node reported of the last decision about it.
struct ReportedMachine {
    view: MachineView,
    outcome: Option<(OutcomeStatus, Option<String>)>,
    warnings: Vec<String>,
}

fn reported(row: &Row<'_>, machine: Machine) -> Result<ReportedMachine, QueryError> {
    let Machine { vcpus, memory_mb, disk_gib, image_sha256, pull_policy, cloud_init } = machine;
    let is_removed = row.get::<_, Option<String>>("power")?.is_none();
    let power = optional_parsed(row, "power")?.unwrap_or(Power::Stopped);
    let generation = row.get::<_, Option<i64>>("machine_generation")?.unwrap_or_default();
    let is_current = row.get::<_, Option<i64>>("machine_observed")? == Some(generation);
    let state = row.get::<_, Option<String>>("machine_state")?.filter(|_| is_current);
    let state: Option<MachineStatus> = state.map(|text| serde_json::from_str(&text)).transpose()?;
    let outcome = match (is_removed, is_current) {
        (true, _) => Some((OutcomeStatus::Removed, None)),
        (false, true) => Some((unquoted(row, "machine_status")?, row.get("machine_error")?)),
        (false, false) => None,
    };
    let initial = if is_removed { MachinePhase::Removed } else { MachinePhase::Pending };
    let view = MachineView {
        vcpus,
        memory_mb,
        disk_gib,
        image_sha256,
        pull_policy,
        has_cloud_init: cloud_init.is_some(),
        power,
        phase: state.as_ref().map_or(initial, |state| state.phase),
        started_at: state.as_ref().and_then(|state| state.started_at),
        last_line: state.and_then(|state| state.last_line),
        generation: Position::new(generation.cast_unsigned()),
    };
    Ok(ReportedMachine { view, outcome, warnings: texts(row, "machine_warnings")? })
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
