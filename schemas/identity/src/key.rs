//! NATS keys ("nkeys"): Ed25519 keys whose text form begins with the kind of their owner: `O`, `A` or `U`, and of seeds
//! `SO`, `SA` or `SU`. The text is base32 of one or two bytes of prefix, 32 bytes of key, and a CRC-16.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a public key or of a seed.
const KEY: usize = 32;
/// Bytes of a signature.
pub const SIGNATURE: usize = 64;
/// Bytes of the checksum.
const CRC: usize = 2;
/// Characters of a public key.
const PUBLIC_TEXT: usize = 56;
/// Characters of a seed.
const SEED_TEXT: usize = 58;

/// The first five bits of a seed.
const SEED_PREFIX: u8 = 18 << 3;

/// Whose key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyKind {
    Operator,
    Account,
    User,
}

/// Why a text is not a key, or not the one that is needed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a public key must have {PUBLIC_TEXT} characters, and a seed {SEED_TEXT}")]
    Length,
    #[error("the key is damaged: {0}")]
    Damaged(&'static str),
    #[error("it is not the key of an operator, account or user")]
    UnknownKind,
    #[error("it is the key of {found}, not of {expected}")]
    OtherKind { expected: KeyKind, found: KeyKind },
    #[error("the system has no random numbers: {0}")]
    Random(String),
    #[error("the signature is wrong")]
    Signature,
}

impl KeyKind {
    const ALL: [Self; 3] = [Self::Operator, Self::Account, Self::User];

    fn prefix(self) -> u8 {
        match self {
            Self::Operator => 14 << 3,
            Self::Account => 0,
            Self::User => 20 << 3,
        }
    }

    fn of_prefix(prefix: u8) -> Result<Self, KeyError> {
        Self::ALL.into_iter().find(|kind| kind.prefix() == prefix).ok_or(KeyError::UnknownKind)
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator => "an operator",
            Self::Account => "an account",
            Self::User => "a user",
        })
    }
}

/// A public key, which identifies its owner.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey {
    text: String,
    kind: KeyKind,
    bytes: [u8; KEY],
}

impl PublicKey {
    fn of(kind: KeyKind, key: &VerifyingKey) -> Self {
        let bytes = key.to_bytes();
        let raw = with_crc([&[kind.prefix()][..], &bytes].concat());
        Self { text: BASE32_NOPAD.encode(&raw), kind, bytes }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Returns the key, if it is of this kind.
    ///
    /// # Errors
    /// [`KeyError::OtherKind`].
    pub fn of_kind(self, expected: KeyKind) -> Result<Self, KeyError> {
        if self.kind == expected { Ok(self) } else { Err(KeyError::OtherKind { expected, found: self.kind }) }
    }

    /// Checks a signature of `message`.
    ///
    /// # Errors
    /// [`KeyError::Signature`], if this key did not make it.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let signature = Signature::from_slice(signature).map_err(|_| KeyError::Signature)?;
        let key = verifying_key(&self.bytes)?;
        key.verify_strict(message, &signature).map_err(|_| KeyError::Signature)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.len() != PUBLIC_TEXT {
            return Err(KeyError::Length);
        }
        let raw = decode(text)?;
        let Some((&prefix, bytes)) = raw.split_first() else { return Err(KeyError::Length) };
        let kind = KeyKind::of_prefix(prefix)?;
        let bytes = bytes.try_into().map_err(|_| KeyError::Length)?;
        verifying_key(&bytes)?;
        Ok(Self { text: text.to_owned(), kind, bytes })
    }
}

/// Refuses also the few keys for which anybody can make signatures.
fn verifying_key(bytes: &[u8; KEY]) -> Result<VerifyingKey, KeyError> {
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Damaged("it is no point of the curve"))?;
    if key.is_weak() { Err(KeyError::Damaged("it is a weak point of the curve")) } else { Ok(key) }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.text
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A key pair. The private key is erased from memory when it is dropped.
#[derive(Clone)]
pub struct KeyPair {
    signing: SigningKey,
    public: PublicKey,
}

impl KeyPair {
    /// Generates a key pair from the kernel's random numbers.
    ///
    /// # Errors
    /// If the kernel has none.
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; KEY]);
        getrandom::fill(seed.as_mut_slice()).map_err(|error| KeyError::Random(error.to_string()))?;
        Ok(Self::of(kind, &seed))
    }

    /// Parses a seed.
    ///
    /// # Errors
    /// If it is not the seed of an operator, account or user.
    pub fn from_seed(text: &str) -> Result<Self, KeyError> {
        if text.len() != SEED_TEXT {
            return Err(KeyError::Length);
        }
        let raw = decode(text)?;
        let [first, second, seed @ ..] = raw.as_slice() else { return Err(KeyError::Length) };
        if first & 0b1111_1000 != SEED_PREFIX || second & 0b111 != 0 {
            return Err(KeyError::UnknownKind);
        }
        let kind = KeyKind::of_prefix((first & 0b111) << 5 | second >> 3)?;
        let seed: Zeroizing<[u8; KEY]> = Zeroizing::new(seed.try_into().map_err(|_| KeyError::Length)?);
        Ok(Self::of(kind, &seed))
    }

    fn of(kind: KeyKind, seed: &[u8; KEY]) -> Self {
        let signing = SigningKey::from_bytes(seed);
        let public = PublicKey::of(kind, &signing.verifying_key());
        Self { signing, public }
    }

    /// The text form of the private key. A secret.
    pub fn seed(&self) -> Zeroizing<String> {
        let prefix = self.public.kind.prefix();
        let seed = Zeroizing::new(self.signing.to_bytes());
        let mut raw = Zeroizing::new(Vec::with_capacity(2 + KEY + CRC));
        raw.extend_from_slice(&[SEED_PREFIX | prefix >> 5, (prefix & 0b1_1111) << 3]);
        raw.extend_from_slice(seed.as_slice());
        let crc = crc16(&raw).to_le_bytes();
        raw.extend_from_slice(&crc);
        let mut text = Zeroizing::new(String::with_capacity(SEED_TEXT));
        BASE32_NOPAD.encode_append(&raw, &mut text);
        text
    }

    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE] {
        self.signing.sign(message).to_bytes()
    }
}

