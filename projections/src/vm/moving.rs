//! What the moves of VMs change in the read model.

use otherix_schemas::cloudevent::Header;
use otherix_schemas::outcome::{Outcome, OutcomeStatus};
use otherix_schemas::position::Position;
use otherix_schemas::vm::{VmMoveCancelled, VmMoveStarted, VmMoved};
use rusqlite::{Connection, params};

use super::apply::delete_if_removed;
use crate::projection::{ApplyError, execute, integer};

pub(super) fn started(db: &Connection, header: &Header, event: &VmMoveStarted) -> Result<(), ApplyError> {
    let id = event.vm_id.to_string();
    execute(
        db,
        "INSERT INTO moves (vm_id, node_id, move_generation, since, vcpus, memory_mb, disk_gib)
         SELECT ?1, ?2, ?3, ?4, vcpus, memory_mb, disk_gib FROM machines WHERE vm_id = ?1",
        params![id, event.node_id.to_string(), integer(header.position), header.time.unix_micros()],
    )?;
    decided(db, header, &id)?;
    execute(db, "UPDATE machines SET power = ?2 WHERE vm_id = ?1", [&id, event.power.as_str()])?;
    Ok(())
}

pub(super) fn moved(db: &Connection, header: &Header, event: &VmMoved) -> Result<(), ApplyError> {
    let (id, from, to) = (event.vm_id.to_string(), event.from_node_id.to_string(), event.node_id.to_string());
    execute(db, "DELETE FROM moves WHERE vm_id = ?1", [&id])?;
    execute(db, "UPDATE vms SET node_id = ?2 WHERE id = ?1", [&id, &to])?;
    execute(
        db,
        "UPDATE machines SET node_id = ?2, machine_status = NULL, machine_error = NULL, machine_warnings = '[]',
             machine_state = NULL, machine_observed = NULL
         WHERE vm_id = ?1",
        [&id, &to],
    )?;
    add_copy(db, &id, &from)?;
    decided(db, header, &id)
}

pub(super) fn cancelled(db: &Connection, header: &Header, event: &VmMoveCancelled) -> Result<(), ApplyError> {
    let (id, to) = (event.vm_id.to_string(), event.node_id.to_string());
    execute(db, "DELETE FROM moves WHERE vm_id = ?1", [&id])?;
    add_copy(db, &id, &to)?;
    decided(db, header, &id)?;
    if let Some(reason) = &event.reason {
        execute(
            db,
            "UPDATE vms SET move_error = (SELECT 'it was not moved to node `' || name || '`: ' || ?3 FROM vm_nodes
                 WHERE id = ?2)
             WHERE id = ?1",
            [&id, &to, reason],
        )?;
    }
    Ok(())
}

/// Both nodes of a VM that is deleted while it moves have to remove it.
pub(super) fn deleted(db: &Connection, vm: &str) -> Result<(), ApplyError> {
    execute(
        db,
        "INSERT OR IGNORE INTO copies (vm_id, node_id) SELECT vm_id, node_id FROM moves WHERE vm_id = ?1",
        [vm],
    )?;
    execute(db, "DELETE FROM moves WHERE vm_id = ?1", [vm])?;
    Ok(())
}

/// What a node reports, if it is the one that the VM moves to, or one that has a copy to remove.
pub(super) fn reported(
    db: &Connection,
    (vm, node): (&str, &str),
    generation: Position,
    outcome: &Outcome,
) -> Result<(), ApplyError> {
    execute(
        db,
        "UPDATE moves SET progress = ?4 WHERE vm_id = ?1 AND node_id = ?2 AND move_generation = ?3",
        params![vm, node, integer(generation), outcome.error()],
    )?;
    if outcome.status() == OutcomeStatus::Removed {
        execute(db, "DELETE FROM copies WHERE vm_id = ?1 AND node_id = ?2", [vm, node])?;
    }
    Ok(())
}

/// What a removed node has of VMs is no longer awaited.
pub(super) fn node_removed(db: &Connection, node: &str) -> Result<(), ApplyError> {
    let mut statement = db.prepare_cached("DELETE FROM copies WHERE node_id = ?1 RETURNING vm_id")?;
    let vms = statement.query_map([node], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    for vm in vms {
        delete_if_removed(db, &vm)?;
    }
    Ok(())
}

fn add_copy(db: &Connection, vm: &str, node: &str) -> Result<(), ApplyError> {
    execute(db, "INSERT OR IGNORE INTO copies (vm_id, node_id) VALUES (?1, ?2)", [vm, node])?;
    Ok(())
}

/// A decision about a VM and its machine.
fn decided(db: &Connection, header: &Header, vm: &str) -> Result<(), ApplyError> {
    let values = params![vm, integer(header.position), header.time.unix_micros()];
    execute(db, "UPDATE vms SET generation = ?2, updated_at = ?3, move_error = NULL WHERE id = ?1", values)?;
    let values = params![vm, integer(header.position)];
    execute(db, "UPDATE machines SET machine_generation = ?2 WHERE vm_id = ?1", values)?;
    Ok(())
}
