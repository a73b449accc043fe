//! Bundles of entries: the contents of the leaves of a tile at level 0, each after its length in two bytes.

use super::{TILE_WIDTH, Tile};
use crate::hash::Hash;

/// The longest entry that a bundle can have, in bytes.
pub const ENTRY_MAX: usize = u16::MAX as usize;

/// The position of a bundle, with the number of entries that it has: less than 256 if it is partial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bundle {
    index: u64,
    width: u16,
}

/// Why entries are not a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("an entry has {0} bytes, and can have {ENTRY_MAX}")]
    TooLong(usize),
    #[error("the bundle must have {expected} entries")]
    Width { expected: u16 },
    #[error("the bundle ends within an entry")]
    Truncated,
}

impl Bundle {
    /// The bundle beside the tile at level 0 with this index and `width` (1 to 256); `None` if there is no such tile.
    pub fn new(index: u64, width: u16) -> Option<Self> {
        Tile::new(0, index, width).map(|_| Self { index, width })
    }

    pub const fn index(self) -> u64 {
        self.index
    }

    pub const fn width(self) -> u16 {
        self.width
    }

    /// The index of the first leaf.
    pub const fn first_leaf(self) -> u64 {
        self.index * TILE_WIDTH as u64
    }

    /// The tile that has the hashes of the entries.
    pub fn tile(self) -> Option<Tile> {
        Tile::new(0, self.index, self.width)
    }

    /// Encodes the entries.
    ///
    /// # Errors
    /// If one is longer than [`ENTRY_MAX`], or there are more or fewer than the bundle has.
    pub fn encode<E: AsRef<[u8]>>(self, entries: impl IntoIterator<Item = E>) -> Result<Vec<u8>, BundleError> {
        let (mut bytes, mut count) = (Vec::new(), 0_usize);
        for entry in entries {
            let entry = entry.as_ref();
            let len = u16::try_from(entry.len()).map_err(|_| BundleError::TooLong(entry.len()))?;
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(entry);
            count += 1;
        }
        if count == usize::from(self.width) { Ok(bytes) } else { Err(BundleError::Width { expected: self.width }) }
    }

    /// Decodes the entries. Whether they are those of the tree is not known: compare [`Hash::of_leaf`] of each with the
    /// tile's hashes.
    ///
    /// # Errors
    /// If the bytes are not the encoding of as many entries as the bundle has.
    pub fn decode(self, mut bytes: &[u8]) -> Result<Vec<&[u8]>, BundleError> {
        let mut entries = Vec::with_capacity(usize::from(self.width));
        while let Some((len, rest)) = bytes.split_first_chunk() {
            let len = usize::from(u16::from_be_bytes(*len));
            let (entry, rest) = rest.split_at_checked(len).ok_or(BundleError::Truncated)?;
            entries.push(entry);
            bytes = rest;
            if entries.len() > usize::from(self.width) {
                break;
            }
        }
        match (bytes, entries.len()) {
            ([], count) if count == usize::from(self.width) => Ok(entries),
            ([], _) => Err(BundleError::Width { expected: self.width }),
            ([_], count) if count < usize::from(self.width) => Err(BundleError::Truncated),
            (_, _) => Err(BundleError::Width { expected: self.width }),
        }
    }

    /// Decodes the entries and compares each with the tile's hashes.
    ///
    /// # Errors
    /// As [`Self::decode`]; `Ok(None)` if an entry is another one than in the tree.
    pub fn decode_verified<'a>(self, bytes: &'a [u8], tile: &[Hash]) -> Result<Option<Vec<&'a [u8]>>, BundleError> {
        let entries = self.decode(bytes)?;
        let same = entries.iter().map(|entry| Hash::of_leaf(entry)).eq(tile.iter().copied());
        Ok(same.then_some(entries))
    }
}
