//! Names of keys.

use std::fmt;
use std::str::FromStr;

/// The name of a key, by convention a URL without scheme. Not empty; no spaces, control characters or `+`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName(String);

/// The text is not the name of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a key must not be empty, and must have no spaces, control characters or `+`")]
pub struct KeyNameError;

impl KeyName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = KeyNameError;

    fn from_str(text: &str) -> Result<Self, KeyNameError> {
        let excluded = |character: char| character.is_whitespace() || character < ' ' || character == '+';
        if text.is_empty() || text.contains(excluded) { Err(KeyNameError) } else { Ok(Self(text.to_owned())) }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
