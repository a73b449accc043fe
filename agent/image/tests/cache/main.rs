//! Pins the promises of the cache: what it hands out is whole and was checked, one download serves all who want it, it
//! keeps to its budget without touching what is in use, and a kill at any moment changes none of this.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

mod budget;
mod kills;
mod leftovers;
mod pulls;
#[allow(dead_code, reason = "the tests of downloads use more of it")]
#[path = "../fetch/server.rs"]
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use otherix_image::cache::{Cache, CacheSettings, CachedImage, PinOwner, PullError, PullPolicy, PullRequest};
use otherix_image::fetch::{AddressGuard, Cancel, Digest, FetchSettings};
use otherix_testkit::{TempDir, tempdir};
use sha2::Digest as _;

const MIB: usize = 1 << 20;

/// A raw disk whose content depends on `seed`.
fn disk(length: usize, seed: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|index| seed ^ (index >> 9).to_le_bytes()[0]).collect();
    bytes[510..512].copy_from_slice(b"\x55\xaa");
    bytes
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::from(<[u8; 32]>::from(sha2::Sha256::digest(bytes)))
}

fn owner(name: &str) -> PinOwner {
    name.parse().unwrap()
}

fn request(url: &str) -> PullRequest {
    PullRequest { source: url.parse().unwrap(), digest: None, policy: PullPolicy::IfNotPresent, owner: owner("vm-1") }
}

fn settings(folder: &Path) -> (CacheSettings, FetchSettings) {
    let cache = CacheSettings {
        folder: folder.to_owned(),
        budget: 64 << 20,
        max_virtual_size: 1 << 40,
        part_max_age: Duration::from_secs(3600),
    };
    let fetch = FetchSettings {
        retry_delay: Duration::from_millis(10),
        attempts: 1,
        guard: AddressGuard::default().permitting("127.0.0.1".parse().unwrap()),
        ..FetchSettings::default()
    };
    (cache, fetch)
}

/// A cache in a folder of its own.
struct Fixture {
    folder: TempDir,
    cache: Cache,
}

impl Fixture {
    fn new() -> Self {
        Self::with(|_, _| {})
    }

    fn with(change: impl FnOnce(&mut CacheSettings, &mut FetchSettings)) -> Self {
        let folder = tempdir().unwrap();
        let (mut cache, mut fetch) = settings(&folder.path().join("cache"));
        change(&mut cache, &mut fetch);
        Self { cache: Cache::open(cache, fetch).unwrap(), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("cache").join(name)
    }

    fn pull(&self, request: &PullRequest) -> Result<CachedImage, PullError> {
        self.cache.pull(request, &Cancel::default(), &|_| {})
    }

    /// The names of all files, except the lock.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        for folder in ["images", "pins", "urls", "parts"] {
            for entry in fs::read_dir(self.path(folder)).unwrap() {
                found.push(format!("{folder}/{}", entry.unwrap().file_name().display()));
            }
        }
        found.sort();
        found
    }
}

/// The content of an image is what its name says.
#[track_caller]
fn assert_whole(image: &CachedImage) {
    assert_eq!(digest(&fs::read(&image.path).unwrap()), image.digest);
}
