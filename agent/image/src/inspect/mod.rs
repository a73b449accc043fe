//! Checks image files. A disk image is a program for whoever opens it: a qcow2 file can name other files and servers
//! as its backing file or data file, and a raw file that starts like another format is opened as that. [`inspect`]
//! accepts self-contained images of two formats only, and everything it does not know is refused.
//!
//! It reads the headers and tables of a file, never its data, and at most
//! [`METADATA_MAX`] bytes of tables. It never writes, and never opens another file.

mod error;
mod qcow2;
mod signature;
mod source;

use std::fmt;
use std::io::{Read, Seek};

pub use error::InspectError;
use signature::Signature;
use source::Source;

/// The largest sum of the tables (L1, L2, refcount table) of a qcow2 image, in bytes: enough for 2 TiB in clusters of
/// 64 KiB.
pub const METADATA_MAX: u64 = 256 << 20;

/// Disks have sectors of this size, in bytes.
pub const SECTOR: u64 = 512;

/// The formats of images that a VM can start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Version 2 or 3, without any file besides.
    Qcow2,
    /// The bytes of the disk.
    Raw,
}

impl Format {
    /// The name of the format as QEMU spells it, e.g. in `-f` and in a header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What is known of an image that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageInfo {
    pub format: Format,
    /// Size of the disk as a guest sees it, in bytes; a multiple of [`SECTOR`], never 0.
    pub virtual_size: u64,
    /// Size of the file, in bytes.
    pub file_size: u64,
}

/// Checks an image; its size is what seeking to its end finds.
///
/// `max_virtual_size` is the largest disk that is accepted, in bytes: a file of a few MiB may be an image of many TiB.
///
/// # Errors
/// [`InspectError::Read`] if the file cannot be read. All other variants say what the file is or has instead.
pub fn inspect<R: Read + Seek>(image: R, max_virtual_size: u64) -> Result<ImageInfo, InspectError> {
    let mut source = Source::new(image)?;
    let file_size = source.len();
    if file_size == 0 {
        return Err(InspectError::Empty);
    }
    let (format, virtual_size) = match signature::find(&mut source)? {
        Some(Signature::Qcow2) => (Format::Qcow2, qcow2::check(&mut source)?),
        Some(Signature::Bootable) => (Format::Raw, file_size),
        Some(Signature::Foreign(found)) => return Err(InspectError::Foreign { found }),
        None => return Err(InspectError::Unbootable),
    };
    if virtual_size == 0 || !virtual_size.is_multiple_of(SECTOR) {
        return Err(InspectError::Sectors { virtual_size });
    }
    if virtual_size > max_virtual_size {
        return Err(InspectError::Oversized { virtual_size, max: max_virtual_size });
    }
    Ok(ImageInfo { format, virtual_size, file_size })
}
