//! Why an image is not had.

use std::io;
use std::path::PathBuf;

use super::record::PinOwner;
use crate::fetch::{Digest, FetchError};
use crate::inspect::InspectError;

/// Why the cache could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("cannot {attempt} `{path}`")]
    Io {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the image {digest} is in use by {count} VMs", count = .pins.len())]
    InUse { digest: Digest, pins: Vec<PinOwner> },
    #[error("there is no image {digest}")]
    Absent { digest: Digest },
}

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error(transparent)]
    Fetch(FetchError),
    #[error("the image is not used")]
    Inspect(#[source] InspectError),
    #[error("the image has the SHA-256 digest {found}, not {expected}")]
    Digest { expected: Digest, found: Digest },
    #[error(transparent)]
    Cache(CacheError),
}

impl PullError {
    /// Whether the same pull may succeed later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Fetch(error) => error.is_transient(),
            Self::Inspect(_) | Self::Digest { .. } | Self::Cache(_) => false,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.hint(),
            Self::Inspect(error) => error.hint(),
            Self::Digest { .. } => "compare the digest with that of the publisher: the image was changed, or replaced",
            Self::Cache(CacheError::InUse { .. }) => "delete the VMs first",
            Self::Cache(CacheError::Absent { .. }) => "list the images of the node",
            Self::Cache(CacheError::Io { .. }) => "check the disk of the node, and who owns the folder",
        }
    }
}
