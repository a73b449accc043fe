//! Why an image is refused.

use std::io;

/// Why a file is not accepted as an image.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("cannot read the image")]
    Read(#[source] io::Error),
    #[error("the image is empty")]
    Empty,
    /// Another format, or no disk image at all.
    #[error("the image is {found}, and neither qcow2 nor a raw disk")]
    Foreign { found: &'static str },
    #[error("the image is neither qcow2, nor a raw disk with a boot signature (MBR or GPT)")]
    Unbootable,
    #[error("the image's disk has {virtual_size} bytes, which is no multiple of 512 above 0")]
    Sectors { virtual_size: u64 },
    #[error("the image's disk has {virtual_size} bytes, more than the limit of {max}")]
    Oversized { virtual_size: u64, max: u64 },
    #[error("qcow2 version {version}; 2 and 3 are supported")]
    Version { version: u32 },
    #[error("the image has a backing file")]
    BackingFile,
    /// QEMU would open a file beside the image for the data.
    #[error("the image's data is in another file")]
    DataFile,
    #[error("the image is encrypted")]
    Encrypted,
    #[error("the image contains internal snapshots")]
    Snapshots,
    #[error("the image contains persistent bitmaps")]
    Bitmaps,
    #[error("the image was not closed cleanly or is marked corrupt")]
    Unclean,
    #[error("the image uses features that are not known: {set} features {bits:#x}")]
    Features { set: &'static str, bits: u64 },
    /// A field of the header has a value outside its range.
    #[error("malformed qcow2 header: `{field}` is {value}")]
    Header { field: &'static str, value: u64 },
    /// A table or a cluster is not where the header or another table says, e.g. because the file is truncated.
    #[error("malformed qcow2 image: {what} at byte {offset} is not within the file or not aligned")]
    Outside { what: &'static str, offset: u64 },
    #[error("malformed qcow2 image: reserved bits of an entry of the {table} are set ({entry:#x})")]
    Reserved { table: &'static str, entry: u64 },
    #[error("the image's tables have {bytes} bytes, more than the limit of {max}", max = super::METADATA_MAX)]
    Metadata { bytes: u64 },
}

impl InspectError {
    /// What the owner of the image can do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Read(_) => "check the disk of the node",
            Self::Empty => "check what the URL serves",
            Self::Foreign { .. } | Self::Unbootable => {
                "use the URL of a qcow2 or raw disk image, uncompressed: `qemu-img convert -O qcow2` makes one"
            }
            Self::Oversized { .. } => "use an image with a smaller disk; `--disk-gib` gives a VM a larger one",
            Self::BackingFile | Self::DataFile | Self::Snapshots | Self::Bitmaps | Self::Encrypted => {
                "make an image that contains everything and nothing else: `qemu-img convert -O qcow2`"
            }
            Self::Unclean => "repair it where it was made (`qemu-img check -r all`), and convert it to a new image",
            Self::Version { .. } | Self::Features { .. } | Self::Metadata { .. } | Self::Sectors { .. } => {
                "convert it to a new image: `qemu-img convert -O qcow2`"
            }
            Self::Header { .. } | Self::Outside { .. } | Self::Reserved { .. } => {
                "the file is damaged or truncated, or was made to deceive: check it at its source"
            }
        }
    }
}
