//! Signature lines.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::key::VerifierKey;
use super::name::KeyName;

/// What a signature line begins with: an em dash and a space.
const PREFIX: &str = "\u{2014} ";

/// Bytes of a key's id.
const ID_LEN: usize = 4;

/// The highest time of a cosignature, in seconds since 1970.
pub const TIMESTAMP_MAX: u64 = i64::MAX as u64;

/// A signature as it is in a note. Name and id say which key is said to have made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    name: KeyName,
    key_id: u32,
    /// What follows the id; its form depends on the kind of the key.
    signature: Vec<u8>,
}

/// The text is not a signature line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a signature line must be an em dash, the name of a key, and its id with a signature in canonical base64")]
pub struct SignatureFormatError;

/// A signature that a known key has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSignature {
    /// The key.
    pub key: VerifierKey,
    /// When it was made, in seconds since 1970, as its maker says. Only cosignatures have a time.
    pub timestamp: Option<u64>,
}

impl NoteSignature {
    /// A signature by the key with this name and id.
    pub(crate) fn new(name: KeyName, key_id: u32, signature: Vec<u8>) -> Self {
        Self { name, key_id, signature }
    }

    pub fn name(&self) -> &KeyName {
        &self.name
    }

    pub fn key_id(&self) -> u32 {
        self.key_id
    }

    /// The bytes after the id.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Whether it is said to be of this key.
    pub(crate) fn claims(&self, key: &VerifierKey) -> bool {
        self.key_id == key.id() && self.name == *key.name()
    }

    /// Characters of the line, without its newline.
    pub(crate) fn text_len(&self) -> usize {
        PREFIX.len() + self.name.as_str().len() + 1 + (ID_LEN + self.signature.len()).div_ceil(3) * 4
    }
}

/// Parses a line without its newline.
impl FromStr for NoteSignature {
    type Err = SignatureFormatError;

    fn from_str(line: &str) -> Result<Self, SignatureFormatError> {
        let (name, blob) =
            line.strip_prefix(PREFIX).and_then(|rest| rest.split_once(' ')).ok_or(SignatureFormatError)?;
        let name = name.parse().map_err(|_| SignatureFormatError)?;
        let blob = BASE64_STANDARD.decode(blob).map_err(|_| SignatureFormatError)?;
        match blob.split_first_chunk::<ID_LEN>() {
            Some((id, signature)) if !signature.is_empty() => {
                Ok(Self { name, key_id: u32::from_be_bytes(*id), signature: signature.to_vec() })
            }
            Some(_) | None => Err(SignatureFormatError),
        }
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blob = [&self.key_id.to_be_bytes()[..], &self.signature].concat();
        write!(f, "{PREFIX}{} {}", self.name, BASE64_STANDARD.encode(blob))
    }
}
