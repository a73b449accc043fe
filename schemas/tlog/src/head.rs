//! The head of a tree: its size together with its root.

use crate::hash::Hash;

/// Size and root of a tree. A proof is verified against both; they must come from the same signed checkpoint, because
/// one proof can be valid for several sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TreeHead {
    size: u64,
    root: Hash,
}

/// A tree without leaves has another root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the root of an empty tree must be the hash of nothing")]
pub struct EmptyRootError;

impl TreeHead {
    /// The head of the tree without leaves.
    pub const EMPTY: Self = Self { size: 0, root: Hash::EMPTY_ROOT };

    /// The head of a tree of `size` leaves.
    ///
    /// # Errors
    /// If `size` is 0, and `root` not the root of the tree without leaves.
    pub fn new(size: u64, root: Hash) -> Result<Self, EmptyRootError> {
        if size == 0 && root != Hash::EMPTY_ROOT { Err(EmptyRootError) } else { Ok(Self { size, root }) }
    }

    pub const fn size(&self) -> u64 {
        self.size
    }

    pub const fn root(&self) -> &Hash {
        &self.root
    }
}
