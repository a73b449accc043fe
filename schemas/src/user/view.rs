//! A user as queries return it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::UserRole;
use crate::id::UserUuid;
use crate::permission::Role;
use crate::position::Position;
use crate::timestamp::Timestamp;
use crate::value::{UserId, UserKey, UserName};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserView {
    pub id: UserUuid,
    pub name: UserName,
    pub role: UserRole,
    /// The public key of its credentials.
    pub key: UserKey,
    pub status: UserStatus,
    /// When its credential expires; null is never.
    pub expires_at: Option<Timestamp>,
    /// When its credential was revoked.
    pub revoked_at: Option<Timestamp>,
    /// The position of the last event about the user.
    pub generation: Position,
    pub created_at: Timestamp,
    /// The time of the last event about the user.
    pub updated_at: Timestamp,
    /// When it was deleted: in the answer to the deletion only.
    pub deleted_at: Option<Timestamp>,
}

/// Whether a user's credential is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UserStatus {
    Active,
    Expired,
    Revoked,
    Deleted,
}

impl UserStatus {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Deleted => "deleted",
        }
    }
}

impl UserView {
    /// The status as of `now` that follows from the times.
    pub fn status_at(&self, now: Timestamp) -> UserStatus {
        if self.deleted_at.is_some() {
            UserStatus::Deleted
        } else if self.revoked_at.is_some() {
            UserStatus::Revoked
        } else if self.expires_at.is_some_and(|at| at <= now) {
            UserStatus::Expired
        } else {
            UserStatus::Active
        }
    }
}

/// The user or node that makes a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallerView {
    /// The `actor` of the events that result from its requests.
    pub id: UserId,
    pub name: String,
    pub role: Role,
    /// The token of its subjects: the public key of its credentials.
    pub key: UserId,
    /// When its credential expires; null is never.
    pub expires_at: Option<Timestamp>,
    /// The permissions that its role has for any resource.
    pub permissions: Vec<String>,
    /// Those that it has for resources that the user owns.
    pub permissions_for_own: Vec<String>,
}

/// The public part of a user's credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CredentialView {
    pub id: UserUuid,
    pub name: UserName,
    pub role: UserRole,
    /// The public key that it is for.
    pub key: UserKey,
    /// When it expires; null is never.
    pub expires_at: Option<Timestamp>,
    /// The NATS user JWT.
    pub jwt: String,
    /// The one with which the same key reads the buckets of the state, in an account of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_jwt: Option<String>,
}
