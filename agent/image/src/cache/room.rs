//! The budget, and eviction.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::store::{Locked, Store, names};
use super::{CacheError, ListedImage};
use crate::fetch::{NoRoom, recorded_total};

/// What is in the folder, in bytes.
struct Occupied {
    /// The images that may be evicted, the one used last at the end.
    unpinned: Vec<ListedImage>,
    pinned: u64,
    /// Other downloads, at their final sizes as far as known.
    parts: u64,
}

/// Evicts images until a part may have `bytes`, in the budget and on the disk. If that is not possible, evicts none.
pub(super) fn make_room(store: &Store, budget: u64, part: &Path, bytes: u64) -> Result<(), NoRoom> {
    let failed = |error: CacheError| NoRoom::Failed { needed: bytes, reason: error.to_string() };
    let locked = store.lock().map_err(failed)?;
    let occupied = occupied(store, &locked, part).map_err(failed)?;
    let evictable = sum(&occupied.unpinned);
    let fixed = occupied.pinned.saturating_add(occupied.parts);
    let over_budget = fixed.saturating_add(evictable).saturating_add(bytes).saturating_sub(budget);
    if over_budget > evictable {
        return Err(NoRoom::Budget { needed: bytes, budget, pinned: fixed });
    }
    let missing = bytes.saturating_sub(allocated(part)).saturating_sub(free(store));
    if missing > evictable {
        return Err(NoRoom::Disk { needed: bytes });
    }
    let (wanted, mut freed) = (over_budget.max(missing), 0_u64);
    for image in occupied.unpinned {
        if freed >= wanted {
            break;
        }
        locked.delete(image.image.digest).map_err(failed)?;
        freed = freed.saturating_add(image.image.info.file_size);
    }
    Ok(())
}

fn occupied(store: &Store, locked: &Locked<'_>, part: &Path) -> Result<Occupied, CacheError> {
    let (pinned, mut unpinned): (Vec<_>, Vec<_>) = locked.list()?.into_iter().partition(|image| !image.pins.is_empty());
    unpinned.reverse();
    let folder = store.folder().join("parts");
    let mut parts = 0_u64;
    for name in names(&folder)?.iter().filter(|name| !name.contains('.')) {
        let other = folder.join(name);
        if other != part {
            let length = fs::metadata(&other).map_or(0, |metadata| metadata.len());
            parts = parts.saturating_add(recorded_total(&other).unwrap_or(0).max(length));
        }
    }
    Ok(Occupied { unpinned, pinned: sum(&pinned), parts })
}

fn sum(images: &[ListedImage]) -> u64 {
    images.iter().fold(0, |sum, image| sum.saturating_add(image.image.info.file_size))
}

/// Disk space that a part occupies already, reserved space included.
fn allocated(part: &Path) -> u64 {
    fs::metadata(part).map_or(0, |metadata| metadata.blocks().saturating_mul(512))
}

/// Free disk space. If the file system does not tell, that the disk is full is found out later.
fn free(store: &Store) -> u64 {
    let found = rustix::fs::statvfs(store.folder());
    found.map_or(u64::MAX, |found| found.f_bavail.saturating_mul(found.f_frsize))
}
