//! Public keys of nodes in the mesh, as WireGuard has and writes them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The alphabet of base64 (RFC 4648, section 4).
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A Curve25519 public key of 32 bytes, written in base64 with padding: 44 characters, of which there is one form only. The
/// key of zeros is none: WireGuard takes it for "no key".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct MeshPublicKey([u8; 32]);

/// Why a text, or bytes, are no public key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeshPublicKeyError {
    /// Not 32 bytes in base64.
    #[error("must be a WireGuard public key, 44 characters of base64, not `{0}`")]
    Syntax(String),
    /// The key that stands for none.
    #[error("must not be the key of zeros, which stands for no key")]
    Zero,
}

impl MeshPublicKey {
    /// The bytes.
    pub const fn bytes(self) -> [u8; 32] {
        self.0
    }

    fn read(text: &str) -> Option<[u8; 32]> {
        let digits = text.strip_suffix('=').filter(|digits| digits.len() == 43)?;
        let mut key = [0; 32];
        let mut bytes = key.iter_mut();
        let (mut bits, mut count) = (0u32, 0);
        for digit in digits.bytes() {
            let value = ALPHABET.iter().position(|letter| *letter == digit)?;
            bits = bits << 6 | u32::try_from(value).ok()?;
            count += 6;
            if count >= 8 {
                count -= 8;
                let [.., byte] = (bits >> count).to_be_bytes();
                *bytes.next()? = byte;
                bits &= (1 << count) - 1;
            }
        }
        // The last digit has two bits more than there are; another text with these set would be the same key.
        (bits == 0).then_some(key)
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
        let mut text = String::with_capacity(44);
        for chunk in self.0.chunks(3) {
            let mut group = chunk.iter().copied();
            let mut next = || u32::from(group.next().unwrap_or(0));
            let bits = next() << 16 | next() << 8 | next();
            // A byte takes two digits, two take three, three take four.
            for shift in [18, 12, 6, 0].into_iter().take(chunk.len() + 1) {
                let digit = usize::try_from(bits >> shift & 63).unwrap_or(0);
                text.extend(ALPHABET.get(digit).map(|letter| char::from(*letter)));
            }
        }
        text.push('=');
        f.pad(&text)
    }
}

impl std::str::FromStr for MeshPublicKey {
    type Err = MeshPublicKeyError;
    fn from_str(text: &str) -> Result<Self, MeshPublicKeyError> {
        Self::read(text).ok_or_else(|| MeshPublicKeyError::Syntax(text.to_owned()))?.try_into()
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

    /// What `wg pubkey` says of the private key of bytes 0 to 31.
    const KNOWN: &str = "j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8=";

    #[test]
    fn a_key_is_written_as_wireguard_writes_it() {
        let key: MeshPublicKey = KNOWN.parse().unwrap();
        // RFC 7748's function of the same private key.
        assert_eq!(key.bytes()[..8], [0x8f, 0x40, 0xc5, 0xad, 0xb6, 0x8f, 0x25, 0x62]);
        assert_eq!(key.to_string(), KNOWN);
        assert_eq!(serde_json::from_str::<MeshPublicKey>(&format!("\"{KNOWN}\"")).unwrap(), key);
        assert_eq!(
            MeshPublicKey::try_from([0xff; 32]).unwrap().to_string(),
            "//////////////////////////////////////////8="
        );
    }

    #[test]
    fn what_is_no_key_is_refused() {
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
        fn text_and_bytes_agree(bytes: [u8; 32]) {
            prop_assume!(bytes != [0; 32]);
            let key = MeshPublicKey::try_from(bytes).unwrap();
            let text = key.to_string();
            prop_assert_eq!((text.len(), key.bytes()), (44, bytes));
            prop_assert_eq!(text.parse::<MeshPublicKey>(), Ok(key));
        }

        #[test]
        fn whatever_is_read_is_written_the_same(text in "[A-Za-z0-9+/]{43}=") {
            if let Ok(key) = text.parse::<MeshPublicKey>() {
                prop_assert_eq!(key.to_string(), text);
            }
        }
    }
}
