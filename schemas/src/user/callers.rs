//! Who makes requests: the registry of users, join tokens and nodes by the key that the NATS server attests, a function
//! of the events about them. The write side decides on it, and the services admit requests by it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    UserCreated, UserDeleted, UserEvent, UserKeyRotated, UserRevoked, UserRole, UserRoleChanged, UserStatus, UserView,
};
use crate::cloudevent::{EventEnvelope, Header};
use crate::enrollment::Enrollments;
use crate::event::Event;
use crate::id::{JoinTokenId, NodeId, UserUuid};
use crate::node::{NodeEvent, NodeJoined};
use crate::permission::{Grant, Permission, Role};
use crate::position::Position;
use crate::timestamp::Timestamp;
use crate::value::{UserId, UserKey, UserName};

/// A user or node that may make requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The public key of its NATS user: the token of its subjects.
    pub key: UserId,
    /// Its id: the `actor` of the events that result from its requests.
    pub id: UserId,
    /// Its name: their `actorname`.
    pub name: String,
    pub role: Role,
    /// When its credential expires; `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// Which resources a permission is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowScope {
    /// Any.
    Any,
    /// Those that this user, who has this role, owns.
    Owner { id: UserId, role: Role },
}

/// A user that is not deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredUser {
    pub name: UserName,
    pub role: UserRole,
    pub key: UserKey,
    /// When its credential expires; `None`: never.
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// Credentials of the user that were issued up to this second (Unix time) are not valid. Later than that of every
    /// earlier state of the user, even within one second.
    pub valid_after: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Position and stream version of its last event.
    pub generation: Position,
    pub version: u32,
}

/// A key whose credentials are revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedKey {
    /// Those that were issued up to this second (Unix time) are not valid.
    pub valid_after: i64,
    /// When all of them have expired; `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// Everybody who may make requests, and the keys that were revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SavedCallers")]
pub struct Callers {
    users: BTreeMap<UserUuid, RegisteredUser>,
    revoked: BTreeMap<UserId, RevokedKey>,
    enrollments: Enrollments,
    #[serde(skip_serializing)]
    by_key: BTreeMap<UserId, UserUuid>,
}

/// What a state snapshot holds of [`Callers`].
#[derive(Deserialize)]
struct SavedCallers {
    users: BTreeMap<UserUuid, RegisteredUser>,
    revoked: BTreeMap<UserId, RevokedKey>,
    enrollments: Enrollments,
}

impl From<SavedCallers> for Callers {
    fn from(SavedCallers { users, revoked, enrollments }: SavedCallers) -> Self {
        Self { revoked, enrollments, ..users.into_iter().collect() }
    }
}

/// The registry of these users, without the keys that were revoked.
impl FromIterator<(UserUuid, RegisteredUser)> for Callers {
    fn from_iter<T: IntoIterator<Item = (UserUuid, RegisteredUser)>>(users: T) -> Self {
        let users: BTreeMap<UserUuid, RegisteredUser> = users.into_iter().collect();
        let by_key = users.iter().map(|(id, user)| ((&user.key).into(), *id)).collect();
        Self { users, by_key, ..Self::default() }
    }
}

/// Why nobody may make requests with a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    #[error("the control plane knows no user with the key `{0}`")]
    Unknown(UserId),
    #[error("the credential with the key `{0}` is revoked")]
    Revoked(UserId),
    #[error("the credential of user `{name}` expired at {at}")]
    Expired { name: String, at: Timestamp },
    #[error("the join token `{0}` is revoked: create another with `otherix node join-token create`")]
    TokenRevoked(JoinTokenId),
    #[error("the join token `{id}` expired at {at}: create another with `otherix node join-token create`")]
    TokenExpired { id: JoinTokenId, at: Timestamp },
}

impl Caller {
    /// The node that it is, if it is one.
    pub fn node_id(&self) -> Option<NodeId> {
        match self.role {
            Role::Node => self.id.as_str().parse().ok(),
            Role::Admin | Role::Operator | Role::Developer | Role::Viewer | Role::NodeJoin => None,
        }
    }

    /// The resources that it has a permission for. A caller without the permission owns nothing by it.
    pub fn scope(&self, permission: Permission) -> RowScope {
        match self.role.grant(permission) {
            Grant::Any => RowScope::Any,
            Grant::Own | Grant::None => RowScope::Owner { id: self.id.clone(), role: self.role },
        }
    }
}

impl RegisteredUser {
    /// Whether its credential is valid as of `now`.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| at > now)
    }

    /// The user as queries return it.
    pub fn view(&self, id: UserUuid, now: Timestamp) -> UserView {
        let Self {
            name,
            role,
            key,
            expires_at,
            revoked_at,
            valid_after: _,
            created_at,
            updated_at,
            generation,
            version: _,
        } = self.clone();
        let view = UserView {
            id,
            name,
            role,
            key,
            status: UserStatus::Active,
            expires_at,
            revoked_at,
            generation,
            created_at,
            updated_at,
            deleted_at: None,
        };
        UserView { status: view.status_at(now), ..view }
    }
}

