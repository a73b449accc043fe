//! Why an image was not fetched.

use std::io;
use std::time::Duration;

use super::address::RefusedAddress;
use super::progress::NoRoom;
use super::source::SourceError;

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Address(RefusedAddress),
    /// Name resolution, connection, TLS, or a connection that broke.
    #[error("cannot fetch from `{host}`")]
    Connection {
        host: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("`{host}` has no certificate that this node trusts")]
    Certificate {
        host: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("`{host}` did not respond within {limit:?}")]
    Stalled { host: String, limit: Duration },
    #[error("too slow: {received} bytes in {elapsed:?}")]
    TooSlow { received: u64, elapsed: Duration },
    #[error("`{host}` closed the connection after {received} bytes")]
    Cut { host: String, received: u64 },
    #[error("`{host}` answered with HTTP status {status}")]
    Status { host: String, status: u16 },
    #[error("`{host}` redirected to an unusable URL")]
    Redirect {
        host: String,
        #[source]
        source: SourceError,
    },
    #[error("`{host}` redirected without saying where to")]
    RedirectWithoutTarget { host: String },
    /// Whoever can change `http` responses could then replace the image.
    #[error("`{host}` redirected from https to http")]
    Downgrade { host: String },
    #[error("more than {max} redirects")]
    TooManyRedirects { max: u32 },
    #[error("`{host}` broke the protocol: {what}")]
    Protocol { host: String, what: String },
    /// The end of such a response cannot be told from a broken connection.
    #[error("`{host}` does not tell the length of the image")]
    LengthUnknown { host: String },
    #[error("the image is larger than the limit of {max} bytes")]
    TooLarge { max: u64 },
    #[error(transparent)]
    NoRoom(NoRoom),
    #[error("cannot write the image")]
    Write(#[source] io::Error),
    #[error("`{path}` is not below a folder that images may be taken from")]
    Folder { path: String },
    #[error("cannot read `{path}`")]
    File {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` was changed while it was read")]
    Changed { path: String },
    #[error("cannot load CA certificates: {0}")]
    Ca(String),
    #[error("cancelled")]
    Cancelled,
}

impl FetchError {
    /// Whether the same request may succeed later. What was received is then kept.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Connection { .. }
            | Self::Stalled { .. }
            | Self::TooSlow { .. }
            | Self::Cut { .. }
            | Self::Cancelled => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..),
            Self::Address(_)
            | Self::Certificate { .. }
            | Self::Redirect { .. }
            | Self::RedirectWithoutTarget { .. }
            | Self::Downgrade { .. }
            | Self::TooManyRedirects { .. }
            | Self::Protocol { .. }
            | Self::LengthUnknown { .. }
            | Self::TooLarge { .. }
            | Self::NoRoom(_)
            | Self::Write(_)
            | Self::Folder { .. }
            | Self::File { .. }
            | Self::Changed { .. }
            | Self::Ca(_) => false,
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Address(_) => "use a server that is reachable as another host, or permit the range on the node",
            Self::Connection { .. } => "check the name, and that the node reaches the server",
            Self::Certificate { .. } => "install the server's CA on the node, or give it to the agent",
            Self::Stalled { .. } | Self::TooSlow { .. } | Self::Cut { .. } => {
                "check the server and the network between it and the node; what was received is kept for the next try"
            }
            Self::Status { .. } => "check the URL, e.g. with `curl -I`; credentials are not sent",
            Self::Redirect { .. } | Self::RedirectWithoutTarget { .. } | Self::TooManyRedirects { .. } => {
                "use the URL that the redirects lead to"
            }
            Self::Downgrade { .. } => "use the http URL if that is intended, with `--image-sha256`",
            Self::Protocol { .. } => "the server is broken, or deceives: use another one",
            Self::LengthUnknown { .. } => "give `--image-sha256`, or use a server that sends a length",
            Self::TooLarge { .. } => "use a smaller image, or raise the node's limit",
            Self::NoRoom(_) => {
                "remove images that are not needed, raise the budget of the cache, or use a smaller image"
            }
            Self::Write(_) => "check the disk of the node",
            Self::Folder { .. } => "move the image into a folder that the node's configuration lists, without links",
            Self::File { .. } => {
                "check that the file exists on the node, and is a regular file, with no symbolic link in its path"
            }
            Self::Changed { .. } => "try again when nothing writes to the file",
            Self::Ca(_) => "check the CA file, and that `ca-certificates` is installed",
            Self::Cancelled => "start it again",
        }
    }
}
