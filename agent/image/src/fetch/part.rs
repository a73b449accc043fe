//! A file that is being fetched, and the record by which its download is resumed.
//!
//! After a kill or a loss of power, what the record calls durable is used and the rest fetched again. A part does not
//! lock itself: two processes must not have the same one open.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use otherix_runtime::files;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use super::error::FetchError;
use super::progress::NoRoom;
use super::source::ImageSource;

/// Bytes after which what was received is made durable, and so the most that is fetched again after a kill.
const SYNC_STEP: u64 = 64 << 20;
/// Space that is reserved at a time if the size is not known, in bytes.
const RESERVE_STEP: u64 = 64 << 20;

/// By which a server identifies a version of a file (RFC 9110, section 8.8).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Validator {
    pub etag: Option<String>,
    pub last_modified: Option<String>,
}

impl Validator {
    /// What `If-Range` takes: a weak ETag does not promise the same bytes.
    pub(super) fn for_range(&self) -> Option<&str> {
        let strong = self.etag.as_deref().filter(|etag| etag.starts_with('"'));
        strong.or(self.last_modified.as_deref())
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    url: String,
    validator: Validator,
    total: Option<u64>,
    /// Bytes that are on disk.
    durable: u64,
}

/// A file that is being fetched, of mode 0600, and beside it `<name>.json`.
#[derive(Debug)]
pub struct Part {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    received: u64,
    reserved: u64,
    record: Record,
}

impl Part {
    /// Opens or creates a part. What it has is kept if it is of this URL.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn open(path: &Path, source: &ImageSource) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let file = options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()).open(path)?;
        let (hasher, record) = (Sha256::new(), Record { url: source.as_str().to_owned(), ..Record::default() });
        let mut part = Self { path: path.to_owned(), file, hasher, received: 0, reserved: 0, record };
        // A record that cannot be read is one of another version, or was damaged.
        let recorded = files::read(&part.record_path())?.and_then(|text| serde_json::from_slice::<Record>(&text).ok());
        if let Some(record) = recorded.filter(|record| record.url == source.as_str()) {
            part.record = record;
        }
        let kept = if part.record.validator.for_range().is_some() { part.record.durable } else { 0 };
        if kept == 0 || part.file.metadata()?.len() < kept {
            part.clear()?;
            return Ok(part);
        }
        part.file.set_len(kept)?;
        part.hash_existing()?;
        Ok(part)
    }

    /// Bytes that it has.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    #[must_use]
    pub const fn total(&self) -> Option<u64> {
        self.record.total
    }

    #[must_use]
    pub const fn validator(&self) -> &Validator {
        &self.record.validator
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For reading it from its start.
    ///
    /// # Errors
    /// If it cannot be rewound.
    pub fn reader(&mut self) -> io::Result<&File> {
        self.file.rewind()?;
        Ok(&self.file)
    }

    /// The digest of what it has.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::from(<[u8; 32]>::from(self.hasher.clone().finalize()))
    }

    /// Whether a later fetch can continue it.
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        self.resumption().is_some()
    }

    /// Where to resume, and the validator for `If-Range`.
    pub(super) fn resumption(&self) -> Option<(u64, &str)> {
        let validator = self.record.validator.for_range()?;
        (self.received > 0).then_some((self.received, validator))
    }

    /// Starts anew with a version of the file.
    pub(super) fn restart(&mut self, validator: Validator, total: Option<u64>) -> io::Result<()> {
        self.clear()?;
        (self.record.validator, self.record.total) = (validator, total);
        self.save()
    }

    /// Discards what was received, and its record: the download begins again.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        (self.received, self.reserved) = (0, 0);
        self.hasher = Sha256::new();
        self.record = Record { url: std::mem::take(&mut self.record.url), ..Record::default() };
        files::remove(&self.record_path())
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.file.write_all(bytes).map_err(|error| self.write_error(error))?;
        self.hasher.update(bytes);
        self.received = self.received.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.received.saturating_sub(self.record.durable) >= SYNC_STEP {
            self.save().map_err(|error| self.write_error(error))?;
        }
        Ok(())
    }

    /// Reserves disk space for a file of this size in all.
    pub(super) fn reserve(&mut self, size: u64) -> Result<(), FetchError> {
        if size <= self.reserved {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, size) {
            // Some file systems cannot; a full disk is then found out by writing.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(Errno::NOSPC | Errno::DQUOT) => return Err(FetchError::NoRoom(NoRoom::Disk { needed: size })),
            Err(error) => return Err(FetchError::Write(error.into())),
        }
        self.reserved = size;
        Ok(())
    }

    /// The size to reserve before more is appended, if the size of the file is not known.
    pub(super) fn next_reservation(&self, more: u64) -> Option<u64> {
        let needed = self.received.saturating_add(more);
        (needed > self.reserved).then(|| needed.saturating_add(RESERVE_STEP))
    }

    /// Makes durable what it has, so that it can be resumed.
    pub(super) fn save(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.record.durable = self.received;
        files::replace(&self.record_path(), &serde_json::to_vec(&self.record)?)
    }

    /// Makes the whole file durable and returns the space that was reserved beyond its end.
    pub(super) fn complete(&mut self) -> io::Result<()> {
        self.file.set_len(self.received)?;
        self.file.sync_all()?;
        self.save()
    }

    /// Moves the file to its final name, in a folder of the same file system, and removes the record.
    ///
    /// # Errors
    /// If a step fails.
    pub fn persist(self, to: &Path) -> io::Result<()> {
        files::rename(&self.path, to)?;
        files::remove(&self.record_path())
    }

    /// Removes the file and the record.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn discard(self) -> io::Result<()> {
        files::remove(&self.record_path())?;
        fs::remove_file(&self.path)
    }

    pub(super) fn write_error(&self, error: io::Error) -> FetchError {
        if files::is_disk_full(&error) {
            let needed = self.record.total.unwrap_or(self.received);
            return FetchError::NoRoom(NoRoom::Disk { needed });
        }
        FetchError::Write(error)
    }

    fn record_path(&self) -> PathBuf {
        record_path(&self.path)
    }

    fn hash_existing(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 256 << 10];
        self.file.rewind()?;
        loop {
            let length = self.file.read(&mut buffer)?;
            let read = buffer.get(..length).unwrap_or_default();
            if read.is_empty() {
                break;
            }
            self.hasher.update(read);
            self.received = self.received.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        }
        self.file.seek(SeekFrom::Start(self.received))?;
        Ok(())
    }
}

/// Where the record of a part is.
pub(crate) fn record_path(part: &Path) -> PathBuf {
    let mut path = OsString::from(part);
    path.push(".json");
    path.into()
}

/// The size of the file that a part is to become, according to its record.
pub(crate) fn recorded_total(part: &Path) -> Option<u64> {
    let text = files::read(&record_path(part)).ok().flatten()?;
    serde_json::from_slice::<Record>(&text).ok()?.total
}
