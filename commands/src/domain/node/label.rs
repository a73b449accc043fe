//! Description and labels of nodes.

use otherix_schemas::change::{Applied, ChangeResult, field_changes};
use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::event::{DomainEvent, Event};
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{LabelledNodeView, NodeEvent, NodeLabelled};
use otherix_schemas::value::Metadata;
use serde_json::{Map, Value, json};

use super::Nodes;
use crate::domain::{Decision, Rejection, State};

impl Nodes {
    pub(super) fn labelled(&mut self, header: &Header, event: &NodeLabelled) {
        let Some(node) = self.get_mut(event.node_id) else { return };
        let NodeLabelled { node_id: _, description, labels } = event.clone();
        (node.version, node.metadata) = (header.stream_version, Metadata { description, labels });
    }
}

/// Changes description and labels; other fields are refused.
pub(super) fn change(state: &State, node_id: NodeId, changes: &Map<String, Value>) -> Result<Decision, Rejection> {
    let node = state.nodes().get(&node_id).ok_or(Rejection::NoSuchNode(node_id))?;
    let rule = "cannot be changed: the node tells it itself";
    let wanted = node.metadata.changed(changes.clone(), rule).map_err(Rejection::Invalid)?;
    if wanted == node.metadata {
        return Ok(Decision::default());
    }
    let Metadata { description, labels } = wanted;
    Ok(Decision::one(NodeLabelled { node_id, description, labels }))
}

/// Returns the answer to a change of a node, which led to these events.
pub(super) fn applied(before: &State, id: NodeId, envelopes: &[EventEnvelope]) -> Option<Applied<LabelledNodeView>> {
    let node = before.nodes().get(&id)?;
    let (name, Metadata { description, labels }) = (node.name.clone(), node.metadata.clone());
    let was = NodeLabelled { node_id: id, description, labels };
    let (result, changes, now) = match envelopes.first().map(|first| &first.event) {
        Some(Event::Node(NodeEvent::Labelled(event))) => {
            let changes = field_changes(&json!(was.to_stored()), &json!(event.to_stored()));
            (ChangeResult::Changed, changes, event.clone())
        }
        _ => (ChangeResult::Unchanged, Vec::new(), was),
    };
    let NodeLabelled { node_id: _, description, labels } = now;
    Some(Applied { result, changes, resource: LabelledNodeView { id, name, description, labels } })
}