impl Callers {
    /// Returns who may make requests with a key, as of `now`. Without a clock, nobody whose credential expires.
    ///
    /// # Errors
    /// If nobody may, or no longer.
    pub fn find(&self, key: &UserId, now: Option<Timestamp>) -> Result<Caller, CallerError> {
        let user = self.by_key.get(key).and_then(|id| Some((id, self.users.get(id)?)));
        let Some((id, user)) = user else {
            if self.revoked.contains_key(key) {
                return Err(CallerError::Revoked(key.clone()));
            }
            if let Some(caller) = self.enrollments.find(key, now)? {
                return Ok(caller);
            }
            return Err(CallerError::Unknown(key.clone()));
        };
        if user.revoked_at.is_some() {
            return Err(CallerError::Revoked(key.clone()));
        }
        match user.expires_at {
            Some(at) if now.is_none_or(|now| now >= at) => {
                Err(CallerError::Expired { name: user.name.to_string(), at })
            }
            expires_at => {
                let (name, role) = (user.name.to_string(), user.role.into());
                Ok(Caller { key: key.clone(), id: (*id).into(), name, role, expires_at })
            }
        }
    }

    /// The users that are not deleted.
    pub fn users(&self) -> &BTreeMap<UserUuid, RegisteredUser> {
        &self.users
    }

    /// Whether a key was ever registered.
    pub fn was_registered(&self, key: &UserKey) -> bool {
        self.knows(&UserId::from(key))
    }

    /// Whether this is the key of a user, node or join token, or was.
    pub fn knows(&self, key: &UserId) -> bool {
        self.by_key.contains_key(key) || self.revoked.contains_key(key) || self.enrollments.was_registered(key)
    }

    /// Join tokens, and the keys of nodes.
    pub fn enrollments(&self) -> &Enrollments {
        &self.enrollments
    }

    /// The keys of users with revoked credentials. They stay when these have expired: no key is registered again. A
    /// user whose role was changed has a credential for the same key that was issued later.
    pub fn revoked(&self) -> &BTreeMap<UserId, RevokedKey> {
        &self.revoked
    }

    /// Whether an event changes the registry.
    pub fn is_changed_by(event: &Event) -> bool {
        match event {
            Event::User(_) | Event::Enrollment(_) => true,
            Event::Node(event) => matches!(event, NodeEvent::Joined(_)),
            Event::Network(_) | Event::Vm(_) | Event::Nic(_) | Event::Cluster(_) => false,
        }
    }

    /// Applies an event. Those that do not change the registry are ignored.
    pub fn evolve(&mut self, EventEnvelope { header, event }: &EventEnvelope) {
        match event {
            Event::User(event) => self.apply(header, event),
            Event::Enrollment(event) => self.enrollments.apply(header, event),
            Event::Node(NodeEvent::Joined(NodeJoined { node_id, name: _ })) => self.enrollments.joined(*node_id),
            Event::Network(_) | Event::Vm(_) | Event::Nic(_) | Event::Node(_) | Event::Cluster(_) => {}
        }
    }

    /// Applies an event of a user.
    pub fn apply(&mut self, header: &Header, event: &UserEvent) {
        match event {
            UserEvent::Created(event) => self.create(header, event),
            UserEvent::RoleChanged(UserRoleChanged { user_id, name: _, role }) => {
                self.revoke(header, *user_id, |user| user.role = *role);
            }
            UserEvent::KeyRotated(UserKeyRotated { user_id, name: _, key, expires_at }) => {
                self.revoke(header, *user_id, |user| {
                    user.key = key.clone();
                    user.expires_at = *expires_at;
                    user.revoked_at = None;
                });
            }
            UserEvent::Revoked(UserRevoked { user_id, name: _ }) => {
                self.revoke(header, *user_id, |user| user.revoked_at = Some(header.time));
            }
            UserEvent::Deleted(UserDeleted { user_id, name: _ }) => {
                self.revoke(header, *user_id, |_| {});
                if let Some(user) = self.users.remove(user_id) {
                    self.by_key.remove(&UserId::from(&user.key));
                }
            }
        }
    }

    fn create(&mut self, header: &Header, event: &UserCreated) {
        let UserCreated { user_id, name, role, key, expires_at } = event.clone();
        self.by_key.insert((&key).into(), user_id);
        let user = RegisteredUser {
            name,
            role,
            key,
            expires_at,
            revoked_at: None,
            valid_after: second(header.time) - 1,
            created_at: header.time,
            updated_at: header.time,
            generation: header.position,
            version: header.stream_version,
        };
        self.users.insert(user_id, user);
    }

    /// Revokes the user's credential, and changes the user.
    fn revoke(&mut self, header: &Header, id: UserUuid, change: impl FnOnce(&mut RegisteredUser)) {
        let Some(user) = self.users.get_mut(&id) else { return };
        // The one for the present state was issued at `valid_after + 1`.
        user.valid_after = second(header.time).max(user.valid_after + 1);
        let earlier = UserId::from(&user.key);
        let revoked = RevokedKey { valid_after: user.valid_after, expires_at: user.expires_at };
        self.revoked.insert(earlier.clone(), revoked);
        change(user);
        (user.updated_at, user.generation, user.version) = (header.time, header.position, header.stream_version);
        self.by_key.remove(&earlier);
        self.by_key.insert((&user.key).into(), id);
    }
}

/// The Unix time in seconds, rounded down.
fn second(time: Timestamp) -> i64 {
    time.unix_micros().div_euclid(1_000_000)
}

#[cfg(test)]
#[path = "callers_tests.rs"]
mod tests;
