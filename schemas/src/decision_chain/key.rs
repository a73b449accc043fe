//! The key with which the control plane signs heads: an Ed25519 key pair, which can be rotated.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// First line of what an old key signs to name its successor.
const ROTATION: &str = "otherix-decision-key/v1";

/// The public half: 32 bytes in padded base64.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[A-Za-z0-9+/]{43}=$"))]
pub struct DecisionKey([u8; 32]);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an Ed25519 public key, 44 characters of base64, not `{0}`")]
pub struct DecisionKeyError(String);

impl DecisionKey {
    /// Whether the signature is this key's. Signatures and keys with which several keys could agree are refused.
    pub(crate) fn verifies(&self, text: &[u8], signature: &Signature) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| key.verify_strict(text, signature).is_ok())
    }
}

impl std::fmt::Display for DecisionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&STANDARD.encode(self.0))
    }
}

impl std::fmt::Debug for DecisionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DecisionKey({self})")
    }
}

impl std::str::FromStr for DecisionKey {
    type Err = DecisionKeyError;
    fn from_str(text: &str) -> Result<Self, DecisionKeyError> {
        let error = || DecisionKeyError(text.to_owned());
        let bytes = STANDARD.decode(text).map_err(|_| error())?;
        let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| error())?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| error())?;
        if key.is_weak() { Err(error()) } else { Ok(Self(bytes)) }
    }
}

impl TryFrom<String> for DecisionKey {
    type Error = DecisionKeyError;
    fn try_from(text: String) -> Result<Self, DecisionKeyError> {
        text.parse()
    }
}

impl From<DecisionKey> for String {
    fn from(key: DecisionKey) -> Self {
        key.to_string()
    }
}

/// The secret half. It never leaves the control plane, and is wiped from memory when it is dropped.
pub struct DecisionSigner(SigningKey);

impl DecisionSigner {
    /// The key pair of 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The bytes that it was made from, to be stored.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    pub fn public(&self) -> DecisionKey {
        DecisionKey(self.0.verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, text: &[u8]) -> Signature {
        self.0.sign(text)
    }

    /// Names `new` as the key that replaces this one.
    pub fn succeeded_by(&self, new: DecisionKey) -> KeyRotation {
        let signature = self.sign(KeyRotation::text(&self.public(), &new).as_bytes());
        KeyRotation { old: self.public(), new, signature: STANDARD.encode(signature.to_bytes()) }
    }
}

impl std::fmt::Debug for DecisionSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DecisionSigner").field(&self.public()).finish()
    }
}

/// The replacement of a decision key, signed with the old one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyRotation {
    pub old: DecisionKey,
    pub new: DecisionKey,
    /// Ed25519 signature in base64, by the old key, of the lines `otherix-decision-key/v1`, old key and new key, each
    /// ended by a line feed.
    pub signature: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the old decision key {old} has not signed the new one {new}")]
pub struct RotationError {
    old: DecisionKey,
    new: DecisionKey,
}

impl KeyRotation {
    fn text(old: &DecisionKey, new: &DecisionKey) -> String {
        format!("{ROTATION}\n{old}\n{new}\n")
    }

    /// Returns the new key.
    ///
    /// # Errors
    /// If the old key has not signed it.
    pub fn verify(&self) -> Result<DecisionKey, RotationError> {
        let Self { old, new, signature } = self;
        let bytes = STANDARD.decode(signature).unwrap_or_default();
        let signed = Signature::from_slice(&bytes).is_ok_and(|it| old.verifies(Self::text(old, new).as_bytes(), &it));
        if signed { Ok(*new) } else { Err(RotationError { old: *old, new: *new }) }
    }
}
