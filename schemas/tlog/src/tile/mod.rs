//! Tiles (C2SP tlog-tiles): the tree as files of up to 256 hashes, from which any proof can be made. A tile at level
//! `l` has hashes of nodes at level `8 * l` of the tree; hashes between these levels are computed.

mod builder;
mod bundle;
mod path;
mod verified;

pub use builder::{TileBuilder, TileHashes};
pub use bundle::{Bundle, BundleError, ENTRY_MAX};
pub use path::{Resource, ResourcePathError};
pub use verified::{TileError, TileSource, VerifiedTiles};

/// Levels of the tree that a tile spans.
pub const TILE_HEIGHT: u8 = 8;

/// Hashes of a full tile, and entries of a full bundle.
pub const TILE_WIDTH: u16 = 1 << TILE_HEIGHT;

/// Levels of tiles that a tree of less than 2^64 leaves can have.
pub(crate) const LEVELS: u8 = 8;

/// The position of a tile, with the number of hashes that it has: a tile with less than 256 is partial, and is replaced
/// as the tree grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    level: u8,
    index: u64,
    width: u16,
}

impl Tile {
    /// The tile at a level (0 to 7) with `width` hashes (1 to 256); `None` if no tree of less than 2^64 leaves has it.
    pub fn new(level: u8, index: u64, width: u16) -> Option<Self> {
        if level >= LEVELS || width == 0 || width > TILE_WIDTH {
            return None;
        }
        let last = index.checked_mul(u64::from(TILE_WIDTH))?.checked_add(u64::from(width) - 1)?;
        // At level 7 the last hash of a full tile would need 2^64 leaves.
        let size = last.checked_add(1)?.checked_mul(1 << (TILE_HEIGHT * level));
        size.map(|_| Self { level, index, width })
    }

    pub const fn level(self) -> u8 {
        self.level
    }

    pub const fn index(self) -> u64 {
        self.index
    }

    pub const fn width(self) -> u16 {
        self.width
    }

    pub const fn is_partial(self) -> bool {
        self.width < TILE_WIDTH
    }

    /// The full tile at this position, in which the hashes of a partial one come first.
    pub fn full(self) -> Option<Self> {
        Self::new(self.level, self.index, TILE_WIDTH)
    }
}

/// Tiles of level `level` that a tree of `size` leaves has: the number of full ones, and the width of the partial one,
/// which may be 0.
pub(crate) fn tiles_at(level: u8, size: u64) -> (u64, u16) {
    let nodes = size >> (TILE_HEIGHT * level);
    // The remainder is below 256.
    (nodes >> TILE_HEIGHT, (nodes & u64::from(TILE_WIDTH - 1)) as u16)
}

/// The tiles that have to be written when a tree of `old` leaves has grown to `new`: those that became full, and at
/// each level the partial one, if it is another one than before.
pub fn new_tiles(old: u64, new: u64) -> impl Iterator<Item = Tile> {
    let changed = |(_, before, after): &(u8, (u64, u16), (u64, u16))| before < after;
    let levels = (0..LEVELS).map(move |level| (level, tiles_at(level, old), tiles_at(level, new)));
    levels.filter(changed).flat_map(|(level, (before, _), (full, partial))| {
        let whole = (before..full).filter_map(move |index| Tile::new(level, index, TILE_WIDTH));
        whole.chain(Tile::new(level, full, partial))
    })
}

/// The bundles of entries that have to be written when a tree of `old` leaves has grown to `new`.
pub fn new_bundles(old: u64, new: u64) -> impl Iterator<Item = Bundle> {
    let leaves = new_tiles(old, new).filter(|tile| tile.level == 0);
    leaves.filter_map(|tile| Bundle::new(tile.index, tile.width))
}
