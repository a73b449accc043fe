//! Errors of the supervised NATS, with their hints.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use otherix_transport::credentials::CredentialsError;

use super::tls::ServerTlsError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum NatsError {
    #[error("cannot {attempt} `{}`", path.display())]
    File {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Tls(#[from] ServerTlsError),
    /// Such a name cannot be written into the configuration.
    #[error("the name of the state folder `{}` has control characters or is not UTF-8", .0.display())]
    Folder(PathBuf),
    #[error("there is no `nats-server` on PATH")]
    NotFound,
    #[error("cannot run `{}`", program.display())]
    Run {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{} --version` prints `{output}`, which is not the version of a nats-server", program.display())]
    Unknown { program: PathBuf, output: String },
    #[error("`{}` is version {version}; at least 2.11 is required", program.display())]
    TooOld { program: PathBuf, version: String },
    #[error("another process uses `{}`; gave up after {} s", folder.display(), waited.as_secs())]
    InUse { folder: PathBuf, waited: Duration },
    #[error("nats-server ended during its start ({status}): {reason}")]
    Ended {
        status: String,
        /// Its last error message.
        reason: String,
        log: PathBuf,
    },
    #[error("nats-server did not accept clients within {} s", waited.as_secs())]
    NotReady { waited: Duration, log: PathBuf },
}

impl NatsError {
    /// How to resolve it, where the message does not say so.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound | Self::Unknown { .. } | Self::TooOld { .. } => {
                Some("set a nats-server of version 2.11 or newer with --nats-server or OTHERIX_NATS_SERVER".to_owned())
            }
            Self::InUse { .. } => {
                Some("stop the otherixd that uses this state folder, or choose another folder".to_owned())
            }
            Self::Ended { log, .. } | Self::NotReady { log, .. } => Some(format!("its log is `{}`", log.display())),
            Self::File { .. } => Some(
                "otherixd must own the state folder and be able to write to it: check owner, mode, free space \
                 and mount options"
                    .to_owned(),
            ),
            Self::Tls(error) => error.hint(),
            Self::Credentials(_) | Self::Folder(_) | Self::Run { .. } => None,
        }
    }
}
