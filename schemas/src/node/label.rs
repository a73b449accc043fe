//! Description and labels of nodes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{NodeCommand, NodeEvent};
use crate::change::Applied;
use crate::command::{Command, CommandInputs};
use crate::error::ErrorBody;
use crate::event::{Event, EventProvenance, StreamId, same_shape};
use crate::id::NodeId;
use crate::permission::Permission;
use crate::request::{Request, RequestKind, RequestType, parse_body};
use crate::value::{Description, Labels, MetadataChanges, NodeName};

/// The requests that label nodes.
pub(crate) const LABEL_COMMANDS: &[Request] = &[Request::of::<ChangeNode>()];

/// What people say about a node was changed: this is all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLabelled {
    pub node_id: NodeId,
    pub description: Option<Description>,
    pub labels: Labels,
}

/// What people say about a node was changed: this is all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeLabelledV1 {
    pub node_id: NodeId,
    pub description: Option<Description>,
    pub labels: Labels,
}

same_shape!(
    NodeLabelled,
    NodeLabelledV1 { node_id, description, labels },
    |event| StreamId::Node(event.node_id),
    |event| Event::Node(NodeEvent::Labelled(event)),
    Decision,
    "dev.otherix.node.labelled.v1",
    "A node was described or labelled",
    EventProvenance {
        when: "The description or the labels of a node are changed.",
        requests: &["node.change"],
        causes: &[]
    }
);

/// What people say about a node: part of the answer to a request that changes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LabelledNodeView {
    pub id: NodeId,
    pub name: NodeName,
    pub description: Option<Description>,
    pub labels: Labels,
}

/// A change of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeChangeRequest {
    pub id: NodeId,
    #[schemars(with = "MetadataChanges")]
    pub changes: Map<String, Value>,
}

/// `node.change`
#[derive(Clone, Copy, Debug)]
pub struct ChangeNode;

impl RequestType for ChangeNode {
    const NAME: &'static str = "node.change";
    const PERMISSION: Permission = Permission::NodeMaintenance;
    const KIND: RequestKind = RequestKind::Command(change);
    const SUMMARY: &'static str = "Change the description and the labels of a node";
    const DESCRIPTION: &'static str = "Nothing is recorded if they are so already. What else a node is, it tells \
        itself: all fields that are refused are in `details.fields`.";
    type Body = NodeChangeRequest;
    type Answer = Applied<LabelledNodeView>;
}

fn change(body: &[u8], _: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let NodeChangeRequest { id, changes } = parse_body(body)?;
    Ok(Command::Node(NodeCommand::Change { node_id: id, changes }))
}
