//! Commands on join tokens, and on the keys of nodes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{JoinTokenView, NodeKeyView};
use crate::command::{Command, CommandInputs};
use crate::error::{ErrorBody, ErrorCode};
use crate::id::{JoinTokenId, NodeId};
use crate::permission::Permission;
use crate::request::{Request, RequestKind, RequestType, parse_body};
use crate::timestamp::Timestamp;
use crate::value::{NodeName, UserKey};
use crate::violations::Violations;

/// The requests that change join tokens and nodes' keys.
pub(crate) const COMMANDS: &[Request] = &[
    Request::of::<CreateJoinToken>(),
    Request::of::<RevokeJoinToken>(),
    Request::of::<EnrollNode>(),
    Request::of::<RotateNodeKey>(),
];

/// Most machines that can be joined with one token: a rack or two, or a mistyped number.
pub const MAX_USES_MAX: u32 = 10_000;

/// A command on a join token, or on a node's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrollmentCommand {
    CreateToken {
        /// Generated for the request.
        token_id: JoinTokenId,
        token: NewJoinToken,
    },
    RevokeToken {
        token_id: JoinTokenId,
    },
    /// Register the key of a machine that has a join token.
    Enroll {
        /// Of the caller.
        token_id: JoinTokenId,
        /// The id of a new node, unless the machine has one. Generated for the request.
        new_id: NodeId,
        node: NodeToEnroll,
    },
    /// Make another key of a node valid beside its present one.
    OfferKey {
        /// The caller.
        node_id: NodeId,
        key: UserKey,
    },
}

/// A join token that is to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewJoinToken {
    /// The only node that can be joined with it, which may exist: then it gets another key (default: any whose name is
    /// that of no node).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<NodeName>,
    /// The public key of the credential in it. The private key is part of the token, which is not sent.
    pub key: UserKey,
    /// An RFC 3339 time in the future, within 366 days.
    pub expires_at: Timestamp,
    /// How many times it can be redeemed, 1 to 10,000.
    pub max_uses: u32,
}

/// A machine that asks to join as a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeToEnroll {
    /// Unique among the cluster's nodes, without regard to case.
    pub name: NodeName,
    /// The public key of its NATS user. The private key never leaves the machine.
    pub key: UserKey,
    /// The id in the machine's state folder (default: none yet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
}

/// Selects a join token by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenById {
    pub id: JoinTokenId,
}

/// Another key of the node that makes the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNodeKey {
    pub key: UserKey,
}

/// `join-token.create`
#[derive(Clone, Copy, Debug)]
pub struct CreateJoinToken;

impl RequestType for CreateJoinToken {
    const NAME: &'static str = "join-token.create";
    const PERMISSION: Permission = Permission::NodeManage;
    const KIND: RequestKind = RequestKind::Command(create);
    const SUMMARY: &'static str = "Create a join token";
    const DESCRIPTION: &'static str = "Registers the public key of a credential with which machines can join as nodes, \
        and nothing else. The key pair is made where the token is made; `join-token.credential` returns the JWT that \
        belongs to it. `conflict` if the key was ever registered, or 1,000 tokens are active.";
    type Body = NewJoinToken;
    type Answer = JoinTokenView;
}

fn create(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let token: NewJoinToken = parse_body(body)?;
    if !(1..=MAX_USES_MAX).contains(&token.max_uses) {
        let text = format!("must be 1 to {MAX_USES_MAX}, not {}", token.max_uses);
        return Err(Violations::one("max_uses", text).into());
    }
    let token_id = JoinTokenId::new(inputs.generated.resource);
    Ok(Command::Enrollment(EnrollmentCommand::CreateToken { token_id, token }))
}

/// `join-token.revoke`
#[derive(Clone, Copy, Debug)]
pub struct RevokeJoinToken;

impl RequestType for RevokeJoinToken {
    const NAME: &'static str = "join-token.revoke";
    const PERMISSION: Permission = Permission::NodeManage;
    const KIND: RequestKind = RequestKind::Command(revoke);
    const SUMMARY: &'static str = "Revoke a join token";
    const DESCRIPTION: &'static str = "It cannot be redeemed any more. Keys that were registered with it and that no \
        node has joined with since are revoked, too: a node that existed then has none, until it is joined again with \
        another token that names it. Nodes that have joined with it stay.";
    type Body = JoinTokenById;
    type Answer = JoinTokenView;
}

fn revoke(body: &[u8], _: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let JoinTokenById { id } = parse_body(body)?;
    Ok(Command::Enrollment(EnrollmentCommand::RevokeToken { token_id: id }))
}

/// `node.enroll`
#[derive(Clone, Copy, Debug)]
pub struct EnrollNode;

impl RequestType for EnrollNode {
    const NAME: &'static str = "node.enroll";
    const PERMISSION: Permission = Permission::NodeJoin;
    const KIND: RequestKind = RequestKind::Command(enroll);
    const SUMMARY: &'static str = "Redeem a join token";
    const DESCRIPTION: &'static str = "Registers the key of a machine, which may then join as the node. Repeated with \
        the same key, it changes nothing. `node.enrolled` returns the JWT that belongs to the key. `conflict` if the \
        token is used up, or names another node; if the key was ever registered; if the name is \
        that of a node and the token does not name it; if the machine's id is that of another node.";
    type Body = NodeToEnroll;
    type Answer = NodeKeyView;
}

fn enroll(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let node: NodeToEnroll = parse_body(body)?;
    let token_id = inputs.caller.id.as_str().parse().map_err(|_| not_the_caller("a join token"))?;
    let new_id = NodeId::new(inputs.generated.resource);
    Ok(Command::Enrollment(EnrollmentCommand::Enroll { token_id, new_id, node }))
}

/// `node.rotate-key`
#[derive(Clone, Copy, Debug)]
pub struct RotateNodeKey;

impl RequestType for RotateNodeKey {
    const NAME: &'static str = "node.rotate-key";
    const PERMISSION: Permission = Permission::NodeReport;
    const KIND: RequestKind = RequestKind::Command(rotate);
    const SUMMARY: &'static str = "Register another key of a node";
    const DESCRIPTION: &'static str = "Sent by the node. The key is valid beside the present one until the node joins \
        with it, which revokes the present one; `node.credential` returns the JWT that belongs to it. A key that was \
        registered so before and not used is revoked. Repeated with the same key, it changes nothing. `conflict` if \
        the key was ever registered. `unavailable` within ten minutes after another key.";
    type Body = NewNodeKey;
    type Answer = NodeKeyView;
}

fn rotate(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let NewNodeKey { key } = parse_body(body)?;
    let node_id = inputs.caller.node_id().ok_or_else(|| not_the_caller("a node"))?;
    Ok(Command::Enrollment(EnrollmentCommand::OfferKey { node_id, key }))
}

fn not_the_caller(what: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::PermissionDenied, format!("only {what} makes this request for itself"))
}
