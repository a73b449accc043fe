//! Events of users, and the shapes in which they are stored. None contains a secret.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::UserRole;
use crate::event::{Event, EventDeclaration, EventProvenance, EventVisitor, StreamId, same_shape};
use crate::id::UserUuid;
use crate::timestamp::Timestamp;
use crate::value::{UserKey, UserName};

/// Every stored shape of a user's events.
pub(crate) const EVENTS: &[EventDeclaration] = &[
    EventDeclaration::of::<UserCreatedV1>(),
    EventDeclaration::of::<UserRoleChangedV1>(),
    EventDeclaration::of::<UserKeyRotatedV1>(),
    EventDeclaration::of::<UserRevokedV1>(),
    EventDeclaration::of::<UserDeletedV1>(),
];

/// An event of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserEvent {
    Created(UserCreated),
    RoleChanged(UserRoleChanged),
    KeyRotated(UserKeyRotated),
    Revoked(UserRevoked),
    Deleted(UserDeleted),
}

impl UserEvent {
    pub(crate) fn accept<V: EventVisitor>(&self, visitor: V) -> V::Output {
        match self {
            Self::Created(event) => visitor.visit(event),
            Self::RoleChanged(event) => visitor.visit(event),
            Self::KeyRotated(event) => visitor.visit(event),
            Self::Revoked(event) => visitor.visit(event),
            Self::Deleted(event) => visitor.visit(event),
        }
    }
}

/// A user was created: its key may make the requests of its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserCreated {
    pub user_id: UserUuid,
    pub name: UserName,
    pub role: UserRole,
    pub key: UserKey,
    /// `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// A user has another role. Its credential for the earlier one is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRoleChanged {
    pub user_id: UserUuid,
    /// Repeated for consumers that see only this event, as in the other events.
    pub name: UserName,
    pub role: UserRole,
}

/// A user has another key. The credential for the earlier one is revoked; a revoked user is active again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserKeyRotated {
    pub user_id: UserUuid,
    pub name: UserName,
    pub key: UserKey,
    /// `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// A user's credential was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRevoked {
    pub user_id: UserUuid,
    pub name: UserName,
}

/// A user was deleted, and its credential revoked. Its name is free again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDeleted {
    pub user_id: UserUuid,
    pub name: UserName,
}

/// A user was created: its key may make the requests of its role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserCreatedV1 {
    pub user_id: UserUuid,
    /// Unique among the cluster's users, without regard to case.
    pub name: UserName,
    pub role: UserRole,
    /// Never registered before, and never again.
    pub key: UserKey,
    /// When the credential expires; null is never.
    pub expires_at: Option<Timestamp>,
}

/// A user has another role. Its credential for the earlier one is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserRoleChangedV1 {
    pub user_id: UserUuid,
    pub name: UserName,
    pub role: UserRole,
}

/// A user has another key. The credential for the earlier one is revoked; a revoked user is active again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserKeyRotatedV1 {
    pub user_id: UserUuid,
    pub name: UserName,
    /// Never registered before, and never again.
    pub key: UserKey,
    /// When the credential expires; null is never.
    pub expires_at: Option<Timestamp>,
}

/// A user's credential was revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserRevokedV1 {
    pub user_id: UserUuid,
    pub name: UserName,
}

/// A user was deleted, and its credential revoked. Its name is free again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserDeletedV1 {
    pub user_id: UserUuid,
    pub name: UserName,
}

/// Implements an event of a user.
macro_rules! user_event {
    (
        $event:ident, $variant:ident, $stored:ident { $($field:ident),* }, $type:literal, $summary:literal,
        $provenance:expr
    ) => {
        same_shape!(
            $event, $stored { $($field),* }, |event| StreamId::User(event.user_id),
            |event| Event::User(UserEvent::$variant(event)), Administration, $type, $summary, $provenance
        );
    };
}

user_event!(
    UserCreated,
    Created,
    UserCreatedV1 { user_id, name, role, key, expires_at },
    "dev.otherix.user.created.v1",
    "A user was created",
    EventProvenance {
        when: "A user is created; the first administrator by the first start of the control plane.",
        requests: &["user.create"],
        causes: &[]
    }
);
user_event!(
    UserRoleChanged,
    RoleChanged,
    UserRoleChangedV1 { user_id, name, role },
    "dev.otherix.user.role-changed.v1",
    "A user has another role",
    EventProvenance { when: "A user gets another role.", requests: &["user.set-role"], causes: &[] }
);
user_event!(
    UserKeyRotated,
    KeyRotated,
    UserKeyRotatedV1 { user_id, name, key, expires_at },
    "dev.otherix.user.key-rotated.v1",
    "A user has another key",
    EventProvenance { when: "A user gets another key.", requests: &["user.rotate"], causes: &[] }
);
user_event!(
    UserRevoked,
    Revoked,
    UserRevokedV1 { user_id, name },
    "dev.otherix.user.revoked.v1",
    "A user's credential was revoked",
    EventProvenance { when: "A user is revoked.", requests: &["user.revoke"], causes: &[] }
);
user_event!(
    UserDeleted,
    Deleted,
    UserDeletedV1 { user_id, name },
    "dev.otherix.user.deleted.v1",
    "A user was deleted",
    EventProvenance { when: "A user is deleted.", requests: &["user.delete"], causes: &[] }
);
