//! Queries for nodes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NodeView;
use crate::id::NodeId;
use crate::permission::Permission;
use crate::request::{ByName, PageRequest, Request, RequestKind, RequestType};

/// The requests that read nodes.
pub const QUERIES: &[Request] = &[Request::of::<GetNode>(), Request::of::<FindNode>(), Request::of::<ListNodes>()];

/// Selects a node by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeById {
    pub id: NodeId,
}

/// `node.get`
#[derive(Clone, Copy, Debug)]
pub struct GetNode;

impl RequestType for GetNode {
    const NAME: &'static str = "node.get";
    const PERMISSION: Permission = Permission::NodeRead;
    const KIND: RequestKind = RequestKind::Query;
    const SUMMARY: &'static str = "Get a node by its id";
    const DESCRIPTION: &'static str = "Includes the status of each network on the node, and its peers in the mesh.";
    type Body = NodeById;
    type Answer = NodeView;
}

/// `node.find`
#[derive(Clone, Copy, Debug)]
pub struct FindNode;

impl RequestType for FindNode {
    const NAME: &'static str = "node.find";
    const PERMISSION: Permission = Permission::NodeRead;
    const KIND: RequestKind = RequestKind::Query;
    const SUMMARY: &'static str = "Get a node by its name";
    const DESCRIPTION: &'static str = "Names are compared without regard to case.";
    type Body = ByName;
    type Answer = NodeView;
}

/// `node.list`
#[derive(Clone, Copy, Debug)]
pub struct ListNodes;

impl RequestType for ListNodes {
    const NAME: &'static str = "node.list";
    const PERMISSION: Permission = Permission::NodeRead;
    const KIND: RequestKind = RequestKind::Query;
    const SUMMARY: &'static str = "List nodes";
    const DESCRIPTION: &'static str = "One page, in the order of joining; `meta.next_cursor` selects the next.";
    type Body = PageRequest;
    type Answer = Vec<NodeView>;
}
