//! The hashes that were signed, as the tiles of an export have them.

use std::io;

use otherix_schemas::error::Causes;
use otherix_tlog::tile::{TILE_WIDTH, TileError};
use otherix_tlog::{Hash, TreeHead, VerifiedTiles};

use crate::audit::folder::FolderTiles;

/// The tiles of an export, as long as they are the tree's.
pub(super) struct Leaves {
    pub(super) tiles: Option<VerifiedTiles<FolderTiles>>,
    /// Why they cannot be used.
    pub(super) damage: Option<String>,
    /// The hashes of one tile, none if it is damaged.
    verified: Loaded,
    /// The same as they are stored, verified or not.
    claimed: Loaded,
}

#[derive(Default)]
struct Loaded {
    /// Which tile it is.
    index: Option<u64>,
    hashes: Vec<Hash>,
}

impl Leaves {
    pub(super) fn open(head: &TreeHead, tiles: FolderTiles) -> Self {
        let (tiles, damage) = match VerifiedTiles::open(head, tiles) {
            Ok(tiles) => (Some(tiles), None),
            Err(error) => (None, Some(Causes(&error).to_string())),
        };
        Self { tiles, damage, verified: Loaded::default(), claimed: Loaded::default() }
    }

    /// The hash of a leaf in the tree that was signed; `None` if that cannot be told.
    pub(super) fn get(&mut self, index: u64) -> Option<Hash> {
        let (tile, offset) = place(index);
        if self.verified.index != Some(tile) {
            let hashes = self.tiles.as_mut()?.hashes(0, tile).map(<[Hash]>::to_vec);
            self.verified = Loaded { index: Some(tile), hashes: self.or_damage(hashes) };
        }
        self.verified.hashes.get(offset).copied()
    }

    /// Whether the leaf of an event is another one than in the tree that was signed. `false` if that cannot be told, or
    /// is not known yet: a leaf that is the stored one is a signed one only if the tree of all leaves is the one that
    /// was signed, which whoever asks has to find out. That takes half the hashes that verifying every tile takes.
    pub(super) fn is_other(&mut self, index: u64, leaf: Hash) -> bool {
        let (tile, offset) = place(index);
        if self.claimed.index != Some(tile) {
            let Some(tiles) = &mut self.tiles else { return false };
            let hashes = tiles.claimed_leaves(tile);
            self.claimed = Loaded { index: Some(tile), hashes: self.or_damage(hashes) };
        }
        self.claimed.hashes.get(offset) != Some(&leaf) && self.get(index).is_some_and(|signed| signed != leaf)
    }

    /// Why not every tile of leaves can be used.
    pub(super) fn first_damage(&mut self, size: u64) -> Option<String> {
        let mut tiles = 0..size.div_ceil(u64::from(TILE_WIDTH));
        while self.damage.is_none()
            && let Some(tile) = tiles.next()
        {
            self.get(tile * u64::from(TILE_WIDTH));
        }
        self.damage.take()
    }

    fn or_damage(&mut self, hashes: Result<Vec<Hash>, TileError<io::Error>>) -> Vec<Hash> {
        hashes.unwrap_or_else(|error| {
            self.damage.get_or_insert_with(|| Causes(&error).to_string());
            Vec::new()
        })
    }
}

/// The tile that has a leaf, and where.
fn place(index: u64) -> (u64, usize) {
    let width = u64::from(TILE_WIDTH);
    (index / width, usize::try_from(index % width).unwrap_or(usize::MAX))
}
