//! The public key of the log, vouched for by the key that signs decisions.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signature;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decision_chain::{DecisionKey, DecisionSigner};

/// First line of what is signed.
const CONTEXT: &str = "otherix-log-key/v1";

/// The public key of a log, with the control plane's signature: nodes rely on it as they rely on the decision key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SignedLogKey {
    /// As a vkey of C2SP signed-note: name, id, type and key.
    pub key: String,
    /// Ed25519 signature in base64, by the cluster's decision key, of the lines `otherix-log-key/v1` and key, each
    /// ended by a line feed.
    pub signature: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key of the log is not signed with the cluster's decision key")]
pub struct LogKeyError;

impl SignedLogKey {
    fn text(key: &str) -> String {
        format!("{CONTEXT}\n{key}\n")
    }

    /// Signs the key of a log.
    pub fn new(key: String, signer: &DecisionSigner) -> Self {
        let signature = signer.sign(Self::text(&key).as_bytes());
        Self { key, signature: STANDARD.encode(signature.to_bytes()) }
    }

    /// Returns the key if it is signed with `key`.
    ///
    /// # Errors
    /// If it is not.
    pub fn verify(&self, key: &DecisionKey) -> Result<&str, LogKeyError> {
        let bytes = STANDARD.decode(&self.signature).map_err(|_| LogKeyError)?;
        let signature = Signature::from_slice(&bytes).map_err(|_| LogKeyError)?;
        if key.verifies(Self::text(&self.key).as_bytes(), &signature) { Ok(&self.key) } else { Err(LogKeyError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_decision_key_vouches() {
        let signer = DecisionSigner::from_seed(&[1; 32]);
        let signed = SignedLogKey::new("a+1+b".to_owned(), &signer);
        assert_eq!(signed.verify(&signer.public()), Ok("a+1+b"));
        assert_eq!(signed.verify(&DecisionSigner::from_seed(&[2; 32]).public()), Err(LogKeyError));
        let other = SignedLogKey { key: "a+1+c".to_owned(), ..signed.clone() };
        assert_eq!(other.verify(&signer.public()), Err(LogKeyError));
        let malformed = SignedLogKey { signature: "x".to_owned(), ..signed };
        assert_eq!(malformed.verify(&signer.public()), Err(LogKeyError));
    }
}
