//! The head of the chain, and its signature.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signature;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ChainDigest, DecisionKey, DecisionSigner, from_hex, hex};
use crate::id::ClusterId;
use crate::position::{Epoch, Position};

/// First line of what is signed, so that a signature of anything else is never taken for one of a head.
const CONTEXT: &str = "otherix-decision-head/v1";

/// The state of the chain after a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DecisionHead {
    pub cluster: ClusterId,
    /// The current epoch of the control plane.
    pub epoch: Epoch,
    /// The position of the last decision; 0 before the first.
    pub position: Position,
    /// The digest of the chain up to it.
    pub digest: ChainDigest,
}

/// A random number of a node's heartbeat, which the signature in the answer covers, so that no earlier answer can be
/// used in its place: 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[0-9a-f]{32}$"))]
pub struct Nonce([u8; 16]);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 32 of `0-9 a-f`, not `{0}`")]
pub struct NonceError(String);

impl Nonce {
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl TryFrom<String> for Nonce {
    type Error = NonceError;
    fn try_from(text: String) -> Result<Self, NonceError> {
        from_hex(&text).map(Self).ok_or(NonceError(text))
    }
}

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> Self {
        hex(&nonce.0)
    }
}

/// A head with the control plane's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SignedHead {
    #[serde(flatten)]
    pub head: DecisionHead,
    /// Ed25519 signature in base64 (88 characters), by the cluster's decision key, of the lines
    /// `otherix-decision-head/v1`, cluster, epoch, position, digest, and the heartbeat's nonce or an empty line, each
    /// ended by a line feed.
    pub signature: String,
}

/// A signed head cannot be relied on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("the signature has no valid form")]
    Form,
    #[error("the signature is not that of the cluster's decision key")]
    Signature,
}

impl DecisionHead {
    fn text(&self, nonce: Option<Nonce>) -> String {
        let nonce = nonce.map(String::from).unwrap_or_default();
        let Self { cluster, epoch, position, digest } = self;
        format!("{CONTEXT}\n{cluster}\n{epoch}\n{position}\n{digest}\n{nonce}\n")
    }

    /// Signs the head. `nonce` is that of the heartbeat that is answered.
    pub fn sign(self, signer: &DecisionSigner, nonce: Option<Nonce>) -> SignedHead {
        let signature = signer.sign(self.text(nonce).as_bytes());
        SignedHead { head: self, signature: STANDARD.encode(signature.to_bytes()) }
    }
}

impl SignedHead {
    /// Returns the head if it is signed with `key`; `nonce` is that of the heartbeat that was answered.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn verify(&self, key: &DecisionKey, nonce: Option<Nonce>) -> Result<DecisionHead, HeadError> {
        let bytes = STANDARD.decode(&self.signature).map_err(|_| HeadError::Form)?;
        let signature = Signature::from_slice(&bytes).map_err(|_| HeadError::Form)?;
        if key.verifies(self.head.text(nonce).as_bytes(), &signature) {
            Ok(self.head)
        } else {
            Err(HeadError::Signature)
        }
    }
}
