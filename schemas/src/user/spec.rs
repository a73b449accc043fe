//! A user's definition: as a client sent it ([`UserDraft`]) and validated ([`NewUser`]).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json_field::text;
use crate::permission::Role;
use crate::timestamp::Timestamp;
use crate::value::{UserKey, UserName};
use crate::violations::Violations;

/// A user as a client sends it, not yet validated. `name`, `role` and `key` are required.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct UserDraft {
    /// 1 to 255 characters, trimmed, without `/` and control characters, not of the form of a UUID; unique among the
    /// cluster's users, without regard to case.
    pub name: String,
    /// `admin`, `operator`, `developer` or `viewer`.
    pub role: String,
    /// The public key of the user's NATS credentials. The private key stays with the user.
    pub key: String,
    /// When its credential expires, an RFC 3339 time in the future (default: never).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// A validated user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    pub name: UserName,
    pub role: UserRole,
    pub key: UserKey,
    /// `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// A role that a user can have. Nodes have others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UserRole {
    /// Everything that people can do.
    Admin,
    /// Everything about VMs, and the maintenance of nodes.
    Operator,
    /// VMs of their own.
    Developer,
    /// Reading.
    Viewer,
}

/// A text that names no role of users.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be `admin`, `operator`, `developer` or `viewer`, not `{0}`")]
pub struct UserRoleError(String);

impl UserRole {
    pub const ALL: [Self; 4] = [Self::Admin, Self::Operator, Self::Developer, Self::Viewer];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        Role::from(self).as_str()
    }
}

impl From<UserRole> for Role {
    fn from(role: UserRole) -> Self {
        match role {
            UserRole::Admin => Self::Admin,
            UserRole::Operator => Self::Operator,
            UserRole::Developer => Self::Developer,
            UserRole::Viewer => Self::Viewer,
        }
    }
}

impl std::fmt::Display for UserRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for UserRole {
    type Err = UserRoleError;
    fn from_str(text: &str) -> Result<Self, UserRoleError> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UserRoleError(text.to_owned()))
    }
}

impl UserDraft {
    /// Reads a draft from a JSON object. An unknown field, or a value of the wrong type, is a violation; a missing
    /// field is left to [`UserDraft::check`].
    pub fn from_json(object: Map<String, Value>) -> (Self, Violations) {
        let mut violations = Violations::default();
        let mut draft = Self::default();
        for (field, value) in object.into_iter().filter(|(_, value)| !value.is_null()) {
            let v = &mut violations;
            match field.as_str() {
                "name" => draft.name = text(&field, value, v).unwrap_or_default(),
                "role" => draft.role = text(&field, value, v).unwrap_or_default(),
                "key" => draft.key = text(&field, value, v).unwrap_or_default(),
                "expires_at" => draft.expires_at = text(&field, value, v),
                _ => v.add(&field, "is not a field of a user"),
            }
        }
        (draft, violations)
    }

    /// Validates the draft.
    ///
    /// # Errors
    /// Every rule that the draft violates.
    pub fn check(&self) -> Result<NewUser, Violations> {
        let Self { name, role, key, expires_at } = self;
        let mut violations = Violations::default();
        let v = &mut violations;
        UserName::violations(name).for_each(|rule| v.add("name", rule));
        let name = UserName::parse(name).ok();
        let role = v.check("role", role.parse::<UserRole>());
        let key = v.check("key", UserKey::parse(key));
        let expires_at = expires_at.as_ref().and_then(|time| v.check("expires_at", time.parse()));
        match (name, role, key) {
            (Some(name), Some(role), Some(key)) if violations.is_empty() => Ok(NewUser { name, role, key, expires_at }),
            _ => Err(violations),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

    fn violations(user: Value) -> Vec<String> {
        let Value::Object(object) = user else { panic!("no object") };
        let (draft, violations) = UserDraft::from_json(object);
        let violations = violations.combine(draft.check()).err().unwrap_or_default();
        violations.iter().map(|(field, rule)| format!("{field}: {rule}")).collect()
    }

    #[test]
    fn reports_all_violations_together() {
        assert_eq!(violations(json!({"name": "alice", "role": "viewer", "key": KEY})), [""; 0]);
        let user = json!({"name": "a/b", "role": "node", "key": 7, "expires_at": "tomorrow", "seed": "SU"});
        let expected = [
            "expires_at: must be an RFC 3339 time, not `tomorrow`",
            "key: must be a string",
            "name: must not contain `/`",
            "role: must be `admin`, `operator`, `developer` or `viewer`, not `node`",
            "seed: is not a field of a user",
        ];
        assert_eq!(violations(user), expected);
    }
}
