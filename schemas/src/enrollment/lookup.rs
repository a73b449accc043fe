//! Requests that read join tokens and keys of nodes from the state that commands are decided on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{JoinTokenById, JoinTokenCredentialView, JoinTokenView, NewNodeKey, NodeCredentialView};
use crate::permission::Permission;
use crate::request::{Request, RequestKind, RequestType};

/// The requests that read join tokens and keys of nodes.
pub(crate) const LOOKUPS: &[Request] = &[
    Request::of::<ListJoinTokens>(),
    Request::of::<GetJoinTokenCredential>(),
    Request::of::<GetEnrolledNode>(),
    Request::of::<GetNodeCredential>(),
];

/// All join tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AllJoinTokens {}

/// `join-token.list`
#[derive(Clone, Copy, Debug)]
pub struct ListJoinTokens;

impl RequestType for ListJoinTokens {
    const NAME: &'static str = "join-token.list";
    const PERMISSION: Permission = Permission::NodeManage;
    const KIND: RequestKind = RequestKind::Lookup;
    const SUMMARY: &'static str = "List join tokens";
    const DESCRIPTION: &'static str = "In the order of creation, the last 1,000 at most. A token is forgotten when one \
        is created more than 30 days after it has expired.";
    type Body = AllJoinTokens;
    type Answer = Vec<JoinTokenView>;
}

/// `join-token.credential`
#[derive(Clone, Copy, Debug)]
pub struct GetJoinTokenCredential;

impl RequestType for GetJoinTokenCredential {
    const NAME: &'static str = "join-token.credential";
    const PERMISSION: Permission = Permission::NodeManage;
    const KIND: RequestKind = RequestKind::Lookup;
    const SUMMARY: &'static str = "Get the JWT of a join token's credential";
    const DESCRIPTION: &'static str = "It is of no use without the private key. `not_found` if the token does not \
        exist, has expired or is revoked.";
    type Body = JoinTokenById;
    type Answer = JoinTokenCredentialView;
}

/// `node.enrolled`
#[derive(Clone, Copy, Debug)]
pub struct GetEnrolledNode;

impl RequestType for GetEnrolledNode {
    const NAME: &'static str = "node.enrolled";
    const PERMISSION: Permission = Permission::NodeJoin;
    const KIND: RequestKind = RequestKind::Lookup;
    const SUMMARY: &'static str = "Get the JWT of a key that was registered by `node.enroll`";
    const DESCRIPTION: &'static str = "With the node's id, and the key that the control plane signs decisions with. \
        `not_found` if the key was not registered with this join token, or is revoked.";
    type Body = NewNodeKey;
    type Answer = NodeCredentialView;
}

/// `node.credential`
#[derive(Clone, Copy, Debug)]
pub struct GetNodeCredential;

impl RequestType for GetNodeCredential {
    const NAME: &'static str = "node.credential";
    const PERMISSION: Permission = Permission::NodeReport;
    const KIND: RequestKind = RequestKind::Lookup;
    const SUMMARY: &'static str = "Get the JWT of a key of the node that makes the request";
    const DESCRIPTION: &'static str = "Of its present key, or of one registered by `node.rotate-key`. `not_found` if \
        the node has no such key.";
    type Body = NewNodeKey;
    type Answer = NodeCredentialView;
}
