//! Users, as the NATS server attests them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use uuid::Uuid;

use super::string_value;
use super::user_key::UserKey;

/// Longest user id, in bytes.
const MAX: usize = 64;

/// Identifies a user or node in text: the key as a token of subjects and in the server's attestation, the UUID as the
/// `actor` of events. 1 to 64 of `A-Za-z0-9_-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[A-Za-z0-9_-]{1,64}$"))]
pub struct UserId(String);
string_value!(UserId, UserIdError);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 of `A-Z a-z 0-9 _ -`")]
pub struct UserIdError;

impl UserId {
    /// # Errors
    /// If the text is not a user id.
    pub fn parse(text: &str) -> Result<Self, UserIdError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if (1..=MAX).contains(&text.len()) && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(UserIdError)
        }
    }

    /// A UUID has the characters and the length of an id.
    pub(crate) fn of_uuid(uuid: Uuid) -> Self {
        Self(uuid.as_hyphenated().to_string())
    }
}

impl From<&UserKey> for UserId {
    /// A key has the characters and the length of an id.
    fn from(key: &UserKey) -> Self {
        Self(key.as_str().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_a_subject_token() {
        assert!(UserId::parse("admin").is_ok());
        for bad in ["", "a.b", "*", ">", "a b", "ä"] {
            assert_eq!(UserId::parse(bad), Err(UserIdError), "{bad}");
        }
    }
}
