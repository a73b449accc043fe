//! What an event changes in the read model of VMs and NICs.

use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::event::{DomainEvent, Event};
use otherix_schemas::id::{NicId, NodeId, VmId};
use otherix_schemas::network::{NetworkCreated, NetworkDeleted, NetworkEvent};
use otherix_schemas::nic::{NicAttached, NicBound, NicDetached, NicEvent};
use otherix_schemas::node::{NodeDescribed, NodeEvent, NodeReachable, NodeRemoved, NodeUnreachable};
use otherix_schemas::outcome::{OutcomeStatus, ResourceOutcome, ResourceRef};
use otherix_schemas::vm::{Power, VmCreated, VmDeleted, VmEvent, VmInstructed, VmLabelled};
use rusqlite::{Connection, OptionalExtension, params};

use super::moving;
use crate::projection::{ApplyError, execute, integer};

#[expect(clippy::wildcard_enum_match_arm, reason = "events that no view of this read model shows change nothing")]
pub(super) fn apply(db: &Connection, envelope: &EventEnvelope) -> Result<(), ApplyError> {
    let header = &envelope.header;
    match &envelope.event {
        Event::Vm(VmEvent::Created(event)) => created(db, header, event),
        Event::Vm(VmEvent::Instructed(event)) => instructed(db, header, event),
        Event::Vm(VmEvent::MoveStarted(event)) => moving::started(db, header, event),
        Event::Vm(VmEvent::Moved(event)) => moving::moved(db, header, event),
        Event::Vm(VmEvent::MoveCancelled(event)) => moving::cancelled(db, header, event),
        Event::Vm(VmEvent::Labelled(event)) => labelled(db, header, event),
        Event::Vm(VmEvent::Deleted(event)) => deleted(db, header, event),
        Event::Nic(NicEvent::Attached(event)) => attached(db, header, event),
        Event::Nic(NicEvent::Bound(event)) => bound(db, header, event),
        Event::Nic(NicEvent::Detached(event)) => detached(db, header, event),
        Event::Network(NetworkEvent::Created(event)) => network_created(db, event),
        Event::Network(NetworkEvent::Deleted(NetworkDeleted { network_id, .. })) => {
            execute(db, "DELETE FROM vm_networks WHERE id = ?1", [network_id.to_string()])?;
            Ok(())
        }
        Event::Node(NodeEvent::Joined(event)) => {
            let values = params![event.node_id.to_string(), event.name.as_str()];
            execute(db, "INSERT INTO vm_nodes (id, name) VALUES (?1, ?2)", values)?;
            Ok(())
        }
        Event::Node(NodeEvent::Unreachable(NodeUnreachable { node_id, .. })) => set_reachable(db, *node_id, false),
        Event::Node(NodeEvent::Reachable(NodeReachable { node_id })) => set_reachable(db, *node_id, true),
        Event::Node(NodeEvent::Described(NodeDescribed { node_id, arch })) => {
            execute(db, "UPDATE vm_nodes SET arch = ?2 WHERE id = ?1", [&node_id.to_string(), arch.as_str()])?;
            Ok(())
        }
        Event::Node(NodeEvent::Removed(event)) => node_removed(db, event),
        Event::Node(NodeEvent::Reconciled(event)) => {
            for outcome in &event.results {
                match outcome.resource {
                    ResourceRef::Nic(nic_id) => {
                        reconciled(db, header, &Reporter { nic_id, node_id: event.node_id }, outcome)?;
                    }
                    ResourceRef::Vm(vm_id) => machine_reported(db, vm_id, event.node_id, outcome)?,
                    ResourceRef::Network(_) => {}
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn created(db: &Connection, header: &Header, event: &VmCreated) -> Result<(), ApplyError> {
    execute(
        db,
        "INSERT INTO vms
             (id, created_position, name_key, created, node_id, owner_name, generation, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?2, ?7, ?7)",
        params![
            event.vm_id.to_string(),
            integer(header.position),
            event.name.key(),
            serde_json::to_string(&event.to_stored())?,
            event.node_id.to_string(),
            header.actor.name.as_ref().filter(|_| event.owner.as_ref() == Some(&header.actor.id)),
            header.time.unix_micros(),
        ],
    )?;
    if let Some(machine) = &event.machine {
        execute(
            db,
            "INSERT INTO machines (vm_id, node_id, power, machine_generation, vcpus, memory_mb, disk_gib)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                event.vm_id.to_string(),
                event.node_id.to_string(),
                Power::Running.as_str(),
                integer(header.position),
                machine.vcpus,
                machine.memory_mb,
                machine.disk_gib.unwrap_or_default(),
            ],
        )?;
    }
    Ok(())
}

fn instructed(db: &Connection, header: &Header, event: &VmInstructed) -> Result<(), ApplyError> {
    let (id, generation) = (event.vm_id.to_string(), integer(header.position));
    execute(
        db,
        "UPDATE vms SET generation = ?2, updated_at = ?3, move_error = NULL WHERE id = ?1",
        params![id, generation, header.time.unix_micros()],
    )?;
    let power = event.instruction.leads_to().as_str();
    let values = params![id, power, generation];
    execute(db, "UPDATE machines SET power = ?2, machine_generation = ?3 WHERE vm_id = ?1", values)?;
    Ok(())
}

fn labelled(db: &Connection, header: &Header, event: &VmLabelled) -> Result<(), ApplyError> {
    execute(
        db,
        "UPDATE vms SET description = ?2, labels = ?3, generation = ?4, updated_at = ?5 WHERE id = ?1",
        params![
            event.vm_id.to_string(),
            event.description.as_ref().map(|text| text.as_str()),
            serde_json::to_string(&event.labels)?,
            integer(header.position),
            header.time.unix_micros(),
        ],
    )?;
    Ok(())
}

/// A report counts if it is from the VM's node.
fn machine_reported(
    db: &Connection,
    vm_id: VmId,
    node_id: NodeId,
    reported: &ResourceOutcome,
) -> Result<(), ApplyError> {
    let ResourceOutcome { resource: _, generation, outcome, warnings, machine } = reported;
    let (vm, node) = (vm_id.to_string(), node_id.to_string());
    execute(
        db,
        "UPDATE machines SET machine_status = ?3, machine_error = ?4, machine_warnings = ?5, machine_state = ?6,
             machine_observed = ?7
         WHERE vm_id = ?1 AND node_id = ?2",
        params![
            vm,
            node,
            outcome.status().as_str(),
            outcome.error(),
            serde_json::to_string(warnings)?,
            machine.as_ref().map(serde_json::to_string).transpose()?,
            integer(*generation),
        ],
    )?;
    moving::reported(db, (&vm, &node), *generation, outcome)?;
    if outcome.status() == OutcomeStatus::Removed {
        execute(
            db,
            "DELETE FROM machines WHERE vm_id = ?1 AND node_id = ?2
             AND EXISTS (SELECT 1 FROM vms WHERE id = ?1 AND deleted_at IS NOT NULL)",
            [&vm, &node],
        )?;
        delete_if_removed(db, &vm)?;
    }
    Ok(())
}

fn deleted(db: &Connection, header: &Header, event: &VmDeleted) -> Result<(), ApplyError> {
    let id = event.vm_id.to_string();
    execute(
        db,
        "UPDATE vms SET deleted_at = ?2, updated_at = ?2, generation = ?3 WHERE id = ?1",
        params![id, header.time.unix_micros(), integer(header.position)],
    )?;
    let values = params![id, integer(header.position)];
    execute(
        db,
        "UPDATE machines SET machine_generation = ?2, vcpus = 0, memory_mb = 0, disk_gib = 0 WHERE vm_id = ?1",
        values,
    )?;
    moving::deleted(db, &id)?;
    delete_if_removed(db, &id)
}

fn attached(db: &Connection, header: &Header, event: &NicAttached) -> Result<(), ApplyError> {
    let NicAttached { nic_id, vm_id, network_id, mac, ip } = event;
    execute(
        db,
        "INSERT INTO nics (id, vm_id, network_id, network_name, bridge_name, mac, ip, generation)
         SELECT ?1, ?2, id, name, bridge_name, ?4, ?5, ?6 FROM vm_networks WHERE id = ?3",
        params![
            nic_id.to_string(),
            vm_id.to_string(),
            network_id.to_string(),
            mac.to_string(),
            ip.map(|ip| ip.to_string()),
            integer(header.position),
        ],
    )?;
    Ok(())
}

fn bound(db: &Connection, header: &Header, event: &NicBound) -> Result<(), ApplyError> {
    execute(
        db,
        "UPDATE nics SET node_id = ?2, generation = ?3,
             status = NULL, error = NULL, warnings = '[]', observed_generation = NULL, reconciled_at = NULL
         WHERE id = ?1",
        params![event.nic_id.to_string(), event.node_id.to_string(), integer(header.position)],
    )?;
    Ok(())
}

fn detached(db: &Connection, header: &Header, event: &NicDetached) -> Result<(), ApplyError> {
    let id = event.nic_id.to_string();
    let values = params![id, integer(header.position)];
    execute(db, "UPDATE nics SET detached = 1, generation = ?2 WHERE id = ?1", values)?;
    // A NIC that was never bound has no tap whose removal a node could report.
    execute(db, "DELETE FROM nics WHERE id = ?1 AND node_id IS NULL", [&id])?;
    delete_if_removed(db, &event.vm_id.to_string())
}

fn network_created(db: &Connection, event: &NetworkCreated) -> Result<(), ApplyError> {
    let values = params![event.network_id.to_string(), event.name.as_str(), event.spec.bridge_name()];
    execute(db, "INSERT INTO vm_networks (id, name, bridge_name) VALUES (?1, ?2, ?3)", values)?;
    Ok(())
}

fn set_reachable(db: &Connection, node_id: NodeId, reachable: bool) -> Result<(), ApplyError> {
    execute(db, "UPDATE vm_nodes SET reachable = ?2 WHERE id = ?1", params![node_id.to_string(), reachable])?;
    Ok(())
}

/// Taps that a removed node has not removed yet are no longer awaited.
fn node_removed(db: &Connection, event: &NodeRemoved) -> Result<(), ApplyError> {
    let node = event.node_id.to_string();
    execute(db, "DELETE FROM nics WHERE node_id = ?1 AND detached", [&node])?;
    execute(
        db,
        "DELETE FROM machines WHERE vm_id IN (SELECT id FROM vms WHERE node_id = ?1 AND deleted_at IS NOT NULL)",
        [&node],
    )?;
    execute(
        db,
        "DELETE FROM vms WHERE node_id = ?1 AND deleted_at IS NOT NULL
         AND NOT EXISTS (SELECT 1 FROM nics WHERE vm_id = vms.id)
         AND NOT EXISTS (SELECT 1 FROM copies WHERE vm_id = vms.id AND node_id <> ?1)",
        [&node],
    )?;
    moving::node_removed(db, &node)?;
    execute(db, "DELETE FROM vm_nodes WHERE id = ?1", [&node])?;
    Ok(())
}

/// Which node reports on which NIC.
struct Reporter {
    nic_id: NicId,
    node_id: NodeId,
}

/// A report counts if it is from the node that the NIC is bound to.
fn reconciled(
    db: &Connection,
    header: &Header,
    reporter: &Reporter,
    reported: &ResourceOutcome,
) -> Result<(), ApplyError> {
    let ResourceOutcome { resource: _, generation, outcome, warnings, machine: _ } = reported;
    let (nic, node) = (reporter.nic_id.to_string(), reporter.node_id.to_string());
    execute(
        db,
        "UPDATE nics SET status = ?3, error = ?4, warnings = ?5, observed_generation = ?6, reconciled_at = ?7
         WHERE id = ?1 AND node_id = ?2",
        params![
            nic,
            node,
            outcome.status().as_str(),
            outcome.error(),
            serde_json::to_string(warnings)?,
            integer(*generation),
            header.time.unix_micros(),
        ],
    )?;
    if outcome.status() == OutcomeStatus::Removed {
        let deleted: Option<String> = db
            .prepare_cached("DELETE FROM nics WHERE id = ?1 AND node_id = ?2 AND detached RETURNING vm_id")?
            .query_row([&nic, &node], |row| row.get(0))
            .optional()?;
        if let Some(vm) = deleted {
            delete_if_removed(db, &vm)?;
        }
    }
    Ok(())
}

/// A deleted VM stays readable until its NICs' taps and its machine are removed.
pub(super) fn delete_if_removed(db: &Connection, vm: &str) -> Result<(), ApplyError> {
    execute(
        db,
        "DELETE FROM vms WHERE id = ?1 AND deleted_at IS NOT NULL
         AND NOT EXISTS (SELECT 1 FROM nics WHERE vm_id = ?1)
         AND NOT EXISTS (SELECT 1 FROM machines WHERE vm_id = ?1)
         AND NOT EXISTS (SELECT 1 FROM copies WHERE vm_id = ?1)",
        [vm],
    )?;
    Ok(())
}
