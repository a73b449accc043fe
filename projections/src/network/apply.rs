//! What an event changes in the read model of networks.

use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::event::{DomainEvent, Event};
use otherix_schemas::id::{NetworkId, NodeId};
use otherix_schemas::network::{NetworkChanged, NetworkCreated, NetworkDeleted, NetworkEvent};
use otherix_schemas::node::{NodeEvent, NodeReachable, NodeRemoved, NodeUnreachable};
use otherix_schemas::outcome::{OutcomeStatus, ResourceOutcome, ResourceRef};
use otherix_schemas::value::Metadata;
use rusqlite::{Connection, params};

use crate::projection::{ApplyError, execute, integer};

#[expect(clippy::wildcard_enum_match_arm, reason = "events that no view of this read model shows change nothing")]
pub(super) fn apply(db: &Connection, envelope: &EventEnvelope) -> Result<(), ApplyError> {
    let header = &envelope.header;
    match &envelope.event {
        Event::Network(NetworkEvent::Created(event)) => created(db, header, event),
        Event::Network(NetworkEvent::Changed(event)) => changed(db, header, event),
        Event::Network(NetworkEvent::Deleted(event)) => deleted(db, header, event),
        Event::Node(NodeEvent::Joined(event)) => {
            let values = params![event.node_id.to_string(), event.name.as_str()];
            execute(db, "INSERT INTO network_nodes (id, name) VALUES (?1, ?2)", values)?;
            Ok(())
        }
        Event::Node(NodeEvent::Unreachable(NodeUnreachable { node_id, .. })) => set_reachable(db, *node_id, false),
        Event::Node(NodeEvent::Reachable(NodeReachable { node_id })) => set_reachable(db, *node_id, true),
        Event::Node(NodeEvent::Removed(event)) => node_removed(db, event),
        Event::Node(NodeEvent::Reconciled(event)) => {
            for outcome in &event.results {
                if let ResourceRef::Network(network_id) = outcome.resource {
                    reconciled(db, header, &Reporter { network_id, node_id: event.node_id }, outcome)?;
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn created(db: &Connection, header: &Header, event: &NetworkCreated) -> Result<(), ApplyError> {
    let id = event.network_id.to_string();
    let NetworkCreated { network_id, name, spec } = event.clone();
    let definition = NetworkChanged { network_id, name, spec, metadata: Metadata::default() };
    execute(
        db,
        "INSERT INTO networks
             (id, created_position, name_key, type, created, labels, generation, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, '{}', ?2, ?6, ?6)",
        params![
            id,
            integer(header.position),
            event.name.key(),
            event.spec.kind().as_str(),
            serde_json::to_string(&definition.to_stored())?,
            header.time.unix_micros(),
        ],
    )?;
    await_reachable(db, &id)
}

fn changed(db: &Connection, header: &Header, event: &NetworkChanged) -> Result<(), ApplyError> {
    let id = event.network_id.to_string();
    let changed = execute(
        db,
        "UPDATE networks SET name_key = ?2, created = ?3, labels = ?4, generation = ?5, updated_at = ?6
         WHERE id = ?1 AND deleted_at IS NULL",
        params![
            id,
            event.name.key(),
            serde_json::to_string(&event.to_stored())?,
            serde_json::to_string(&event.metadata.labels)?,
            integer(header.position),
            header.time.unix_micros(),
        ],
    )?;
    if changed == 0 {
        return Ok(());
    }
    execute(db, "DELETE FROM awaited WHERE network_id = ?1", [&id])?;
    await_reachable(db, &id)
}

/// A client that waits for the network waits for the nodes that are reachable now.
fn await_reachable(db: &Connection, id: &str) -> Result<(), ApplyError> {
    let awaited = "INSERT INTO awaited (network_id, node_id) SELECT ?1, id FROM network_nodes WHERE reachable";
    execute(db, awaited, [id])?;
    Ok(())
}

fn deleted(db: &Connection, header: &Header, event: &NetworkDeleted) -> Result<(), ApplyError> {
    let id = event.network_id.to_string();
    execute(
        db,
        "UPDATE networks SET deleted_at = ?2, updated_at = ?2, generation = ?3 WHERE id = ?1",
        params![id, header.time.unix_micros(), integer(header.position)],
    )?;
    execute(db, "DELETE FROM awaited WHERE network_id = ?1", [&id])?;
    execute(db, "INSERT INTO removals (network_id, node_id) SELECT ?1, id FROM network_nodes", [&id])?;
    delete_if_removed(db, &id)
}

fn set_reachable(db: &Connection, node_id: NodeId, reachable: bool) -> Result<(), ApplyError> {
    let values = params![node_id.to_string(), reachable];
    execute(db, "UPDATE network_nodes SET reachable = ?2 WHERE id = ?1", values)?;
    Ok(())
}

/// A removed node's reports are no longer shown, and it is no longer awaited.
fn node_removed(db: &Connection, event: &NodeRemoved) -> Result<(), ApplyError> {
    let node = event.node_id.to_string();
    for statement in [
        "DELETE FROM network_counts WHERE node_id = ?1",
        "DELETE FROM outcomes WHERE node_id = ?1",
        "DELETE FROM awaited WHERE node_id = ?1",
        "DELETE FROM removals WHERE node_id = ?1",
        "DELETE FROM network_nodes WHERE id = ?1",
    ] {
        execute(db, statement, [&node])?;
    }
    execute(
        db,
        "DELETE FROM networks WHERE deleted_at IS NOT NULL
         AND NOT EXISTS (SELECT 1 FROM removals WHERE network_id = networks.id)",
        [],
    )?;
    Ok(())
}

/// Which node reports on which network.
struct Reporter {
    network_id: NetworkId,
    node_id: NodeId,
}

fn reconciled(
    db: &Connection,
    header: &Header,
    reporter: &Reporter,
    reported: &ResourceOutcome,
) -> Result<(), ApplyError> {
    let ResourceOutcome { resource: _, generation, outcome, warnings, machine: _ } = reported;
    let (network, node) = (reporter.network_id.to_string(), reporter.node_id.to_string());
    execute(
        db,
        "INSERT INTO outcomes (network_id, node_id, status, error, generation, reconciled_at, warnings)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (network_id, node_id) DO UPDATE SET status = excluded.status, error = excluded.error,
             generation = excluded.generation, reconciled_at = excluded.reconciled_at, warnings = excluded.warnings",
        params![
            network,
            node,
            outcome.status().as_str(),
            outcome.error(),
            integer(*generation),
            header.time.unix_micros(),
            serde_json::to_string(warnings)?,
        ],
    )?;
    if outcome.status() == OutcomeStatus::Removed {
        execute(db, "DELETE FROM removals WHERE network_id = ?1 AND node_id = ?2", [&network, &node])?;
        delete_if_removed(db, &network)?;
    }
    Ok(())
}

/// A deleted network stays readable until every node has confirmed its removal.
fn delete_if_removed(db: &Connection, network: &str) -> Result<(), ApplyError> {
    execute(
        db,
        "DELETE FROM networks WHERE id = ?1 AND deleted_at IS NOT NULL
         AND NOT EXISTS (SELECT 1 FROM removals WHERE network_id = ?1)",
        [network],
    )?;
    Ok(())
}
