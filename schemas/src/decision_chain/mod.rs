//! The chain of decisions, and the control plane's signatures of its head. A node carries out only decisions that a
//! signed head covers, whatever the messaging system between it and the control plane delivers. See docs/adr/0024.
//!
//! The digest of the chain after a decision is SHA-256 of the digest before it, followed by the decision's bytes as
//! they are stored. Outcomes and administrative events are not part of the chain.

mod head;
mod key;

use std::fmt::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use head::{DecisionHead, HeadError, Nonce, NonceError, SignedHead};
pub use key::{DecisionKey, DecisionKeyError, DecisionSigner, KeyRotation, RotationError};

/// The header of a live decision with the signed head of the chain after it, as JSON. Not every decision has one: a
/// head covers all decisions up to its position.
pub const SIGNED_HEAD: &str = "Otherix-Signed-Head";

/// The digest of the decisions up to a position: 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[0-9a-f]{64}$"))]
pub struct ChainDigest([u8; 32]);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 64 of `0-9 a-f`, not `{0}`")]
pub struct ChainDigestError(String);

impl ChainDigest {
    /// The digest before the first decision: 32 zero bytes.
    pub const START: Self = Self([0; 32]);

    /// Returns the digest after a decision that is stored as `body`.
    #[must_use]
    pub fn after(self, body: &[u8]) -> Self {
        Self(Sha256::new().chain_update(self.0).chain_update(body).finalize().into())
    }

    pub const fn bytes(self) -> [u8; 32] {
        self.0
    }
}

impl From<[u8; 32]> for ChainDigest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl Default for ChainDigest {
    fn default() -> Self {
        Self::START
    }
}

impl std::fmt::Display for ChainDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for ChainDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for ChainDigest {
    type Err = ChainDigestError;
    fn from_str(text: &str) -> Result<Self, ChainDigestError> {
        from_hex(text).map(Self).ok_or_else(|| ChainDigestError(text.to_owned()))
    }
}

/// The value of a lower-case hexadecimal digit.
fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// The bytes that exactly so many lower-case hexadecimal digits stand for.
fn from_hex<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    let digits = text.bytes().map(hex_digit).collect::<Option<Vec<u8>>>()?;
    let mut bytes = [0; LENGTH];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().fold(0, |value, digit| value << 4 | digit);
    }
    (digits.len() == 2 * LENGTH).then_some(bytes)
}

/// Bytes in lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a `String` cannot fail.
        let _never = write!(text, "{byte:02x}");
        text
    })
}

impl TryFrom<String> for ChainDigest {
    type Error = ChainDigestError;
    fn try_from(text: String) -> Result<Self, ChainDigestError> {
        text.parse()
    }
}

impl From<ChainDigest> for String {
    fn from(digest: ChainDigest) -> Self {
        hex(&digest.0)
    }
}

#[cfg(test)]
mod tests;
