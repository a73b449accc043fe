//! Proofs that a leaf is in a tree (RFC 6962, section 2.1.1), and that one tree is the beginning of another (2.1.2).

mod consistency;
mod inclusion;

pub use consistency::{CONSISTENCY_HASHES_MAX, ConsistencyProof};
pub use inclusion::{INCLUSION_HASHES_MAX, InclusionProof};

use crate::hash::Hash;

/// Why a proof does not prove what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error("the tree has {size} leaves, and none with index {index}")]
    IndexOutside { index: u64, size: u64 },
    #[error("the older tree has {old} leaves, and the newer one only {new}")]
    Smaller { old: u64, new: u64 },
    #[error("the proof has {found} hashes, and must have {expected}")]
    Length { expected: usize, found: usize },
    #[error("the leaf is not the one with this index in the tree")]
    Leaf,
    #[error("the older tree is not the beginning of the newer one")]
    Inconsistent,
}

/// Why a proof cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MakeProofError<E> {
    #[error(transparent)]
    Range(ProofError),
    #[error("a hash of the tree cannot be read")]
    Source(#[source] E),
}

/// The number of levels on which the paths from two leaves to the root differ.
const fn inner_levels(one: u64, other: u64) -> u32 {
    u64::BITS - (one ^ other).leading_zeros()
}

/// `mask >> levels`, also if that is all of it.
const fn above(mask: u64, levels: u32) -> u64 {
    match mask.checked_shr(levels) {
        Some(mask) => mask,
        None => 0,
    }
}

/// Climbs within a complete subtree: bit `n` of `mask` says that the sibling at the `n`th level is on the left.
fn climb_inner(seed: Hash, siblings: &[Hash], mask: u64) -> Hash {
    let start = (seed, mask);
    let (hash, _) = siblings.iter().fold(start, |(hash, mask), sibling| {
        let parent = if mask & 1 == 0 { Hash::of_node(&hash, sibling) } else { Hash::of_node(sibling, &hash) };
        (parent, mask >> 1)
    });
    hash
}

/// Climbs along the right border of the tree, where all siblings are on the left.
fn climb_border(seed: Hash, siblings: &[Hash]) -> Hash {
    siblings.iter().fold(seed, |hash, sibling| Hash::of_node(sibling, &hash))
}
