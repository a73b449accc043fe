//! Proofs of consistency.

use super::{MakeProofError, ProofError, above, climb_border, climb_inner, inner_levels};
use crate::hash::Hash;
use crate::head::TreeHead;
use crate::node::split;
use crate::source::{HashSource, subtree};

/// The most hashes that a proof of consistency has.
pub const CONSISTENCY_HASHES_MAX: usize = 65;

/// The hashes that, together, give the roots of an older and a newer tree. None if the trees have the same size, or
/// the older one has no leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistencyProof(Vec<Hash>);

impl ConsistencyProof {
    /// A proof that was received; `None` if it has more than [`CONSISTENCY_HASHES_MAX`] hashes.
    pub fn new(hashes: Vec<Hash>) -> Option<Self> {
        (hashes.len() <= CONSISTENCY_HASHES_MAX).then_some(Self(hashes))
    }

    /// Makes the proof that the first `old` leaves are the beginning of the first `new` leaves.
    ///
    /// # Errors
    /// If `old` is larger than `new`, or a hash cannot be read.
    pub fn make<S: HashSource>(old: u64, new: u64, source: &mut S) -> Result<Self, MakeProofError<S::Error>> {
        if old > new {
            return Err(MakeProofError::Range(ProofError::Smaller { old, new }));
        }
        if old == 0 {
            return Ok(Self(Vec::new()));
        }
        // The leaves of the older tree from `start` on; `whole` while its root is a node on the way down.
        let (mut rest, mut start, mut len, mut whole, mut subtrees) = (old, 0, new, true, Vec::new());
        while rest < len {
            let left = split(len);
            if rest <= left {
                subtrees.push((start + left, len - left));
                len = left;
            } else {
                subtrees.push((start, left));
                (start, len, rest, whole) = (start + left, len - left, rest - left, false);
            }
        }
        if !whole {
            subtrees.push((start, len));
        }
        let read = |(start, len)| subtree(start, len, source).map_err(MakeProofError::Source);
        subtrees.into_iter().rev().map(read).collect::<Result<_, _>>().map(Self)
    }

    pub fn hashes(&self) -> &[Hash] {
        &self.0
    }

    /// Verifies that the leaves of the older tree are the first leaves of the newer one.
    ///
    /// # Errors
    /// If they are not, or this is not the proof of it.
    pub fn verify(&self, older: &TreeHead, newer: &TreeHead) -> Result<(), ProofError> {
        let (old, new) = (older.size(), newer.size());
        if old > new {
            return Err(ProofError::Smaller { old, new });
        }
        if old == 0 || old == new {
            let same = old == 0 || older.root() == newer.root();
            let found = self.0.len();
            return match (found, same) {
                (0, true) => Ok(()),
                (0, false) => Err(ProofError::Inconsistent),
                (found, _) => Err(ProofError::Length { expected: 0, found }),
            };
        }
        // The path from the last leaf of the older tree, starting at the largest complete subtree that ends with it.
        let complete = old.trailing_zeros();
        let all = inner_levels(old - 1, new - 1);
        let border = above(old - 1, all).count_ones();
        let inner = (all - complete) as usize;
        // If that subtree is all of the older tree, its hash is the root, and the proof does not repeat it.
        let repeats = usize::from(!old.is_power_of_two());
        let (expected, found) = (repeats + inner + border as usize, self.0.len());
        let split = self.0.split_at_checked(repeats).filter(|_| found == expected);
        let (first, path) = split.ok_or(ProofError::Length { expected, found })?;
        let seed = *first.first().unwrap_or(older.root());
        let (inner, border) = path.split_at_checked(inner).ok_or(ProofError::Length { expected, found })?;
        let mask = above(old - 1, complete);
        // In the older tree the path has no right siblings.
        let left: Vec<Hash> =
            (0..).zip(inner).filter(|(level, _)| above(mask, *level) & 1 == 1).map(|(_, h)| *h).collect();
        let old_root = climb_border(climb_border(seed, &left), border);
        let new_root = climb_border(climb_inner(seed, inner, mask), border);
        if old_root == *older.root() && new_root == *newer.root() { Ok(()) } else { Err(ProofError::Inconsistent) }
    }
}
