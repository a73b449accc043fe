//! The right edge of a tree: all that is needed to append leaves and to know the root, at most 64 hashes.

use crate::hash::{Hash, hashes_of_bytes};
use crate::head::TreeHead;
use crate::node::{Node, peaks};
use crate::source::HashSource;

/// Bytes of the size at the beginning of a serialised edge.
const SIZE_LEN: usize = 8;

/// The roots of the largest complete subtrees that make up a tree: one for each bit that is set in its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RightEdge {
    size: u64,
    /// From left to right, which is from large to small.
    peaks: Vec<Hash>,
}

/// A tree cannot have more than 2^64 - 1 leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tree is full")]
pub struct TreeFullError;

/// The bytes are not a serialised edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the right edge must have its size and one hash for each bit set in it")]
pub struct EdgeFormatError;

impl RightEdge {
    /// The edge of the tree without leaves.
    pub const EMPTY: Self = Self { size: 0, peaks: Vec::new() };

    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf.
    ///
    /// # Errors
    /// If the tree is full; nothing has changed then.
    pub fn append(&mut self, leaf: Hash) -> Result<(), TreeFullError> {
        self.append_with(leaf, |_, _| {})
    }

    /// Appends leaves in this order.
    ///
    /// # Errors
    /// If the tree is full; those before have been appended then.
    pub fn append_all(&mut self, leaves: impl IntoIterator<Item = Hash>) -> Result<(), TreeFullError> {
        leaves.into_iter().try_for_each(|leaf| self.append(leaf))
    }

    /// Appends a leaf, and passes it and each node that it completes to `completed`, from the lowest level up.
    ///
    /// # Errors
    /// If the tree is full; nothing has changed then.
    pub fn append_with(&mut self, leaf: Hash, mut completed: impl FnMut(Node, &Hash)) -> Result<(), TreeFullError> {
        let size = self.size.checked_add(1).ok_or(TreeFullError)?;
        let mut node = Node::leaf(self.size);
        let mut hash = leaf;
        completed(node, &hash);
        // Each bit set at the end of the old size is a peak that the new leaf makes the left child of a node.
        for _ in 0..self.size.trailing_ones() {
            let (Some(left), Some(parent)) = (self.peaks.pop(), Node::new(node.level() + 1, node.index() >> 1)) else {
                break;
            };
            hash = Hash::of_node(&left, &hash);
            node = parent;
            completed(node, &hash);
        }
        self.peaks.push(hash);
        self.size = size;
        Ok(())
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        fold_peaks(&self.peaks).unwrap_or(Hash::EMPTY_ROOT)
    }

    /// Size and root of the tree.
    pub fn head(&self) -> TreeHead {
        TreeHead::new(self.size, self.root()).unwrap_or(TreeHead::EMPTY)
    }

    /// Reads the edge of the first `size` leaves.
    ///
    /// # Errors
    /// Those of the source.
    pub fn from_source<S: HashSource>(size: u64, source: &mut S) -> Result<Self, S::Error> {
        let peaks = peaks(0, size).map(|node| source.hash(node)).collect::<Result<_, _>>()?;
        Ok(Self { size, peaks })
    }

    /// Serialises it: the size in 8 bytes, most significant first, then the hashes from left to right.
    pub fn to_bytes(&self) -> Vec<u8> {
        let size = self.size.to_be_bytes();
        size.iter().chain(self.peaks.iter().flat_map(|hash| hash.as_bytes())).copied().collect()
    }

    /// Reads what [`Self::to_bytes`] has written. Whether the hashes are those of a tree is not known: compare the
    /// root.
    ///
    /// # Errors
    /// If the number of hashes is not that of the size.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EdgeFormatError> {
        let (size, peaks) = bytes.split_first_chunk::<SIZE_LEN>().ok_or(EdgeFormatError)?;
        let size = u64::from_be_bytes(*size);
        let peaks = hashes_of_bytes(peaks).ok_or(EdgeFormatError)?;
        Self::of_peaks(size, peaks).ok_or(EdgeFormatError)
    }

    /// The edge with these peaks, from left to right; `None` if there must be more or fewer.
    pub(crate) fn of_peaks(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (u32::try_from(peaks.len()) == Ok(size.count_ones())).then_some(Self { size, peaks })
    }
}

impl Default for RightEdge {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// The root above peaks, which are given from left to right; `None` without any.
pub(crate) fn fold_peaks(peaks: &[Hash]) -> Option<Hash> {
    peaks.iter().rev().copied().reduce(|right, left| Hash::of_node(&left, &right))
}
