//! Hashes of leaves and nodes: SHA-256 with the prefixes of RFC 6962, section 2.1.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

/// Bytes of a hash.
pub const HASH_LEN: usize = 32;

/// Characters of a hash in base64.
pub(crate) const HASH_TEXT_LEN: usize = 44;

/// What the content of a leaf is prefixed with.
const LEAF: [u8; 1] = [0];
/// What the hashes of a node's children are prefixed with.
const NODE: [u8; 1] = [1];

/// The hash of a leaf, a node or a tree. Its text form is base64, as in checkpoints and proofs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; HASH_LEN]);

/// Why a text is not a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash has {HASH_LEN} bytes, in canonical base64")]
pub struct HashFormatError;

impl Hash {
    /// The root of the tree without leaves: SHA-256 of nothing.
    pub const EMPTY_ROOT: Self = Self([
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae,
        0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
    ]);

    pub const fn new(bytes: [u8; HASH_LEN]) -> Self {
        Self(bytes)
    }

    /// The hash of the leaf with this content: SHA-256(0x00 || content).
    pub fn of_leaf(content: &[u8]) -> Self {
        Self(Sha256::new().chain_update(LEAF).chain_update(content).finalize().into())
    }

    /// The hash of the node with these children: SHA-256(0x01 || left || right).
    pub fn of_node(left: &Self, right: &Self) -> Self {
        Self(Sha256::new().chain_update(NODE).chain_update(left.0).chain_update(right.0).finalize().into())
    }

    pub const fn as_bytes(&self) -> &[u8; HASH_LEN] {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl FromStr for Hash {
    type Err = HashFormatError;

    fn from_str(text: &str) -> Result<Self, HashFormatError> {
        if text.len() != HASH_TEXT_LEN {
            return Err(HashFormatError);
        }
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| HashFormatError)?;
        bytes.try_into().map(Self).map_err(|_| HashFormatError)
    }
}

/// Splits bytes into hashes; `None` if the last is incomplete.
pub(crate) fn hashes_of_bytes(bytes: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<HASH_LEN>();
    rest.is_empty().then(|| hashes.iter().copied().map(Hash).collect())
}

/// The root of a complete subtree, from the hashes of one of its levels; their number must be a power of two.
pub(crate) fn complete_root(hashes: &[Hash]) -> Option<Hash> {
    if !hashes.len().is_power_of_two() {
        return None;
    }
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        let (pairs, _) = level.as_chunks::<2>();
        level = pairs.iter().map(|[left, right]| Hash::of_node(left, right)).collect();
    }
    level.pop()
}
