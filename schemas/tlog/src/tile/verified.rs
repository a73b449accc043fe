//! Reading hashes out of tiles that nobody vouches for: every tile is verified against the root of a tree.

use std::collections::BTreeMap;

use super::{LEVELS, TILE_HEIGHT, TILE_WIDTH, Tile, tiles_at};
use crate::edge::RightEdge;
use crate::hash::{Hash, complete_root, hashes_of_bytes};
use crate::head::TreeHead;
use crate::node::Node;
use crate::source::HashSource;

/// Full tiles that are kept, at most, in case they are needed again: 512 KiB.
const CACHE: usize = 64;

/// Where tiles are stored: a folder, a database, a server.
pub trait TileSource {
    /// Why a tile cannot be read.
    type Error;

    /// Returns the content of a tile, 32 bytes for each hash, or `None` if it is not there. If a partial tile is not,
    /// the full one is asked for.
    ///
    /// # Errors
    /// If it cannot be read.
    fn tile(&mut self, tile: Tile) -> Result<Option<Vec<u8>>, Self::Error>;
}

/// A source can be lent.
impl<S: TileSource> TileSource for &mut S {
    type Error = S::Error;

    fn tile(&mut self, tile: Tile) -> Result<Option<Vec<u8>>, Self::Error> {
        (**self).tile(tile)
    }
}

/// Why a hash cannot be read out of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError<E> {
    #[error("`{0}` cannot be read")]
    Source(Tile, #[source] E),
    #[error("`{0}` is missing")]
    Missing(Tile),
    #[error("`{0}` has not the size of a tile")]
    Size(Tile),
    #[error("`{0}` is not a tile of the tree with this root")]
    Tile(Tile),
    #[error("the partial tiles are not those of the tree with this root")]
    Root,
    #[error("the tree does not have this node")]
    Node,
}

/// The hashes of a tree, read from tiles and verified: a hash that it returns is the one in the tree with the root that
/// it was opened with.
#[derive(Debug)]
pub struct VerifiedTiles<S> {
    source: S,
    edge: RightEdge,
    /// The partial tile of each level.
    partial: [Vec<Hash>; LEVELS as usize],
    /// Full tiles by level and index.
    full: BTreeMap<(u8, u64), Vec<Hash>>,
}

impl<S: TileSource> VerifiedTiles<S> {
    /// Reads the partial tiles of a tree, at most 8, and verifies that its root follows from them.
    ///
    /// # Errors
    /// If one cannot be read, or they are not the tree's.
    pub fn open(head: &TreeHead, mut source: S) -> Result<Self, TileError<S::Error>> {
        let mut partial: [Vec<Hash>; LEVELS as usize] = Default::default();
        for (level, hashes) in (0..LEVELS).zip(&mut partial) {
            let (index, width) = tiles_at(level, head.size());
            if let Some(tile) = Tile::new(level, index, width) {
                *hashes = read(&mut source, tile)?;
            }
        }
        // From left to right the peaks are those of the highest tile, which is the leftmost, down to the lowest.
        let peaks = partial.iter().rev().flat_map(|hashes| peaks_of(hashes)).collect();
        let edge = RightEdge::of_peaks(head.size(), peaks).filter(|edge| edge.root() == *head.root());
        Ok(Self { source, edge: edge.ok_or(TileError::Root)?, partial, full: BTreeMap::new() })
    }

    pub const fn edge(&self) -> &RightEdge {
        &self.edge
    }

    /// The edge and the partial tiles.
    pub(crate) fn into_edge(self) -> (RightEdge, [Vec<Hash>; LEVELS as usize]) {
        (self.edge, self.partial)
    }

    /// The hashes of the tile at this level (0 to 7) with this index, as many as the tree has.
    ///
    /// # Errors
    /// If the tree has no such tile, or it or one above it cannot be read or is not the tree's.
    pub fn hashes(&mut self, level: u8, index: u64) -> Result<&[Hash], TileError<S::Error>> {
        if level >= LEVELS {
            return Err(TileError::Node);
        }
        let (full, _) = tiles_at(level, self.edge.size());
        if index < full {
            self.load(level, index)?;
            return self.full.get(&(level, index)).map(Vec::as_slice).ok_or(TileError::Node);
        }
        let hashes = self.partial.get(usize::from(level)).filter(|hashes| index == full && !hashes.is_empty());
        hashes.map(Vec::as_slice).ok_or(TileError::Node)
    }

