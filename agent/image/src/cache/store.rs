//! The folder of the cache.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use otherix_runtime::files;
use sha2::{Digest as _, Sha256};

use super::record::{ImageRecord, PinOwner, UrlRecord};
use super::{CacheError, CachedImage, ListedImage};
use crate::fetch::{Digest, ImageSource};
use crate::inspect::ImageInfo;

const FOLDERS: [&str; 4] = ["images", "pins", "urls", "parts"];

/// Where the files are.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
}

/// The store, while nobody else changes it: threads and processes exclude each other by the same lock, which the
/// kernel releases with the process.
pub(super) struct Locked<'a> {
    store: &'a Store,
    _lock: File,
}

impl Store {
    pub(super) fn open(folder: &Path) -> Result<Self, CacheError> {
        for name in FOLDERS {
            let path = folder.join(name);
            files::create_private_folder(&path).map_err(|source| failed("create", &path, source))?;
        }
        Ok(Self { folder: folder.to_owned() })
    }

    pub(super) fn lock(&self) -> Result<Locked<'_>, CacheError> {
        let path = self.folder.join("lock");
        let lock = open_lock(&path).and_then(|file| file.lock().map(|()| file));
        Ok(Locked { store: self, _lock: lock.map_err(|source| failed("lock", &path, source))? })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the part of a URL is.
    pub(super) fn part(&self, source: &ImageSource) -> PathBuf {
        self.folder.join("parts").join(key(source.as_str()))
    }

    /// The lock of those who want the same part or digest.
    pub(super) fn turn(&self, name: &str) -> PathBuf {
        self.folder.join("parts").join(format!("{name}.lock"))
    }

    /// Removes parts that nothing was received into for `max_age`, and files that belong to none.
    pub(super) fn clean(&self, max_age: Duration) -> Result<(), CacheError> {
        let folder = self.folder.join("parts");
        for name in names(&folder)? {
            let base = name.split('.').next().unwrap_or_default();
            let Some(turn) =
                super::turn::try_take(&self.turn(base)).map_err(|source| failed("lock", &folder, source))?
            else {
                continue;
            };
            let part = folder.join(base);
            if is_old(&part, max_age) {
                for path in [part.clone(), crate::fetch::record_path(&part), folder.join(format!("{base}.json.new"))] {
                    files::remove(&path).map_err(|source| failed("remove", &path, source))?;
                }
            }
            drop(turn);
        }
        Ok(())
    }
}

/// Whether a file is absent, or was not changed for this long. One with a time in the future is not old.
fn is_old(path: &Path, max_age: Duration) -> bool {
    let changed = fs::metadata(path).and_then(|metadata| metadata.modified());
    changed.map_or(true, |changed| changed.elapsed().is_ok_and(|age| age >= max_age))
}

