//! The disk of a VM: an empty qcow2 image over an image of the cache, which is never written. Reads of what the guest
//! has not written go to the image.
//!
//! The header is written here, and no program is run for it: 256 KiB, of which the guest's disk may grow to
//! [`DISK_MAX`] without moving a table. QEMU is told the files and formats of both on its command line, so that it does
//! not follow what the header says.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use otherix_runtime::files;
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};

use crate::inspect::{Format, SECTOR};

/// The largest disk, in bytes: what an L1 table of one cluster reaches.
pub const DISK_MAX: u64 = 4 << 40;

const CLUSTER_BITS: u32 = 16;
const CLUSTER: usize = 1 << CLUSTER_BITS;
/// The header, the refcount table, a refcount block, the L1 table: one cluster each.
const CLUSTERS: usize = 4;
const L1_ENTRIES: u32 = 8192;
const HEADER_LENGTH: u32 = 112;
const SIZE_AT: u64 = 24;
const BACKING_FORMAT: u32 = 0xe279_2aca;
/// Longest path of a backing file, in bytes (`docs/interop/qcow2.txt`).
const PATH_MAX: usize = 1023;

/// The image under an overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Absolute, in UTF-8.
    pub path: PathBuf,
    pub format: Format,
}

/// What the header of an overlay says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Size of the disk, in bytes.
    pub size: u64,
    pub base: Base,
}

#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    #[error("cannot {attempt} the disk `{path}`")]
    Io {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("a disk has a multiple of 512 bytes, 512 to {DISK_MAX}, not {0}")]
    Size(u64),
    #[error("the disk has {current} bytes, and does not become smaller ({wanted} bytes)")]
    Shrink { current: u64, wanted: u64 },
    #[error("the path of an image must be absolute, of at most 1023 bytes of UTF-8: `{0}`")]
    BasePath(PathBuf),
    #[error("`{0}` is not a disk that otherix has made")]
    Foreign(PathBuf),
}

/// Creates the disk, of mode 0600, durable when this returns. The disk is not smaller than the image: a boot loader
/// would look for what is cut off.
///
/// # Errors
/// [`OverlayError::Io`] with `AlreadyExists` if there is a file of that name. [`OverlayError::Shrink`] if the image's
/// disk is larger than `size`.
pub fn create(path: &Path, base: &Base, base_size: u64, size: u64) -> Result<(), OverlayError> {
    check_size(size)?;
    if size < base_size {
        return Err(OverlayError::Shrink { current: base_size, wanted: size });
    }
    let bytes = encode(&Overlay { size, base: base.clone() })?;
    let failed = |attempt| move |source| OverlayError::Io { attempt, path: path.to_owned(), source };
    // Made under another name, so that a kill leaves no half of a disk.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    files::replace(&temporary, &bytes).map_err(failed("write"))?;
    if let Err(error) = renameat_with(CWD, &temporary, CWD, path, RenameFlags::NOREPLACE) {
        // The next call for this disk would remove it, too.
        let _left = files::remove(&temporary);
        return Err(failed("create")(error.into()));
    }
    sync_folder(path).map_err(failed("create"))
}

/// Makes a disk larger, of a VM that is not running: eight bytes of the header, within a sector.
///
/// # Errors
/// [`OverlayError::Shrink`]; [`OverlayError::Foreign`] if it is not a disk made by [`create`].
pub fn grow(path: &Path, size: u64) -> Result<(), OverlayError> {
    check_size(size)?;
    let current = read(path)?.size;
    if size < current {
        return Err(OverlayError::Shrink { current, wanted: size });
    }
    let written = open(path, true).and_then(|file| {
        file.write_all_at(&size.to_be_bytes(), SIZE_AT)?;
        file.sync_all()
    });
    written.map_err(|source| OverlayError::Io { attempt: "write", path: path.to_owned(), source })
}

/// Makes the header of a disk of ours, of a VM that is not running, name the image at another path: of a disk that was
/// copied from another node. Only the first cluster is written, and is durable when this returns.
///
/// # Errors
/// [`OverlayError::Foreign`] if it is not a disk made by [`create`], or over an image of another format.
pub fn rebase(path: &Path, base: &Base) -> Result<(), OverlayError> {
    let Overlay { size, base: before } = read(path)?;
    if before.format != base.format {
        return Err(OverlayError::Foreign(path.to_owned()));
    }
    let bytes = encode(&Overlay { size, base: base.clone() })?;
    let first = bytes.get(..CLUSTER).unwrap_or(&bytes);
    let written = open(path, true).and_then(|file| {
        file.write_all_at(first, 0)?;
        file.sync_all()
    });
    written.map_err(|source| OverlayError::Io { attempt: "write", path: path.to_owned(), source })
}

/// The most bytes that the file of a disk of this size has: its clusters, the tables for them, and some that were
/// given up.
pub const fn file_max(size: u64) -> u64 {
    size.saturating_add(size / 64).saturating_add(16 << 20)
}

