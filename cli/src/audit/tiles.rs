//! Tiles of the control plane's log. Nobody vouches for them: they are verified with the root in a checkpoint.

use std::collections::HashMap;
use std::convert::Infallible;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use otherix_schemas::log::{GetLogTiles, LOG_TILES_MAX, LogTileNames};
use otherix_tlog::tile::TILE_HEIGHT;
use otherix_tlog::{Tile, TileSource};

use crate::client::ControlPlaneClient;
use crate::failure::Failure;

/// Tiles that were fetched.
#[derive(Debug, Default)]
pub(super) struct FetchedTiles(HashMap<Tile, Vec<u8>>);

impl TileSource for FetchedTiles {
    type Error = Infallible;

    fn tile(&mut self, tile: Tile) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.0.get(&tile).cloned())
    }
}

/// Fetches tiles, at most as many as one request may name; those that are not there are left out.
pub(super) async fn fetch(client: &mut ControlPlaneClient, tiles: &[Tile]) -> Result<Vec<(Tile, Vec<u8>)>, Failure> {
    let mut found = Vec::with_capacity(tiles.len());
    for tiles in tiles.chunks(LOG_TILES_MAX) {
        client.renew();
        let names = LogTileNames { tiles: tiles.iter().map(ToString::to_string).collect() };
        let answer = client.call::<GetLogTiles>(&names).await?.data;
        let contents = answer.tiles.into_iter().map(|content| content.and_then(|it| STANDARD.decode(it).ok()));
        found.extend(tiles.iter().copied().zip(contents).filter_map(|(tile, content)| Some((tile, content?))));
    }
    Ok(found)
}

/// Fetches the tiles with which a leaf of a tree of `size` leaves is proven.
pub(super) async fn fetch_path(
    client: &mut ControlPlaneClient,
    index: u64,
    size: u64,
) -> Result<FetchedTiles, Failure> {
    let mut wanted = Vec::new();
    for level in 0..8 {
        let hashes = size >> (TILE_HEIGHT * level);
        let (full, width) = (hashes >> TILE_HEIGHT, u16::try_from(hashes % 256).unwrap_or_default());
        wanted.extend(Tile::new(level, full, width));
        let number = index >> (TILE_HEIGHT * level) >> TILE_HEIGHT;
        if number < full {
            wanted.extend(Tile::new(level, number, 256));
        }
    }
    Ok(FetchedTiles(fetch(client, &wanted).await?.into_iter().collect()))
}
