//! Why NATS cannot be started, and what an operator can do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use otherix_transport::credentials::CredentialsError;

/// Why NATS is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NatsError {
    /// Something below the state folder cannot be read, written or made.
    #[error("cannot {attempt} `{}`", path.display())]
    File {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A credentials file is damaged.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The state folder's name cannot be written into a configuration.
    #[error("the name of the state folder `{}` holds control characters or is not UTF-8", .0.display())]
    Folder(PathBuf),
    /// There is no server to run.
    #[error("there is no `nats-server` on PATH")]
    NotFound,
    /// The server cannot be run.
    #[error("cannot run `{}`", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The program is something else.
    #[error("`{} --version` says `{said}`, not the version of a nats-server", program.display())]
    Unknown {
        /// The program.
        program: PathBuf,
        /// What it printed.
        said: String,
    },
    /// The server lacks what is needed.
    #[error("`{}` is version {version}; at least 2.11 is needed", program.display())]
    TooOld {
        /// The program.
        program: PathBuf,
        /// Its version.
        version: String,
    },
    /// Another process has the store.
    #[error("another process uses `{}`; gave up after {} s", folder.display(), waited.as_secs())]
    InUse {
        /// The folder of the store.
        folder: PathBuf,
        /// How long the lock was waited for.
        waited: Duration,
    },
    /// The server ended instead of serving.
    #[error("nats-server ended while it started ({status}): {said}")]
    Ended {
        /// How it ended.
        status: String,
        /// The last words it had.
        said: String,
        /// Where it said more.
        log: PathBuf,
    },
    /// The server runs, but serves nobody.
    #[error("nats-server did not accept clients within {} s", waited.as_secs())]
    NotReady {
        /// How long it was given.
        waited: Duration,
        /// Where it may have said why.
        log: PathBuf,
    },
}

impl NatsError {
    /// What to do about it, where that is not plain from the error itself.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound | Self::Unknown { .. } | Self::TooOld { .. } => {
                Some("name a nats-server of version 2.11 or newer with --nats-server or OTHERIX_NATS_SERVER".to_owned())
            }
            Self::InUse { .. } => {
                Some("stop the otherixd that runs on this state folder, or use another one".to_owned())
            }
            Self::Ended { log, .. } | Self::NotReady { log, .. } => Some(format!("its log is `{}`", log.display())),
            Self::File { .. } => Some(
                "otherixd must own the state folder and be able to write there: look at owner, mode, free space and mount options"
                    .to_owned(),
            ),
            Self::Credentials(_) | Self::Folder(_) | Self::Run { .. } => None,
        }
    }
}
