//! Reading hashes of a tree from where it is stored.

use crate::edge::fold_peaks;
use crate::hash::Hash;
use crate::node::{Node, peaks};

/// Where the hashes of complete subtrees are read from: a store of the log itself, or [`crate::VerifiedTiles`].
pub trait HashSource {
    /// Why a hash cannot be read.
    type Error;

    /// Returns the hash of a node. Only nodes within the tree are asked for.
    ///
    /// # Errors
    /// If it cannot be read.
    fn hash(&mut self, node: Node) -> Result<Hash, Self::Error>;
}

/// The root of the first `size` leaves.
///
/// # Errors
/// Those of the source.
pub fn root<S: HashSource>(size: u64, source: &mut S) -> Result<Hash, S::Error> {
    subtree(0, size, source)
}

/// The root of `len` leaves from `start` on, which must satisfy the conditions of [`peaks`].
pub(crate) fn subtree<S: HashSource>(start: u64, len: u64, source: &mut S) -> Result<Hash, S::Error> {
    let hashes = peaks(start, len).map(|node| source.hash(node)).collect::<Result<Vec<_>, _>>()?;
    Ok(fold_peaks(&hashes).unwrap_or(Hash::EMPTY_ROOT))
}
