//! Who makes requests: what the services need to know of a user or node, by the key that the NATS server attests.

use std::collections::BTreeMap;

use crate::permission::{Grant, Permission, Role};
use crate::timestamp::Timestamp;
use crate::value::UserId;

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

/// Everybody who may make requests, and whose credentials were revoked. Changes with the events about users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Callers {
    by_key: BTreeMap<UserId, Caller>,
    revoked: BTreeMap<UserId, i64>,
}

/// Why nobody is known under a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    #[error("the control plane knows no user with the key `{0}`")]
    Unknown(UserId),
    #[error("the credential with the key `{0}` is revoked")]
    Revoked(UserId),
    #[error("the credential of user `{name}` expired at {at}")]
    Expired { name: String, at: Timestamp },
}

impl Caller {
    /// The resources that it has a permission for. A caller without the permission owns nothing by it.
    pub fn scope(&self, permission: Permission) -> RowScope {
        match self.role.grant(permission) {
            Grant::Any => RowScope::Any,
            Grant::Own | Grant::None => RowScope::Owner { id: self.id.clone(), role: self.role },
        }
    }
}

impl Callers {
    /// Returns who has a key, as of `now`. Without a clock, nobody whose credential expires.
    ///
    /// # Errors
    /// If nobody has it, or no longer.
    pub fn find(&self, key: &UserId, now: Option<Timestamp>) -> Result<Caller, CallerError> {
        let Some(caller) = self.by_key.get(key).cloned().or_else(|| built_in(key)) else {
            let key = key.clone();
            return Err(match self.revoked.get(&key) {
                Some(_) => CallerError::Revoked(key),
                None => CallerError::Unknown(key),
            });
        };
        match caller.expires_at {
            Some(at) if now.is_none_or(|now| now >= at) => Err(CallerError::Expired { name: caller.name, at }),
            Some(_) | None => Ok(caller),
        }
    }

    /// Adds a caller, or replaces the one with the same key.
    pub fn insert(&mut self, caller: Caller) {
        self.by_key.insert(caller.key.clone(), caller);
    }

    /// Removes the caller with a key.
    pub fn remove(&mut self, key: &UserId) {
        self.by_key.remove(key);
    }

    /// Revokes the credentials of a key that were issued up to a second (Unix time).
    pub fn revoke(&mut self, key: UserId, second: i64) {
        self.revoked.insert(key, second);
    }

    /// The revoked keys. Credentials of each that were issued up to this second (Unix time) are not valid; a key that
    /// has a caller again has one that was issued later.
    pub fn revoked(&self) -> &BTreeMap<UserId, i64> {
        &self.revoked
    }
}

/// The static users of the embedded NATS server, which share a role's credentials until each has its own.
pub const BUILT_IN: [(&str, Role); 2] = [("admin", Role::Admin), ("node", Role::Node)];

fn built_in(key: &UserId) -> Option<Caller> {
    let (_, role) = BUILT_IN.into_iter().find(|(name, _)| *name == key.as_str())?;
    Some(Caller { key: key.clone(), id: key.clone(), name: key.to_string(), role, expires_at: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000).unwrap()
    }

    fn caller(key: &str, expires_at: Option<Timestamp>) -> Caller {
        let (key, id) = (key.parse().unwrap(), "u-1".parse().unwrap());
        Caller { key, id, name: "alice".to_owned(), role: Role::Developer, expires_at }
    }

    #[test]
    fn says_why_nobody_has_a_key() {
        let mut callers = Callers::default();
        let key: UserId = "UKEY".parse().unwrap();
        assert_eq!(callers.find(&key, Some(at(5))), Err(CallerError::Unknown(key.clone())));
        callers.insert(caller("UKEY", Some(at(10))));
        assert_eq!(callers.find(&key, Some(at(9))).unwrap().name, "alice");
        let expired = Err(CallerError::Expired { name: "alice".to_owned(), at: at(10) });
        assert_eq!(callers.find(&key, Some(at(10))), expired);
        assert_eq!(callers.find(&key, None), expired, "without a clock, it may have expired");
        callers.remove(&key);
        callers.revoke(key.clone(), 7);
        assert_eq!(callers.find(&key, Some(at(9))), Err(CallerError::Revoked(key)));
    }

    #[test]
    fn permissions_are_for_any_or_own_resources() {
        let developer = caller("UKEY", None);
        let own = RowScope::Owner { id: developer.id.clone(), role: Role::Developer };
        assert_eq!(developer.scope(Permission::VmDelete), own);
        assert_eq!(Caller { role: Role::Operator, ..developer }.scope(Permission::VmDelete), RowScope::Any);
    }
}