    /// The hashes of a tile of leaves as they are stored. If the tile is full, it is not verified, unlike those above
    /// it: that they are the tree's leaves is known to whoever makes the same tree of them.
    ///
    /// # Errors
    /// If the tree has no such tile, it or one above it cannot be read, or one above it is not the tree's.
    pub fn claimed_leaves(&mut self, index: u64) -> Result<Vec<Hash>, TileError<S::Error>> {
        let (full, _) = tiles_at(0, self.edge.size());
        if index >= full {
            return self.hashes(0, index).map(<[Hash]>::to_vec);
        }
        self.hashes(1, index / u64::from(TILE_WIDTH))?;
        let tile = Tile::new(0, index, TILE_WIDTH).ok_or(TileError::Node)?;
        read(&mut self.source, tile)
    }

    /// Reads a full tile and verifies it, unless it is kept. At most 7 tiles are read: those above it that are full.
    fn load(&mut self, level: u8, index: u64) -> Result<(), TileError<S::Error>> {
        if self.full.contains_key(&(level, index)) {
            return Ok(());
        }
        let tile = Tile::new(level, index, TILE_WIDTH).ok_or(TileError::Node)?;
        // Its root is in the tile above, which is verified first.
        let entry = (index % u64::from(TILE_WIDTH)) as usize;
        let expected = self.hashes(level + 1, index / u64::from(TILE_WIDTH))?.get(entry).copied();
        let hashes = read(&mut self.source, tile)?;
        if expected.is_none() || complete_root(&hashes) != expected {
            return Err(TileError::Tile(tile));
        }
        if self.full.len() >= CACHE {
            self.full.clear();
        }
        self.full.insert((level, index), hashes);
        Ok(())
    }
}

impl<S: TileSource> HashSource for VerifiedTiles<S> {
    type Error = TileError<S::Error>;

    fn hash(&mut self, node: Node) -> Result<Hash, Self::Error> {
        if !node.is_in(self.edge.size()) {
            return Err(TileError::Node);
        }
        let (level, height) = (node.level() / TILE_HEIGHT, node.level() % TILE_HEIGHT);
        let hashes = self.hashes(level, node.index() >> (TILE_HEIGHT - height))?;
        let within = node.index() & (u64::from(TILE_WIDTH - 1) >> height);
        let (start, count) = ((within << height) as usize, 1_usize << height);
        hashes.get(start..start + count).and_then(complete_root).ok_or(TileError::Node)
    }
}

/// Reads a tile, or the hashes of a partial one from the full one.
fn read<S: TileSource>(source: &mut S, tile: Tile) -> Result<Vec<Hash>, TileError<S::Error>> {
    let found = source.tile(tile).map_err(|error| TileError::Source(tile, error))?;
    let (read, bytes) = match (found, tile.full().filter(|_| tile.is_partial())) {
        (Some(bytes), _) => (tile, bytes),
        (None, Some(full)) => match source.tile(full).map_err(|error| TileError::Source(full, error))? {
            Some(bytes) => (full, bytes),
            None => return Err(TileError::Missing(tile)),
        },
        (None, None) => return Err(TileError::Missing(tile)),
    };
    let mut hashes = hashes_of_bytes(&bytes).ok_or(TileError::Size(read))?;
    if hashes.len() != usize::from(read.width()) {
        return Err(TileError::Size(read));
    }
    hashes.truncate(usize::from(tile.width()));
    Ok(hashes)
}

/// The peaks above the hashes of a partial tile, from left to right.
fn peaks_of(mut hashes: &[Hash]) -> Vec<Hash> {
    let mut peaks = Vec::new();
    while let Some(height) = hashes.len().checked_ilog2()
        && let Some((left, rest)) = hashes.split_at_checked(1 << height)
    {
        peaks.extend(complete_root(left));
        hashes = rest;
    }
    peaks
}
