//! What a JWT says about a user: its permissions, or that they are those of the key that signed it.

use serde::{Deserialize, Serialize};

use super::{Body, UNLIMITED};
use crate::key::{KeyKind, PublicKey};

/// Subjects, with wildcards. An empty `allow` allows every subject that is not denied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectPermissions {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
}

/// What a user may publish and subscribe to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    #[serde(rename = "pub", default)]
    pub publish: SubjectPermissions,
    #[serde(rename = "sub", default)]
    pub subscribe: SubjectPermissions,
}

/// How a user may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConnectionKind {
    Standard,
    Websocket,
    Leafnode,
    LeafnodeWs,
    Mqtt,
    MqttWs,
    InProcess,
}

/// Limits of a user; -1 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserLimits {
    /// Subscriptions.
    pub subs: i64,
    /// Bytes.
    pub data: i64,
    /// Bytes of a message.
    pub payload: i64,
}

impl UserLimits {
    /// No limits but the server's.
    pub const NONE: Self = Self { subs: UNLIMITED, data: UNLIMITED, payload: UNLIMITED };
}

/// A user of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its own permissions; `None` for those of the signing key that signed it.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<UserPermissions>,
    /// The account, if one of its signing keys signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_account: Option<PublicKey>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// Permissions and limits: of a user, or of all users that a signing key signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPermissions {
    #[serde(flatten)]
    pub subjects: Permissions,
    #[serde(flatten)]
    pub limits: UserLimits,
    /// Every kind, if it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_connection_types: Vec<ConnectionKind>,
}

impl User {
    /// A user with the permissions of the signing key of `account` that signs it.
    pub fn scoped(account: &PublicKey) -> Self {
        Self { permissions: None, issuer_account: Some(account.clone()), tags: Vec::new() }
    }

    /// A user with permissions of its own, which the account's own key or an unscoped signing key signs.
    pub fn with_permissions(account: &PublicKey, permissions: UserPermissions) -> Self {
        Self { permissions: Some(permissions), ..Self::scoped(account) }
    }
}

impl Body for User {
    const TYPE: &'static str = "user";
    const SUBJECT: KeyKind = KeyKind::User;
    const ISSUER: KeyKind = KeyKind::Account;
}
