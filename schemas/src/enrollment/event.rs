//! Events of join tokens and of nodes' keys, and the shapes in which they are stored. None contains a secret.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Event, EventDeclaration, EventProvenance, EventVisitor, StreamId, same_shape};
use crate::id::{JoinTokenId, NodeId};
use crate::timestamp::Timestamp;
use crate::value::{NodeName, UserKey};

/// Every stored shape of these events.
pub(crate) const EVENTS: &[EventDeclaration] = &[
    EventDeclaration::of::<JoinTokenCreatedV1>(),
    EventDeclaration::of::<JoinTokenRevokedV1>(),
    EventDeclaration::of::<NodeKeyRegisteredV1>(),
    EventDeclaration::of::<NodeKeyOfferedV1>(),
    EventDeclaration::of::<NodeKeyChangedV1>(),
    EventDeclaration::of::<NodeKeyRevokedV1>(),
];

/// An event of a join token, or of a node's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrollmentEvent {
    TokenCreated(JoinTokenCreated),
    TokenRevoked(JoinTokenRevoked),
    KeyRegistered(NodeKeyRegistered),
    KeyOffered(NodeKeyOffered),
    KeyChanged(NodeKeyChanged),
    KeyRevoked(NodeKeyRevoked),
}

impl EnrollmentEvent {
    pub(crate) fn accept<V: EventVisitor>(&self, visitor: V) -> V::Output {
        match self {
            Self::TokenCreated(event) => visitor.visit(event),
            Self::TokenRevoked(event) => visitor.visit(event),
            Self::KeyRegistered(event) => visitor.visit(event),
            Self::KeyOffered(event) => visitor.visit(event),
            Self::KeyChanged(event) => visitor.visit(event),
            Self::KeyRevoked(event) => visitor.visit(event),
        }
    }
}

/// A join token was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinTokenCreated {
    pub token_id: JoinTokenId,
    /// The only node that can be joined with it; `None`: any whose name is that of no node.
    pub node_name: Option<NodeName>,
    /// The key of the credential in it.
    pub key: UserKey,
    pub expires_at: Timestamp,
    /// How many times it can be redeemed.
    pub max_uses: u32,
}

/// A join token was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinTokenRevoked {
    pub token_id: JoinTokenId,
}

/// A machine has redeemed a join token: it may join as this node. Earlier keys of the node are revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeKeyRegistered {
    pub node_id: NodeId,
    pub name: NodeName,
    pub key: UserKey,
    pub token_id: JoinTokenId,
}

/// A node has made another key, which is valid beside the present one until the node uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeKeyOffered {
    pub node_id: NodeId,
    /// Repeated for consumers that see only this event, as in the other events.
    pub name: NodeName,
    pub key: UserKey,
}

/// A node uses another key: the one that it has offered, or one that was registered with a join token for a node that
/// existed. The one before is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeKeyChanged {
    pub node_id: NodeId,
    pub name: NodeName,
    pub key: UserKey,
}

/// The keys of a node were revoked: it was removed, or its join token was revoked before an agent joined with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeKeyRevoked {
    pub node_id: NodeId,
    pub name: NodeName,
}

/// A join token was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenCreatedV1 {
    pub token_id: JoinTokenId,
    /// The only node that can be joined with it; null: any whose name is that of no node.
    pub node_name: Option<NodeName>,
    /// The key of the credential in it. Not registered before, and not again before the token is forgotten.
    pub key: UserKey,
    pub expires_at: Timestamp,
    /// How many times it can be redeemed.
    pub max_uses: u32,
}

/// A join token was revoked: it cannot be redeemed any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenRevokedV1 {
    pub token_id: JoinTokenId,
}

/// A machine has redeemed a join token: it may join as this node. Earlier keys of the node are revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeKeyRegisteredV1 {
    pub node_id: NodeId,
    pub name: NodeName,
    /// Never registered before, and never again.
    pub key: UserKey,
    pub token_id: JoinTokenId,
}

