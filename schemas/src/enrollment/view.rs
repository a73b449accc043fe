//! Join tokens and keys of nodes, as answers contain them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decision_chain::DecisionKey;
use crate::id::{ClusterId, JoinTokenId, NodeId};
use crate::timestamp::Timestamp;
use crate::value::{NodeName, UserKey};

/// A join token. It does not contain the token itself, which nobody but its creator has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JoinTokenView {
    pub id: JoinTokenId,
    /// The only node that can be joined with it; null: any whose name is that of no node.
    pub node_name: Option<NodeName>,
    /// The public key of the credential in it.
    pub key: UserKey,
    pub status: JoinTokenStatus,
    pub max_uses: u32,
    /// How many times it was redeemed.
    pub uses: u32,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

/// Whether a join token can be redeemed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JoinTokenStatus {
    /// It can.
    Active,
    /// It was redeemed as often as it can be.
    UsedUp,
    Expired,
    Revoked,
}

impl JoinTokenStatus {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::UsedUp => "used-up",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// The JWT of the credential in a join token, and what else the token contains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JoinTokenCredentialView {
    pub id: JoinTokenId,
    pub jwt: String,
    /// The key that the control plane signs decisions with.
    pub decision_key: DecisionKey,
}

/// A registered key of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeKeyView {
    pub node_id: NodeId,
    pub name: NodeName,
    pub key: UserKey,
}

/// The JWT of a node's key, and what the node needs to know of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeCredentialView {
    pub cluster: ClusterId,
    pub node_id: NodeId,
    pub name: NodeName,
    pub key: UserKey,
    pub jwt: String,
    /// The key that the control plane signs decisions with.
    pub decision_key: DecisionKey,
}
