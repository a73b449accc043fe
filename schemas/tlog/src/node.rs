//! Positions in the tree. All arithmetic is valid for every tree of less than 2^64 leaves.

/// The highest level at which a tree of less than 2^64 leaves has a complete subtree.
const LEVEL_MAX: u8 = 63;

/// The root of a complete subtree: at level `l` with index `i` it covers the leaves from `i * 2^l` to before
/// `(i + 1) * 2^l`. Leaves are at level 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    level: u8,
    index: u64,
}

impl Node {
    /// The node at a level, 0 to 63; `None` if it would cover leaves beyond 2^64.
    pub const fn new(level: u8, index: u64) -> Option<Self> {
        if level <= LEVEL_MAX && index <= u64::MAX >> level { Some(Self { level, index }) } else { None }
    }

    /// The leaf with this index.
    pub const fn leaf(index: u64) -> Self {
        Self { level: 0, index }
    }

    pub const fn level(self) -> u8 {
        self.level
    }

    pub const fn index(self) -> u64 {
        self.index
    }

    /// The index of the first leaf that it covers.
    pub const fn first_leaf(self) -> u64 {
        self.index << self.level
    }

    /// The index of the last leaf that it covers.
    pub const fn last_leaf(self) -> u64 {
        self.first_leaf() + ((1 << self.level) - 1)
    }

    /// Whether a tree of `size` leaves has it.
    pub const fn is_in(self, size: u64) -> bool {
        self.last_leaf() < size
    }
}

/// The largest complete subtrees that make up `len` leaves from `start` on, from left to right, which is from large to
/// small. `start` must be a multiple of the largest power of two that is at most `len`, and `start + len` at most
/// `u64::MAX`.
pub(crate) fn peaks(start: u64, len: u64) -> impl Iterator<Item = Node> {
    let levels = (0..=LEVEL_MAX).rev().filter(move |level| len >> level & 1 == 1);
    levels.map(move |level| {
        let before = start + (len & !(u64::MAX >> (LEVEL_MAX - level)));
        Node { level, index: before >> level }
    })
}

/// The largest power of two below `len`, which must be at least 2: the size of the left subtree of a tree of `len`
/// leaves.
pub(crate) const fn split(len: u64) -> u64 {
    1 << (u64::BITS - 1 - len.saturating_sub(1).leading_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_cover_the_range() {
        for (start, len) in [(0, 0), (0, 1), (0, 7), (8, 5), (1 << 63, (1 << 63) - 1), (0, u64::MAX)] {
            let mut next = start;
            for node in peaks(start, len) {
                assert_eq!(node.first_leaf(), next, "{start} {len} {node:?}");
                next = node.last_leaf() + 1;
            }
            assert_eq!(next, start + len);
            assert_eq!(peaks(start, len).count(), len.count_ones() as usize);
        }
    }

    #[test]
    fn splits() {
        let of = [2, 3, 4, 5, 8, 9, 1 << 63, (1 << 63) + 1, u64::MAX].map(split);
        assert_eq!(of, [1, 2, 2, 4, 4, 8, 1 << 62, 1 << 63, 1 << 63]);
    }

    #[test]
    fn nodes_are_within_64_bits() {
        assert_eq!(Node::new(63, 1).map(Node::last_leaf), Some(u64::MAX));
        assert_eq!((Node::new(63, 2), Node::new(64, 0)), (None, None));
        assert_eq!(Node::new(0, u64::MAX), Some(Node::leaf(u64::MAX)));
        let node = Node::new(3, 1).unwrap();
        assert!(!node.is_in(15) && node.is_in(16) && !Node::leaf(u64::MAX).is_in(u64::MAX));
    }
}