/// A node has made another key, which is valid beside the present one until the node uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeKeyOfferedV1 {
    pub node_id: NodeId,
    pub name: NodeName,
    /// Never registered before, and never again.
    pub key: UserKey,
}

/// A node uses another key: the one that it has offered, or one that was registered with a join token for a node that
/// existed. The one before is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeKeyChangedV1 {
    pub node_id: NodeId,
    pub name: NodeName,
    pub key: UserKey,
}

/// The keys of a node were revoked: it was removed, or its join token was revoked before an agent joined with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeKeyRevokedV1 {
    pub node_id: NodeId,
    pub name: NodeName,
}

/// Implements an event of a join token.
macro_rules! token_event {
    (
        $event:ident, $variant:ident, $stored:ident { $($field:ident),* }, $type:literal, $summary:literal,
        $provenance:expr
    ) => {
        same_shape!(
            $event, $stored { $($field),* }, |event| StreamId::JoinToken(event.token_id),
            |event| Event::Enrollment(EnrollmentEvent::$variant(event)), Administration, $type, $summary, $provenance
        );
    };
}

/// Implements an event of a node's keys.
macro_rules! key_event {
    (
        $event:ident, $variant:ident, $stored:ident { $($field:ident),* }, $type:literal, $summary:literal,
        $provenance:expr
    ) => {
        same_shape!(
            $event, $stored { $($field),* }, |event| StreamId::NodeKey(event.node_id),
            |event| Event::Enrollment(EnrollmentEvent::$variant(event)), Administration, $type, $summary, $provenance
        );
    };
}

token_event!(
    JoinTokenCreated,
    TokenCreated,
    JoinTokenCreatedV1 { token_id, node_name, key, expires_at, max_uses },
    "dev.otherix.join-token.created.v1",
    "A join token was created",
    EventProvenance {
        when: "A join token is created.",
        requests: &["join-token.create"],
        causes: &["node-key.revoked"]
    }
);
token_event!(
    JoinTokenRevoked,
    TokenRevoked,
    JoinTokenRevokedV1 { token_id },
    "dev.otherix.join-token.revoked.v1",
    "A join token was revoked",
    EventProvenance { when: "A join token is revoked.", requests: &["join-token.revoke"], causes: &[] }
);
key_event!(
    NodeKeyRegistered,
    KeyRegistered,
    NodeKeyRegisteredV1 { node_id, name, key, token_id },
    "dev.otherix.node-key.registered.v1",
    "A machine has redeemed a join token, and may join as a node",
    EventProvenance { when: "A machine redeems a join token.", requests: &["node.enroll"], causes: &[] }
);
key_event!(
    NodeKeyOffered,
    KeyOffered,
    NodeKeyOfferedV1 { node_id, name, key },
    "dev.otherix.node-key.offered.v1",
    "A node has made another key",
    EventProvenance {
        when: "An agent has made another key for its node.",
        requests: &["node.rotate-key"],
        causes: &[]
    }
);
key_event!(
    NodeKeyChanged,
    KeyChanged,
    NodeKeyChangedV1 { node_id, name, key },
    "dev.otherix.node-key.changed.v1",
    "A node uses its other key",
    EventProvenance {
        when: "An agent joins with the other key of its node for the first time.",
        requests: &["node.join"],
        causes: &["node.changed", "node.joined", "node.reachable"]
    }
);
key_event!(
    NodeKeyRevoked,
    KeyRevoked,
    NodeKeyRevokedV1 { node_id, name },
    "dev.otherix.node-key.revoked.v1",
    "The keys of a node were revoked",
    EventProvenance {
        when: "A node is removed, or its join token is revoked before an agent joined with it. What was redeemed \
            with a token that is forgotten, and never used, is revoked when the next token is created.",
        requests: &["join-token.create", "join-token.revoke", "node.delete"],
        causes: &["join-token.revoked", "node-key.revoked", "node.removed"]
    }
);
