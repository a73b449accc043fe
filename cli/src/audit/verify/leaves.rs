//! The hashes that were signed, as the tiles of an export have them.

use otherix_schemas::error::Causes;
use otherix_tlog::{Hash, TreeHead, VerifiedTiles};

use crate::audit::folder::FolderTiles;

/// The tiles of an export, as long as they are the tree's.
pub(super) struct Leaves {
    pub(super) tiles: Option<VerifiedTiles<FolderTiles>>,
    /// Why they cannot be used.
    pub(super) damage: Option<String>,
    /// The hashes of one tile.
    loaded: Option<(u64, Vec<Hash>)>,
}

impl Leaves {
    pub(super) fn open(head: &TreeHead, tiles: FolderTiles) -> Self {
        match VerifiedTiles::open(head, tiles) {
            Ok(tiles) => Self { tiles: Some(tiles), damage: None, loaded: None },
            Err(error) => Self { tiles: None, damage: Some(Causes(&error).to_string()), loaded: None },
        }
    }

    /// The hash of a leaf in the tree that was signed; `None` if that cannot be told.
    pub(super) fn get(&mut self, index: u64) -> Option<Hash> {
        let (tile, offset) = (index / 256, usize::try_from(index % 256).ok()?);
        if self.loaded.as_ref().is_none_or(|(loaded, _)| *loaded != tile) {
            match self.tiles.as_mut()?.hashes(0, tile) {
                Ok(hashes) => self.loaded = Some((tile, hashes.to_vec())),
                Err(error) => {
                    self.damage.get_or_insert_with(|| Causes(&error).to_string());
                    return None;
                }
            }
        }
        self.loaded.as_ref()?.1.get(offset).copied()
    }
}
