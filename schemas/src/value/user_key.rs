//! Public keys of NATS users.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::string_value;

/// Length of an encoded key: 35 bytes in base32.
const LENGTH: usize = 56;

/// Bytes of a decoded key: kind, Ed25519 public key, checksum.
const BYTES: usize = 35;

/// The first byte of a user's public key, which encodes to `U`.
const USER: u8 = 20 << 3;

/// The public key of a NATS user (nkey): `U` and 55 of `A-Z2-7`, the last of which are a checksum.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^U[A-Z2-7]{55}$"))]
pub struct UserKey(String);
string_value!(UserKey, UserKeyError);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserKeyError {
    #[error("must be the public key of a NATS user: `U` and 55 of `A-Z 2-7`")]
    Form,
    /// A mistyped key.
    #[error("must be the public key of a NATS user: its checksum is wrong")]
    Checksum,
}

impl UserKey {
    /// The text form of an Ed25519 public key.
    pub fn from_bytes(key: [u8; 32]) -> Self {
        let content = [USER].into_iter().chain(key);
        let bytes = content.clone().chain(checksum(content).to_le_bytes());
        Self(encode(bytes))
    }

    /// # Errors
    /// If the text is not the public key of a user.
    pub fn parse(text: &str) -> Result<Self, UserKeyError> {
        let [kind, key_and_checksum @ ..] = decode(text).ok_or(UserKeyError::Form)?;
        if kind != USER {
            return Err(UserKeyError::Form);
        }
        let [key @ .., low, high] = key_and_checksum;
        if checksum([kind].into_iter().chain(key)) == u16::from_le_bytes([low, high]) {
            Ok(Self(text.to_owned()))
        } else {
            Err(UserKeyError::Checksum)
        }
    }
}

/// Encodes a multiple of five bytes in base32 (RFC 4648, section 6).
fn encode(bytes: impl Iterator<Item = u8>) -> String {
    let mut text = String::with_capacity(LENGTH);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in bytes {
        bits = bits << 8 | u32::from(byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            let digit = u8::try_from(bits >> count & 0b1_1111).unwrap_or_default();
            text.push(char::from(if digit < 26 { b'A' + digit } else { b'2' + digit - 26 }));
        }
    }
    text
}

/// Decodes base32 (RFC 4648, section 6) without padding.
fn decode(text: &str) -> Option<[u8; BYTES]> {
    if text.len() != LENGTH {
        return None;
    }
    let mut bytes = [0; BYTES];
    let mut digits = text.bytes().map(|digit| match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'2'..=b'7' => Some(digit - b'2' + 26),
        _ => None,
    });
    // Eight digits of 5 bits are five bytes.
    for five in bytes.chunks_exact_mut(5) {
        let mut bits = 0_u64;
        for digit in digits.by_ref().take(8) {
            bits = bits << 5 | u64::from(digit?);
        }
        let [_, _, _, decoded @ ..] = bits.to_be_bytes();
        five.copy_from_slice(&decoded);
    }
    Some(bytes)
}

/// CRC-16 with the polynomial 0x1021 and the initial value 0 (XMODEM), as nkeys have.
fn checksum(bytes: impl IntoIterator<Item = u8>) -> u16 {
    bytes.into_iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::UserId;

    /// A user's and an account's key, from the documentation of nkeys.
    const USER_KEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    const ACCOUNT_KEY: &str = "ACZSWBJ4SYILK7QVDELO64VX3EFWB6CXCPMEBUKA36MJJQRPXGEEQ2WJ";

    #[test]
    fn accepts_only_keys_of_users_with_their_checksum() {
        assert_eq!(UserKey::parse(USER_KEY).unwrap().as_str(), USER_KEY);
        assert_eq!(UserId::from(&UserKey::parse(USER_KEY).unwrap()).as_str(), USER_KEY);
        let mistyped = USER_KEY.replace("NZOI", "NZOJ");
        assert_eq!(UserKey::parse(&mistyped), Err(UserKeyError::Checksum));
        let [short, lower] = [&USER_KEY[1..], &USER_KEY.to_lowercase()];
        for byte in [0, 7, 0xff] {
            let key = UserKey::from_bytes([byte; 32]);
            assert_eq!(UserKey::parse(key.as_str()), Ok(key));
        }
        for bad in ["", ACCOUNT_KEY, short, lower, &USER_KEY.replace('U', "1"), &"ü".repeat(28)] {
            assert_eq!(UserKey::parse(bad), Err(UserKeyError::Form), "{bad}");
        }
    }
}
