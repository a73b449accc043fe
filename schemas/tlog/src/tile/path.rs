//! Paths of a log's resources: `checkpoint`, `tile/LEVEL/INDEX[.p/WIDTH]`, `tile/entries/INDEX[.p/WIDTH]`.

use std::fmt;
use std::str::FromStr;

use super::{Bundle, TILE_WIDTH, Tile};
use crate::text::decimal;

/// What a path names, relative to the log's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    Checkpoint,
    Tile(Tile),
    Bundle(Bundle),
}

/// The text is not the path of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not the path of a log's checkpoint, tile or bundle")]
pub struct ResourcePathError;

const CHECKPOINT: &str = "checkpoint";

/// Writes the end of a path: the index in groups of three digits, all but the last with an `x`, and the width of what
/// is partial.
fn write_position(f: &mut fmt::Formatter<'_>, index: u64, width: u16) -> fmt::Result {
    let groups = std::iter::successors(Some(index), |rest| Some(rest / 1000).filter(|rest| *rest > 0));
    let groups: Vec<u64> = groups.skip(1).collect();
    for group in groups.iter().rev() {
        write!(f, "x{:03}/", group % 1000)?;
    }
    write!(f, "{:03}", index % 1000)?;
    if width < TILE_WIDTH { write!(f, ".p/{width}") } else { Ok(()) }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile/{}/", self.level())?;
        write_position(f, self.index(), self.width())
    }
}

impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tile/entries/")?;
        write_position(f, self.index(), self.width())
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkpoint => f.write_str(CHECKPOINT),
            Self::Tile(tile) => tile.fmt(f),
            Self::Bundle(bundle) => bundle.fmt(f),
        }
    }
}

impl FromStr for Resource {
    type Err = ResourcePathError;

    fn from_str(path: &str) -> Result<Self, ResourcePathError> {
        let resource = if path == CHECKPOINT { Some(Self::Checkpoint) } else { tile_or_bundle(path) };
        // Each resource has one path: this excludes needless groups and zeros.
        resource.filter(|resource| resource.to_string() == path).ok_or(ResourcePathError)
    }
}

fn tile_or_bundle(path: &str) -> Option<Resource> {
    let (level, position) = path.strip_prefix("tile/")?.split_once('/')?;
    let (index, width) = match position.split_once(".p/") {
        Some((index, width)) => (index, u16::try_from(decimal(width)?).ok()?),
        None => (position, TILE_WIDTH),
    };
    let (groups, last) = index.rsplit_once('/').map_or((None, index), |(groups, last)| (Some(groups), last));
    let groups = groups.into_iter().flat_map(|groups| groups.split('/')).map(|group| group.strip_prefix('x'));
    let index = groups.chain([Some(last)]).try_fold(0_u64, |index, group| {
        let digits = group.filter(|group| group.len() == 3 && group.bytes().all(|byte| byte.is_ascii_digit()))?;
        index.checked_mul(1000)?.checked_add(digits.parse().ok()?)
    })?;
    if level == "entries" {
        return Bundle::new(index, width).map(Resource::Bundle);
    }
    Tile::new(u8::try_from(decimal(level)?).ok()?, index, width).map(Resource::Tile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_print_and_parse() {
        let tile = |level, index, width| Tile::new(level, index, width).unwrap();
        for (tile, path) in [
            (tile(0, 0, 256), "tile/0/000"),
            (tile(0, 273, 112), "tile/0/273.p/112"),
            (tile(2, 0, 1), "tile/2/000.p/1"),
            (tile(1, 1000, 256), "tile/1/x001/000"),
            (tile(3, 1_234_067, 255), "tile/3/x001/x234/067.p/255"),
            (tile(0, (1 << 56) - 1, 255), "tile/0/x072/x057/x594/x037/x927/935.p/255"),
        ] {
            assert_eq!(tile.to_string(), path);
            assert_eq!(path.parse(), Ok(Resource::Tile(tile)));
            let bundle = Bundle::new(tile.index(), tile.width()).unwrap();
            let path = bundle.to_string();
            assert!(path.starts_with("tile/entries/"), "{path}");
            assert_eq!(path.parse(), Ok(Resource::Bundle(bundle)));
        }
        assert_eq!("checkpoint".parse(), Ok(Resource::Checkpoint));
    }

    #[test]
    fn other_paths_are_refused() {
        for path in [
            "",
            "tile",
            "tile/",
            "tile/0",
            "tile/0/",
            "tile/0/0",
            "tile/0/00",
            "tile/0/0000",
            "tile/00/000",
            "tile/+0/000",
            "tile/8/000",
            "tile/64/000",
            "tile/-1/000",
            "tile/0/x000/000",
            "tile/0/001/000",
            "tile/0/x001",
            "tile/0/x01/000",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/257",
            "tile/0/000.p/01",
            "tile/0/000.p/",
            "tile/0/000.p",
            "tile/0/000.p/1/",
            "tile/0/000.p/1.p/1",
            "/tile/0/000",
            "tile/0/000/",
            "tile//0/000",
            "tile/0/../000",
            "tile/0/00a",
            "tile/0/+00",
            "tile/Entries/000",
            "tile/entries",
            "checkpoint/",
            "Checkpoint",
            "tile/0/000\n",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
            "tile/7/000",
            "tile/7/001.p/1",
            "tile/0/x072/x057/x594/x037/x927/936",
        ] {
            assert_eq!(path.parse::<Resource>(), Err(ResourcePathError), "{path}");
        }
    }
}
