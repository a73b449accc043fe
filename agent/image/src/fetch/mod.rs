//! Fetches images by `http:`, `https:` and `file:` URLs into a [`Part`], a file with a record of what it has, so that a
//! download that was interrupted is resumed.
//!
//! Whoever names the URL is a user of the cluster, and whoever serves it a stranger, while the node that fetches is
//! inside the operator's network. Hence every address is checked when it is resolved, at every redirect
//! ([`AddressGuard`]); proxies of the environment are not used; `file:` URLs reach only folders that were configured;
//! time, size and disk space are bounded. What was fetched is not trusted either: see [`crate::inspect`].

mod address;
mod attempts;
mod cancel;
mod digest;
mod error;
mod folder;
mod http;
mod part;
mod progress;
mod resolver;
mod source;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use address::{AddressGuard, AddressRange, AddressRangeError, RefusedAddress};
pub use attempts::{FetchRequest, Fetcher};
pub use cancel::Cancel;
pub use digest::{Digest, DigestError};
pub use error::FetchError;
pub use part::{Part, Validator};
pub(crate) use part::{record_path, recorded_total};
pub use progress::{NoRoom, Observer, Progress};
pub use resolver::{Lookup, SystemLookup};
pub use source::{ImageSource, SourceError};

/// Limits and permissions of downloads.
#[derive(Debug, Clone)]
pub struct FetchSettings {
    /// For each of: the resolution of a name; connecting, TLS included; the head of a response.
    pub connect_timeout: Duration,
    /// How long a server may send nothing.
    pub idle_timeout: Duration,
    /// Average rate, in bytes per second, below which a download fails once `grace` has passed. With `grace` it is the
    /// time limit of a download as a whole: `grace + size / min_rate`.
    pub min_rate: u64,
    pub grace: Duration,
    /// Size of the largest file that is fetched, in bytes.
    pub max_size: u64,
    /// Attempts in succession that bring no new byte, before a download fails.
    pub attempts: u32,
    /// The delay after the first such attempt; it doubles, up to 30 s.
    pub retry_delay: Duration,
    /// Folders that `file:` URLs may refer to.
    pub folders: Vec<PathBuf>,
    pub guard: AddressGuard,
    /// CAs for `https` besides those of the machine, in PEM.
    pub ca: Option<Vec<u8>>,
    pub lookup: Arc<dyn Lookup>,
}

impl Default for FetchSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            min_rate: 64 << 10,
            grace: Duration::from_secs(60),
            max_size: 64 << 30,
            attempts: 5,
            retry_delay: Duration::from_secs(1),
            folders: Vec::new(),
            guard: AddressGuard::default(),
            ca: None,
            lookup: Arc::new(SystemLookup),
        }
    }
}

/// What a fetch has brought.
#[derive(Debug)]
pub enum Fetched {
    /// All bytes are in the part and on disk.
    Complete,
    /// The server still has what is identified by the validator that was given.
    NotModified,
}