/// Omits the private key.
impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyPair").field(&self.public).finish()
    }
}

/// Decodes base32 and checks and removes the CRC.
fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let decoded = BASE32_NOPAD.decode(text.as_bytes()).map_err(|_| KeyError::Damaged("it is not base32"))?;
    let mut raw = Zeroizing::new(decoded);
    let split = raw.len().saturating_sub(CRC);
    let (content, crc) = raw.split_at(split);
    if crc != crc16(content).to_le_bytes() {
        return Err(KeyError::Damaged("its checksum is wrong"));
    }
    if let Some(crc) = raw.get_mut(split..) {
        crc.zeroize();
    }
    raw.truncate(split);
    Ok(raw)
}

fn with_crc(mut raw: Vec<u8>) -> Vec<u8> {
    let crc = crc16(&raw).to_le_bytes();
    raw.extend_from_slice(&crc);
    raw
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_another_implementation() {
        for (kind, theirs) in [
            (KeyKind::Operator, nkeys::KeyPair::new_operator()),
            (KeyKind::Account, nkeys::KeyPair::new_account()),
            (KeyKind::User, nkeys::KeyPair::new_user()),
        ] {
            let ours = KeyPair::from_seed(&theirs.seed().unwrap()).unwrap();
            assert_eq!(ours.public_key().kind(), kind);
            assert_eq!(ours.public_key().as_str(), theirs.public_key());
            assert_eq!(*ours.seed(), theirs.seed().unwrap());
            assert_eq!(ours.sign(b"x").to_vec(), theirs.sign(b"x").unwrap());
            let ours = KeyPair::generate(kind).unwrap();
            let theirs = nkeys::KeyPair::from_seed(&ours.seed()).unwrap();
            assert_eq!(ours.public_key().as_str(), theirs.public_key());
            assert_eq!(ours.public_key().as_str().parse::<PublicKey>().unwrap(), *ours.public_key());
            ours.public_key().verify(b"x", &theirs.sign(b"x").unwrap()).unwrap();
            assert_eq!(ours.public_key().verify(b"y", &ours.sign(b"x")), Err(KeyError::Signature));
            assert_eq!(ours.public_key().verify(b"x", b""), Err(KeyError::Signature));
        }
        assert_ne!(
            *KeyPair::generate(KeyKind::User).unwrap().seed(),
            *KeyPair::generate(KeyKind::User).unwrap().seed()
        );
    }

    #[test]
    fn every_changed_character_is_found() {
        let pair = KeyPair::generate(KeyKind::User).unwrap();
        let (public, seed) = (pair.public_key().to_string(), pair.seed());
        for index in 0..SEED_TEXT {
            let change = |text: &str| {
                let mut bytes = text.as_bytes().to_vec();
                bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
                String::from_utf8(bytes).unwrap()
            };
            assert!(KeyPair::from_seed(&change(&seed)).is_err(), "{index}");
            if index < PUBLIC_TEXT {
                assert!(change(&public).parse::<PublicKey>().is_err(), "{index}");
            }
        }
    }

    #[test]
    fn other_texts_are_no_keys() {
        let user = KeyPair::generate(KeyKind::User).unwrap();
        let lower = user.public_key().as_str().to_lowercase();
        let server = nkeys::KeyPair::new_server();
        for text in ["", "U", &lower, &server.public_key(), &user.seed(), &"\u{e4}".repeat(28), &"A".repeat(56)] {
            assert!(text.parse::<PublicKey>().is_err(), "{text}");
        }
        for text in ["", "SU", &server.seed().unwrap(), user.public_key().as_str(), &"A".repeat(58)] {
            assert!(KeyPair::from_seed(text).is_err(), "{text}");
        }
        // The identity point verifies signatures that anybody can make.
        let mut point = [0; KEY];
        point[0] = 1;
        let raw = with_crc([&[KeyKind::User.prefix()][..], &point].concat());
        assert!(BASE32_NOPAD.encode(&raw).parse::<PublicKey>().is_err());
        let account = KeyPair::generate(KeyKind::Account).unwrap().public_key().clone();
        let error = account.of_kind(KeyKind::User).unwrap_err().to_string();
        assert_eq!(error, "it is the key of an account, not of a user");
    }

    #[test]
    fn private_keys_are_not_printed() {
        let pair = KeyPair::generate(KeyKind::User).unwrap();
        let (shown, seed) = (format!("{pair:?}"), pair.seed());
        assert!(shown.contains(pair.public_key().as_str()) && !shown.contains(&seed[4..]), "{shown}");
    }
}
