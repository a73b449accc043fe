//! Proofs of inclusion.

use super::{MakeProofError, ProofError, above, climb_border, climb_inner, inner_levels};
use crate::hash::Hash;
use crate::head::TreeHead;
use crate::node::split;
use crate::source::{HashSource, subtree};

/// The most hashes that a proof of inclusion has.
pub const INCLUSION_HASHES_MAX: usize = 64;

/// The siblings on the path from a leaf to the root, from the leaf up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionProof(Vec<Hash>);

impl InclusionProof {
    /// A proof that was received; `None` if it has more than [`INCLUSION_HASHES_MAX`] hashes.
    pub fn new(hashes: Vec<Hash>) -> Option<Self> {
        (hashes.len() <= INCLUSION_HASHES_MAX).then_some(Self(hashes))
    }

    /// Makes the proof that the leaf with this index is in the tree of the first `size` leaves.
    ///
    /// # Errors
    /// If there is no such leaf, or a hash cannot be read.
    pub fn make<S: HashSource>(index: u64, size: u64, source: &mut S) -> Result<Self, MakeProofError<S::Error>> {
        if index >= size {
            return Err(MakeProofError::Range(ProofError::IndexOutside { index, size }));
        }
        let (mut start, mut len, mut siblings) = (0, size, Vec::new());
        while len > 1 {
            let left = split(len);
            let sibling = if index - start < left {
                let sibling = (start + left, len - left);
                len = left;
                sibling
            } else {
                let sibling = (start, left);
                (start, len) = (start + left, len - left);
                sibling
            };
            siblings.push(sibling);
        }
        let read = |(start, len)| subtree(start, len, source).map_err(MakeProofError::Source);
        siblings.into_iter().rev().map(read).collect::<Result<_, _>>().map(Self)
    }

    pub fn hashes(&self) -> &[Hash] {
        &self.0
    }

    /// Verifies that `leaf` is the hash of the leaf with this index in the tree.
    ///
    /// # Errors
    /// If it is not, or this is not the proof of it.
    pub fn verify(&self, leaf: &Hash, index: u64, tree: &TreeHead) -> Result<(), ProofError> {
        let size = tree.size();
        if index >= size {
            return Err(ProofError::IndexOutside { index, size });
        }
        let inner = inner_levels(index, size - 1);
        let border = above(index, inner).count_ones();
        let (expected, found) = ((inner + border) as usize, self.0.len());
        let split = self.0.split_at_checked(inner as usize).filter(|_| found == expected);
        let (inner, border) = split.ok_or(ProofError::Length { expected, found })?;
        let root = climb_border(climb_inner(*leaf, inner, index), border);
        if root == *tree.root() { Ok(()) } else { Err(ProofError::Leaf) }
    }
}