impl Locked<'_> {
    /// The image, if it is whole: of the size that it had when it was checked.
    pub(super) fn image(&self, digest: Digest) -> Result<Option<CachedImage>, CacheError> {
        let path = self.image_path(digest);
        let record: Option<ImageRecord> = self.read(&self.record_path(digest))?;
        let Some(info) = record.and_then(|record| record.info()) else {
            return Ok(None);
        };
        let is_whole = fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == info.file_size);
        Ok(is_whole.then_some(CachedImage { digest, info, path }))
    }

    /// Makes an image out of a part that was checked. `persist` moves it to its place.
    pub(super) fn admit(
        &self,
        digest: Digest,
        info: ImageInfo,
        persist: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<CachedImage, CacheError> {
        let path = self.image_path(digest);
        // Without its image, a record is removed by the next cleaning.
        self.write(&self.record_path(digest), &ImageRecord::from(info))?;
        persist(&path).map_err(|source| failed("rename a part to", &path, source))?;
        Ok(CachedImage { digest, info, path })
    }

    /// Records that an image is used, now and until it is unpinned.
    pub(super) fn pin(&self, digest: Digest, owner: &PinOwner) -> Result<(), CacheError> {
        let path = self.pin_path(digest, owner);
        let pinned = open_lock(&path).and_then(|file| file.sync_all());
        pinned.and_then(|()| sync_folder(&path)).map_err(|source| failed("write", &path, source))?;
        let record = self.record_path(digest);
        let touched =
            OpenOptions::new().write(true).open(&record).and_then(|file| file.set_modified(SystemTime::now()));
        touched.map_err(|source| failed("touch", &record, source))
    }

    pub(super) fn unpin(&self, digest: Digest, owner: &PinOwner) -> Result<(), CacheError> {
        let path = self.pin_path(digest, owner);
        files::remove(&path).map_err(|source| failed("remove", &path, source))
    }

    pub(super) fn pins(&self, digest: Digest) -> Result<Vec<PinOwner>, CacheError> {
        let prefix = format!("{digest}.");
        let pins = names(&self.store.folder.join("pins"))?;
        let mut owners: Vec<_> =
            pins.iter().filter_map(|name| name.strip_prefix(&prefix)?.parse::<PinOwner>().ok()).collect();
        owners.sort();
        Ok(owners)
    }

    /// Removes an image and its record, the image first.
    pub(super) fn delete(&self, digest: Digest) -> Result<(), CacheError> {
        for path in [self.image_path(digest), self.record_path(digest)] {
            files::remove(&path).map_err(|source| failed("remove", &path, source))?;
        }
        Ok(())
    }

    pub(super) fn url(&self, source: &ImageSource) -> Result<Option<UrlRecord>, CacheError> {
        let record: Option<UrlRecord> = self.read(&self.url_path(source))?;
        Ok(record.filter(|record| record.url == source.as_str()))
    }

    pub(super) fn record_url(&self, source: &ImageSource, record: &UrlRecord) -> Result<(), CacheError> {
        self.write(&self.url_path(source), record)
    }

    /// All images, those first that were used last.
    pub(super) fn list(&self) -> Result<Vec<ListedImage>, CacheError> {
        let urls = self.urls()?;
        let mut listed = Vec::new();
        for digest in self.digests()? {
            let Some(image) = self.image(digest)? else {
                continue;
            };
            let record = self.record_path(digest);
            let last_used = fs::metadata(&record).and_then(|metadata| metadata.modified());
            let last_used = last_used.map_err(|source| failed("read", &record, source))?;
            let urls = urls.iter().filter(|record| record.digest == digest).map(|record| record.url.clone()).collect();
            listed.push(ListedImage { image, last_used, pins: self.pins(digest)?, urls });
        }
        listed.sort_by_key(|listed| std::cmp::Reverse(listed.last_used));
        Ok(listed)
    }

    /// Removes images and records without the other, temporary files, and what refers to images that are gone.
    pub(super) fn clean(&self) -> Result<(), CacheError> {
        let images = self.store.folder.join("images");
        for name in names(&images)? {
            let digest = name.split('.').next().and_then(|digest| digest.parse::<Digest>().ok());
            let is_whole = digest.map_or(Ok(None), |digest| self.image(digest))?.is_some();
            if !is_whole || name.ends_with(".new") {
                let path = images.join(name);
                files::remove(&path).map_err(|source| failed("remove", &path, source))?;
            }
        }
        let present = self.digests()?;
        let remove_unless_present = |path: &Path, digest: Option<Digest>| {
            let is_present = digest.is_some_and(|digest| present.contains(&digest));
            if is_present { Ok(()) } else { files::remove(path).map_err(|source| failed("remove", path, source)) }
        };
        let pins = self.store.folder.join("pins");
        for name in names(&pins)? {
            let digest = name.split('.').next().and_then(|digest| digest.parse().ok());
            remove_unless_present(&pins.join(&name), digest)?;
        }
        let urls = self.store.folder.join("urls");
        for name in names(&urls)? {
            let path = urls.join(name);
            let record: Option<UrlRecord> = self.read(&path)?;
            remove_unless_present(&path, record.map(|record| record.digest))?;
        }
        Ok(())
    }

    fn digests(&self) -> Result<Vec<Digest>, CacheError> {
        let names = names(&self.store.folder.join("images"))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    fn urls(&self) -> Result<Vec<UrlRecord>, CacheError> {
        let folder = self.store.folder.join("urls");
        let records = names(&folder)?.into_iter().map(|name| self.read(&folder.join(name)));
        Ok(records.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    fn image_path(&self, digest: Digest) -> PathBuf {
        self.store.folder.join("images").join(digest.to_string())
    }

    fn record_path(&self, digest: Digest) -> PathBuf {
        self.store.folder.join("images").join(format!("{digest}.json"))
    }

    fn pin_path(&self, digest: Digest, owner: &PinOwner) -> PathBuf {
        self.store.folder.join("pins").join(format!("{digest}.{owner}"))
    }

    fn url_path(&self, source: &ImageSource) -> PathBuf {
        self.store.folder.join("urls").join(format!("{}.json", key(source.as_str())))
    }

    /// A record that cannot be read is one of another version, or was damaged: it counts as absent.
    fn read<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, CacheError> {
        let text = files::read(path).map_err(|source| failed("read", path, source))?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    fn write<T: serde::Serialize>(&self, path: &Path, record: &T) -> Result<(), CacheError> {
        let text = serde_json::to_vec(record).map_err(io::Error::from);
        text.and_then(|text| files::replace(path, &text)).map_err(|source| failed("write", path, source))
    }
}

/// The name of what belongs to a URL.
pub(super) fn key(url: &str) -> String {
    Digest::from(<[u8; 32]>::from(Sha256::digest(url))).to_string()
}

pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// The names in a folder, sorted. Names that are not text are none of ours.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, CacheError> {
    let entries = fs::read_dir(folder).map_err(|source| failed("read", folder, source))?;
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(|source| failed("read", folder, source))?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

pub(super) fn failed(attempt: &'static str, path: &Path, source: io::Error) -> CacheError {
    CacheError::Io { attempt, path: path.to_owned(), source }
}