/// Reads the header of a disk. Those that [`create`] has not made are not taken for one: byte for byte, the first
/// cluster must be the one that it would write.
///
/// # Errors
/// [`OverlayError::Foreign`]; [`OverlayError::Io`] if the file cannot be read.
pub fn read(path: &Path) -> Result<Overlay, OverlayError> {
    let mut start = Vec::new();
    let limit = u64::try_from(CLUSTER).unwrap_or(u64::MAX);
    let result = open(path, false).and_then(|file| file.take(limit).read_to_end(&mut start));
    result.map_err(|source| OverlayError::Io { attempt: "read", path: path.to_owned(), source })?;
    let foreign = || OverlayError::Foreign(path.to_owned());
    let overlay = decode(&start).ok_or_else(foreign)?;
    let expected = encode(&overlay).map_err(|_| foreign())?;
    if expected.starts_with(&start) { Ok(overlay) } else { Err(foreign()) }
}

const fn check_size(size: u64) -> Result<(), OverlayError> {
    if size == 0 || size > DISK_MAX || !size.is_multiple_of(SECTOR) { Err(OverlayError::Size(size)) } else { Ok(()) }
}

/// Never follows a symbolic link: the path is that of a file of ours.
fn open(path: &Path, write: bool) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).write(write).custom_flags(flags.bits().cast_signed()).open(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// The whole file, as it is created.
fn encode(overlay: &Overlay) -> Result<Vec<u8>, OverlayError> {
    let Overlay { size, base } = overlay;
    let name =
        base.path.to_str().filter(|name| base.path.is_absolute() && name.len() <= PATH_MAX && !name.contains('\0'));
    let name = name.ok_or_else(|| OverlayError::BasePath(base.path.clone()))?.as_bytes();
    let format = base.format.name().as_bytes();

    let mut extensions = Vec::new();
    extensions.extend(BACKING_FORMAT.to_be_bytes());
    extensions.extend(length(format).to_be_bytes());
    extensions.extend(format);
    extensions.resize(extensions.len().next_multiple_of(8), 0);
    extensions.extend([0; 8]);
    let name_at = u64::from(HEADER_LENGTH).saturating_add(u64::from(length(&extensions)));
    let cluster = |index: u64| (index << CLUSTER_BITS).to_be_bytes();

    let mut bytes = Vec::with_capacity(CLUSTERS * CLUSTER);
    bytes.extend(b"QFI\xfb");
    bytes.extend(3_u32.to_be_bytes());
    bytes.extend(name_at.to_be_bytes());
    bytes.extend(length(name).to_be_bytes());
    bytes.extend(CLUSTER_BITS.to_be_bytes());
    bytes.extend(size.to_be_bytes());
    bytes.extend(0_u32.to_be_bytes()); // not encrypted
    bytes.extend(L1_ENTRIES.to_be_bytes());
    bytes.extend(cluster(3));
    bytes.extend(cluster(1)); // the refcount table, of one cluster
    bytes.extend(1_u32.to_be_bytes());
    bytes.extend([0; 4 + 8]); // no snapshots
    bytes.extend([0; 3 * 8]); // no features: incompatible, compatible, autoclear
    bytes.extend(4_u32.to_be_bytes()); // refcounts of 2^4 bits
    bytes.extend(HEADER_LENGTH.to_be_bytes());
    bytes.extend([0; 8]); // compression type, padding
    bytes.extend(extensions);
    bytes.extend(name);
    bytes.resize(CLUSTER, 0);
    bytes.extend(cluster(2));
    bytes.resize(2 * CLUSTER, 0);
    for _ in 0..CLUSTERS {
        bytes.extend(1_u16.to_be_bytes());
    }
    bytes.resize(CLUSTERS * CLUSTER, 0);
    Ok(bytes)
}

/// At most the length of a path.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// What differs between headers; whether the rest is as expected is for the caller to compare.
fn decode(start: &[u8]) -> Option<Overlay> {
    let u32_at = |at: usize| start.get(at..)?.first_chunk().copied().map(u32::from_be_bytes);
    let u64_at = |at: usize| start.get(at..)?.first_chunk().copied().map(u64::from_be_bytes);
    let size = u64_at(usize::try_from(SIZE_AT).ok()?)?;
    let name_at = usize::try_from(u64_at(8)?).ok()?;
    let name_end = name_at.checked_add(usize::try_from(u32_at(16)?).ok()?)?;
    let name = std::str::from_utf8(start.get(name_at..name_end)?).ok()?;
    let format_at = usize::try_from(HEADER_LENGTH).ok()?.checked_add(8)?;
    let format_length = usize::try_from(u32_at(format_at.checked_sub(4)?)?).ok()?;
    let format_name = start.get(format_at..format_at.checked_add(format_length)?)?;
    let format = [Format::Qcow2, Format::Raw].into_iter().find(|format| format.name().as_bytes() == format_name)?;
    Some(Overlay { size, base: Base { path: name.into(), format } })
}
