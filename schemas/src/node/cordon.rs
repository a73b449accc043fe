//! Cordoned nodes: no VMs are placed on them, for maintenance. Those that are there stay.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NodeById, NodeCommand, NodeEvent};
use crate::command::{Command, CommandInputs};
use crate::error::ErrorBody;
use crate::event::{Event, EventProvenance, StreamId, same_shape};
use crate::id::NodeId;
use crate::permission::Permission;
use crate::request::{Request, RequestKind, RequestType, parse_body};
use crate::value::NodeName;

/// The requests that cordon nodes.
pub(crate) const CORDON_COMMANDS: &[Request] = &[Request::of::<CordonNode>(), Request::of::<UncordonNode>()];

/// No VMs are placed on a node from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCordoned {
    pub node_id: NodeId,
}

/// VMs may be placed on a node again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeUncordoned {
    pub node_id: NodeId,
}

/// No VMs are placed on a node from now on. Those that are there stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeCordonedV1 {
    pub node_id: NodeId,
}

/// VMs may be placed on a node again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeUncordonedV1 {
    pub node_id: NodeId,
}

same_shape!(
    NodeCordoned,
    NodeCordonedV1 { node_id },
    |event| StreamId::Node(event.node_id),
    |event| Event::Node(NodeEvent::Cordoned(event)),
    Decision,
    "dev.otherix.node.cordoned.v1",
    "A node was cordoned",
    EventProvenance { when: "A node that is not cordoned is cordoned.", requests: &["node.cordon"], causes: &[] }
);
same_shape!(
    NodeUncordoned,
    NodeUncordonedV1 { node_id },
    |event| StreamId::Node(event.node_id),
    |event| Event::Node(NodeEvent::Uncordoned(event)),
    Decision,
    "dev.otherix.node.uncordoned.v1",
    "A node was uncordoned",
    EventProvenance { when: "A cordoned node is uncordoned.", requests: &["node.uncordon"], causes: &[] }
);

/// Whether VMs are placed on a node: the answer to a request that may have changed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CordonView {
    pub id: NodeId,
    pub name: NodeName,
    /// No VMs are placed on it.
    pub cordoned: bool,
    /// Number of VMs on the node.
    pub vms: u64,
}

/// `node.cordon`
#[derive(Clone, Copy, Debug)]
pub struct CordonNode;

impl RequestType for CordonNode {
    const NAME: &'static str = "node.cordon";
    const PERMISSION: Permission = Permission::NodeMaintenance;
    const KIND: RequestKind = RequestKind::Command(cordon);
    const SUMMARY: &'static str = "Place no VMs on a node";
    const DESCRIPTION: &'static str = "VMs that are on the node stay, and go on. A VM that is to be created on it is \
        refused (`conflict`). A node that is cordoned already stays so, and nothing is recorded.";
    type Body = NodeById;
    type Answer = CordonView;
}

fn cordon(body: &[u8], _: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let NodeById { id } = parse_body(body)?;
    Ok(Command::Node(NodeCommand::Cordon { node_id: id, cordoned: true }))
}

/// `node.uncordon`
#[derive(Clone, Copy, Debug)]
pub struct UncordonNode;

impl RequestType for UncordonNode {
    const NAME: &'static str = "node.uncordon";
    const PERMISSION: Permission = Permission::NodeMaintenance;
    const KIND: RequestKind = RequestKind::Command(uncordon);
    const SUMMARY: &'static str = "Place VMs on a node again";
    const DESCRIPTION: &'static str = "A node that is not cordoned stays so, and nothing is recorded.";
    type Body = NodeById;
    type Answer = CordonView;
}

fn uncordon(body: &[u8], _: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let NodeById { id } = parse_body(body)?;
    Ok(Command::Node(NodeCommand::Cordon { node_id: id, cordoned: false }))
}
