//! Making tiles while leaves are appended.

use super::verified::{TileError, TileSource, VerifiedTiles};
use super::{LEVELS, TILE_HEIGHT, TILE_WIDTH, Tile};
use crate::edge::{RightEdge, TreeFullError};
use crate::hash::Hash;
use crate::head::TreeHead;

/// A tile with its hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TileHashes {
    tile: Tile,
    hashes: Vec<Hash>,
}

impl TileHashes {
    pub const fn tile(&self) -> Tile {
        self.tile
    }

    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// The content of the tile's file: the hashes one after the other, at most 8,192 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.hashes.iter().flat_map(|hash| hash.as_bytes()).copied().collect()
    }
}

/// A tree that is appended to, with the hashes of its partial tiles: at most 255 at each of 8 levels.
#[derive(Clone, Debug, Default)]
pub struct TileBuilder {
    edge: RightEdge,
    partial: [Vec<Hash>; LEVELS as usize],
    complete: Vec<TileHashes>,
}

impl TileBuilder {
    /// Continues a tree whose tiles are stored, reading its partial tiles.
    ///
    /// # Errors
    /// If one cannot be read, or they are not the tree's.
    pub fn resume<S: TileSource>(head: &TreeHead, source: &mut S) -> Result<Self, TileError<S::Error>> {
        let (edge, partial) = VerifiedTiles::open(head, source)?.into_edge();
        Ok(Self { edge, partial, complete: Vec::new() })
    }

    pub const fn edge(&self) -> &RightEdge {
        &self.edge
    }

    /// Size and root of the tree.
    pub fn head(&self) -> TreeHead {
        self.edge.head()
    }

    /// Appends a leaf.
    ///
    /// # Errors
    /// If the tree is full; nothing has changed then.
    pub fn append(&mut self, leaf: Hash) -> Result<(), TreeFullError> {
        let Self { edge, partial, complete } = self;
        edge.append_with(leaf, |node, hash| {
            let level = node.level() / TILE_HEIGHT;
            if node.level() % TILE_HEIGHT != 0 {
                return;
            }
            let Some(hashes) = partial.get_mut(usize::from(level)) else { return };
            hashes.push(*hash);
            if hashes.len() == usize::from(TILE_WIDTH)
                && let Some(tile) = Tile::new(level, node.index() / u64::from(TILE_WIDTH), TILE_WIDTH)
            {
                let hashes = std::mem::replace(hashes, Vec::with_capacity(usize::from(TILE_WIDTH)));
                complete.push(TileHashes { tile, hashes });
            }
        })
    }

    /// Appends leaves in this order.
    ///
    /// # Errors
    /// If the tree is full; those before have been appended then.
    pub fn append_all(&mut self, leaves: impl IntoIterator<Item = Hash>) -> Result<(), TreeFullError> {
        leaves.into_iter().try_for_each(|leaf| self.append(leaf))
    }

    /// Returns the tiles that have become full since the last call. They have to be written before those above them
    /// are relied on: the order is that of writing.
    pub fn take_complete(&mut self) -> Vec<TileHashes> {
        std::mem::take(&mut self.complete)
    }

    /// The partial tiles of the tree as it is, which have to be written before a checkpoint of it is published.
    pub fn partial(&self) -> impl Iterator<Item = TileHashes> {
        (0..LEVELS).zip(&self.partial).filter_map(|(level, hashes)| {
            let index = self.edge.size() >> (TILE_HEIGHT * level) >> TILE_HEIGHT;
            let tile = Tile::new(level, index, u16::try_from(hashes.len()).ok()?)?;
            Some(TileHashes { tile, hashes: hashes.clone() })
        })
    }
}
