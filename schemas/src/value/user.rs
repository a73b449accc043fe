//! Who asks: the user that the NATS server attests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::string_value;

/// Longest user id, in bytes.
const MAX: usize = 64;

/// A user's id, as it stands in subjects: 1 to 64 of `A-Za-z0-9_-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct UserId(String);
string_value!(UserId, UserIdError);

/// Why a text is no user id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 of `A-Z a-z 0-9 _ -`")]
pub struct UserIdError;

impl UserId {
    /// Checks.
    ///
    /// # Errors
    /// When the text is no user id.
    pub fn parse(text: &str) -> Result<Self, UserIdError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if (1..=MAX).contains(&text.len()) && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(UserIdError)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_one_token_of_a_subject() {
        assert!(UserId::parse("admin").is_ok());
        for bad in ["", "a.b", "*", ">", "a b", "ä"] {
            assert_eq!(UserId::parse(bad), Err(UserIdError), "{bad}");
        }
    }
}
