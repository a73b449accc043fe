//! The small files of the cache.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fetch::{Digest, Validator};
use crate::inspect::{Format, ImageInfo};

/// Who uses an image: 1 to 64 letters, digits and hyphens, such as the id of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PinOwner(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to 64 letters, digits and hyphens")]
pub struct PinOwnerError;

impl FromStr for PinOwner {
    type Err = PinOwnerError;

    fn from_str(text: &str) -> Result<Self, PinOwnerError> {
        let valid =
            (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if valid { Ok(Self(text.to_owned())) } else { Err(PinOwnerError) }
    }
}

impl fmt::Display for PinOwner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What was found out about an image when it was checked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    format: String,
    virtual_size: u64,
    file_size: u64,
}

impl From<ImageInfo> for ImageRecord {
    fn from(info: ImageInfo) -> Self {
        let ImageInfo { format, virtual_size, file_size } = info;
        Self { format: format.name().to_owned(), virtual_size, file_size }
    }
}

impl ImageRecord {
    pub(super) fn info(&self) -> Option<ImageInfo> {
        let format = [Format::Qcow2, Format::Raw].into_iter().find(|format| format.name() == self.format)?;
        Some(ImageInfo { format, virtual_size: self.virtual_size, file_size: self.file_size })
    }
}

/// What a URL brought last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UrlRecord {
    pub(super) url: String,
    pub(super) digest: Digest,
    pub(super) validator: Validator,
    /// Differs with each fetch.
    pub(super) fetched_at: String,
}
