//! A cache of images on a node, by digest, within a budget.
//!
//! | path | content |
//! |---|---|
//! | `images/<digest>` | an image that was checked; mode 0600, and so are all files |
//! | `images/<digest>.json` | its format and sizes; its modification time is when the image was last used |
//! | `pins/<digest>.<owner>` | the image is in use by that owner, a VM: it is not evicted |
//! | `urls/<key>.json` | the digest of what a URL brought last |
//! | `parts/<key>` | a download, with its record and the lock of those who want it |
//! | `lock` | is held while anything but a part changes |
//!
//! An image gets its name when its digest has been compared, its header checked and its bytes synced, so that nothing
//! half is ever taken for whole; a kill at any moment leaves at most a part, which is resumed or removed. Pins are
//! files, and survive the agent.

mod add;
mod error;
mod pull;
mod record;
mod room;
mod store;
mod turn;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

pub use error::{CacheError, PullError};
pub use pull::{PullPolicy, PullRequest};
pub use record::{PinOwner, PinOwnerError};
use store::Store;

use crate::fetch::{Digest, FetchError, FetchSettings, Fetcher};
use crate::inspect::ImageInfo;

/// Where a cache is, and how large it may become.
#[derive(Debug, Clone)]
pub struct CacheSettings {
    pub folder: PathBuf,
    /// Bytes that images and parts may have in all.
    pub budget: u64,
    /// Size of the largest disk that is accepted, in bytes.
    pub max_virtual_size: u64,
    /// How long a part is kept that nothing was received into.
    pub part_max_age: Duration,
}

/// An image of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedImage {
    pub digest: Digest,
    pub info: ImageInfo,
    /// Only root can read the file: it is for those who open it for a VM.
    pub path: PathBuf,
}

/// An image, and what keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedImage {
    pub image: CachedImage,
    pub last_used: SystemTime,
    pub pins: Vec<PinOwner>,
    /// The URLs that brought it last.
    pub urls: Vec<String>,
}

/// The cache. Several processes and threads may use one folder.
#[derive(Debug)]
pub struct Cache {
    settings: CacheSettings,
    store: Store,
    fetcher: Fetcher,
}

impl Cache {
    /// Opens the cache, creates its folder if need be, and removes what kills have left.
    ///
    /// # Errors
    /// If the folder cannot be used, or the settings have a CA file without certificates.
    pub fn open(settings: CacheSettings, fetch: FetchSettings) -> Result<Self, PullError> {
        let fetcher = Fetcher::new(fetch).map_err(PullError::Fetch)?;
        let store = Store::open(&settings.folder).map_err(PullError::Cache)?;
        let cache = Self { settings, store, fetcher };
        cache.clean().map_err(PullError::Cache)?;
        Ok(cache)
    }

    /// Removes old parts, and files without those that belong to them. Parts that are being fetched are left alone.
    ///
    /// # Errors
    /// If a file cannot be read or removed.
    pub fn clean(&self) -> Result<(), CacheError> {
        self.store.clean(self.settings.part_max_age)?;
        self.store.lock()?.clean()
    }

    /// All images, those first that were used last.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn list(&self) -> Result<Vec<ListedImage>, CacheError> {
        self.store.lock()?.list()
    }

    /// The image with this digest, without pinning it.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn get(&self, digest: Digest) -> Result<Option<CachedImage>, CacheError> {
        self.store.lock()?.image(digest)
    }

    /// Removes an image.
    ///
    /// # Errors
    /// [`CacheError::InUse`] if it is pinned; [`CacheError::Absent`].
    pub fn remove(&self, digest: Digest) -> Result<(), CacheError> {
        let locked = self.store.lock()?;
        if locked.image(digest)?.is_none() {
            return Err(CacheError::Absent { digest });
        }
        let pins = locked.pins(digest)?;
        if !pins.is_empty() {
            return Err(CacheError::InUse { digest, pins });
        }
        locked.delete(digest)
    }

    /// Gives up an owner's use of an image. That it had none is no error.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn unpin(&self, digest: Digest, owner: &PinOwner) -> Result<(), CacheError> {
        self.store.lock()?.unpin(digest, owner)
    }
}

impl From<FetchError> for PullError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(error)
    }
}

impl From<CacheError> for PullError {
    fn from(error: CacheError) -> Self {
        Self::Cache(error)
    }
}
