//! WireGuard public keys of nodes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A WireGuard public key: 32 bytes, not all zero (WireGuard's "no key"), in padded base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"))]
pub struct MeshPublicKey([u8; 32]);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeshPublicKeyError {
    #[error("must be a WireGuard public key, 44 characters of base64, not `{0}`")]
    Syntax(String),
    #[error("must not be all zeros, which stands for no key")]
    Zero,
}

impl MeshPublicKey {
    pub const fn bytes(self) -> [u8; 32] {
        self.0
    }
}

impl TryFrom<[u8; 32]> for MeshPublicKey {
    type Error = MeshPublicKeyError;
    fn try_from(bytes: [u8; 32]) -> Result<Self, MeshPublicKeyError> {
        if bytes == [0; 32] { Err(MeshPublicKeyError::Zero) } else { Ok(Self(bytes)) }
    }
}

impl std::fmt::Display for MeshPublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&STANDARD.encode(self.0))
    }
}

impl std::str::FromStr for MeshPublicKey {
    type Err = MeshPublicKeyError;
    fn from_str(text: &str) -> Result<Self, MeshPublicKeyError> {
        let syntax = || MeshPublicKeyError::Syntax(text.to_owned());
        let bytes = STANDARD.decode(text).map_err(|_| syntax())?;
        <[u8; 32]>::try_from(bytes).map_err(|_| syntax())?.try_into()
    }
}

impl TryFrom<String> for MeshPublicKey {
    type Error = MeshPublicKeyError;
    fn try_from(text: String) -> Result<Self, MeshPublicKeyError> {
        text.parse()
    }
}

impl From<MeshPublicKey> for String {
    fn from(key: MeshPublicKey) -> Self {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The output of `wg pubkey` for the private key of bytes 0 to 31.
    const KNOWN: &str = "j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8=";

    #[test]
    fn text_is_that_of_wireguard() {
        let key: MeshPublicKey = KNOWN.parse().unwrap();
        // X25519 (RFC 7748) of the same private key.
        assert_eq!(key.bytes()[..8], [0x8f, 0x40, 0xc5, 0xad, 0xb6, 0x8f, 0x25, 0x62]);
        assert_eq!(key.to_string(), KNOWN);
        assert_eq!(serde_json::from_str::<MeshPublicKey>(&format!("\"{KNOWN}\"")).unwrap(), key);
        assert_eq!(
            MeshPublicKey::try_from([0xff; 32]).unwrap().to_string(),
            "//////////////////////////////////////////8="
        );
    }

    #[test]
    fn rejects_malformed_and_zero_keys() {
        for bad in [
            "",
            "=",
            "j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8",
            "j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF9=",
            "j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4K===",
            "j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8=\n",
            "j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4-F8=",
            "jj0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8=",
            "ä0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8=",
        ] {
            assert_eq!(bad.parse::<MeshPublicKey>(), Err(MeshPublicKeyError::Syntax(bad.to_owned())));
        }
        assert_eq!(
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse::<MeshPublicKey>(),
            Err(MeshPublicKeyError::Zero)
        );
        assert_eq!(MeshPublicKey::try_from([0; 32]), Err(MeshPublicKeyError::Zero));
    }

    proptest! {
        #[test]
        fn text_and_bytes_round_trip(bytes: [u8; 32]) {
            prop_assume!(bytes != [0; 32]);
            let key = MeshPublicKey::try_from(bytes).unwrap();
            let text = key.to_string();
            prop_assert_eq!((text.len(), key.bytes()), (44, bytes));
            prop_assert_eq!(text.parse::<MeshPublicKey>(), Ok(key));
        }

        #[test]
        fn text_has_one_form(text in "[A-Za-z0-9+/]{43}=") {
            if let Ok(key) = text.parse::<MeshPublicKey>() {
                prop_assert_eq!(key.to_string(), text);
            }
        }
    }
}
