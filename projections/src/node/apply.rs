//! What an event changes in the read model of nodes.

use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::event::Event;
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{
    MeshPeer, NodeCapacityReported, NodeChanged, NodeCondition, NodeConditionsChanged, NodeCordoned, NodeDescribed,
    NodeEvent, NodeJoined, NodeLabelled, NodeReachable, NodeRemoved, NodeUncordoned, NodeUnreachable,
};
use rusqlite::{Connection, params};

use crate::projection::{ApplyError, execute, integer};

#[expect(clippy::wildcard_enum_match_arm, reason = "events that no view of this read model shows change nothing")]
pub(super) fn apply(db: &Connection, envelope: &EventEnvelope) -> Result<(), ApplyError> {
    let header = &envelope.header;
    match &envelope.event {
        Event::Node(NodeEvent::Joined(event)) => joined(db, header, event),
        Event::Node(NodeEvent::Changed(event)) => changed(db, event),
        Event::Node(NodeEvent::Unreachable(NodeUnreachable { node_id, .. })) => {
            set_reachable(db, header, *node_id, false)
        }
        Event::Node(NodeEvent::Reachable(NodeReachable { node_id })) => set_reachable(db, header, *node_id, true),
        Event::Node(NodeEvent::Cordoned(NodeCordoned { node_id })) => set_cordoned(db, *node_id, true),
        Event::Node(NodeEvent::Uncordoned(NodeUncordoned { node_id })) => set_cordoned(db, *node_id, false),
        Event::Node(NodeEvent::Described(NodeDescribed { node_id, arch })) => {
            execute(db, "UPDATE nodes SET arch = ?2 WHERE id = ?1", [&node_id.to_string(), arch.as_str()])?;
            Ok(())
        }
        Event::Node(NodeEvent::CapacityReported(NodeCapacityReported { node_id, capacity })) => {
            let values = [node_id.to_string(), serde_json::to_string(capacity)?];
            execute(db, "UPDATE nodes SET capacity = ?2 WHERE id = ?1", values)?;
            Ok(())
        }
        Event::Node(NodeEvent::Removed(NodeRemoved { node_id, .. })) => {
            execute(db, "DELETE FROM nodes WHERE id = ?1", [node_id.to_string()])?;
            execute(db, "DELETE FROM node_conditions WHERE node_id = ?1", [node_id.to_string()])?;
            Ok(())
        }
        Event::Node(NodeEvent::Labelled(event)) => labelled(db, event),
        Event::Node(NodeEvent::ConditionsChanged(event)) => conditions_changed(db, header, event),
        _ => Ok(()),
    }
}

fn joined(db: &Connection, header: &Header, event: &NodeJoined) -> Result<(), ApplyError> {
    execute(
        db,
        "INSERT INTO nodes (id, name, joined_position, joined_at, reachable_position, reachable_since)
         VALUES (?1, ?2, ?3, ?4, ?3, ?4)",
        params![event.node_id.to_string(), event.name.as_str(), integer(header.position), header.time.unix_micros(),],
    )?;
    Ok(())
}

fn changed(db: &Connection, event: &NodeChanged) -> Result<(), ApplyError> {
    let NodeChanged { node_id, mesh: MeshPeer { address, public_key, endpoint } } = event;
    execute(
        db,
        "UPDATE nodes SET mesh_address = ?2, mesh_public_key = ?3, mesh_endpoint = ?4 WHERE id = ?1",
        [node_id.to_string(), address.to_string(), public_key.to_string(), endpoint.to_string()],
    )?;
    Ok(())
}

fn set_reachable(db: &Connection, header: &Header, node_id: NodeId, reachable: bool) -> Result<(), ApplyError> {
    execute(
        db,
        "UPDATE nodes SET reachable = ?2, reachable_position = ?3, reachable_since = ?4 WHERE id = ?1",
        params![node_id.to_string(), reachable, integer(header.position), header.time.unix_micros()],
    )?;
    Ok(())
}

fn set_cordoned(db: &Connection, node_id: NodeId, cordoned: bool) -> Result<(), ApplyError> {
    execute(db, "UPDATE nodes SET cordoned = ?2 WHERE id = ?1", params![node_id.to_string(), cordoned])?;
    Ok(())
}

fn labelled(db: &Connection, event: &NodeLabelled) -> Result<(), ApplyError> {
    let NodeLabelled { node_id, description, labels } = event;
    execute(
        db,
        "UPDATE nodes SET description = ?2, labels = ?3 WHERE id = ?1",
        params![node_id.to_string(), description.as_ref().map(|text| text.as_str()), serde_json::to_string(labels)?],
    )?;
    Ok(())
}

/// A condition that stays keeps its begin.
fn conditions_changed(db: &Connection, header: &Header, event: &NodeConditionsChanged) -> Result<(), ApplyError> {
    let NodeConditionsChanged { node_id, conditions } = event;
    let node_id = node_id.to_string();
    let kinds: Vec<&str> = conditions.iter().map(|condition| condition.kind.as_str()).collect();
    execute(
        db,
        "DELETE FROM node_conditions WHERE node_id = ?1 AND kind NOT IN (SELECT value FROM json_each(?2))",
        params![node_id, serde_json::to_string(&kinds)?],
    )?;
    for NodeCondition { kind, detail } in conditions {
        execute(
            db,
            "INSERT OR IGNORE INTO node_conditions (node_id, kind, since, detail) VALUES (?1, ?2, ?3, ?4)",
            params![node_id, kind.as_str(), header.time.unix_micros(), detail],
        )?;
    }
    Ok(())
}
