//! Digests of images.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::string_value;

/// Hexadecimal digits of a SHA-256.
const DIGITS: usize = 64;

/// The SHA-256 of an image's file, in 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[0-9a-f]{64}$"))]
pub struct ImageDigest(String);
string_value!(ImageDigest, ImageDigestError);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a SHA-256: 64 hexadecimal digits")]
pub struct ImageDigestError;

impl ImageDigest {
    /// Upper-case digits become lower-case.
    ///
    /// # Errors
    /// If the text is not 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, ImageDigestError> {
        let is_digest = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_digest.then(|| Self(text.to_ascii_lowercase())).ok_or(ImageDigestError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_64_digits_are_a_digest() {
        let digest = "0A".repeat(32);
        assert_eq!(ImageDigest::parse(&digest).unwrap().as_str(), "0a".repeat(32));
        for bad in ["", "0a", &"0a".repeat(33), &format!("{}é", "0".repeat(62)), &format!("{}g", "0".repeat(63))] {
            assert_eq!(ImageDigest::parse(bad), Err(ImageDigestError), "{bad}");
        }
    }
}
