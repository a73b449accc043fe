//! Errors of the control plane's NATS, with their hints.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use otherix_identity::jwt::JwtError;
use otherix_identity::{CredsError, CredsFormatError, KeyError};
use otherix_transport::credentials::CredentialsError;

use super::own::OwnNatsError;
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
    #[error("the key `{}` cannot be used", path.display())]
    Key {
        path: PathBuf,
        #[source]
        source: KeyError,
    },
    #[error("other users have access to `{}` (mode {mode:04o}): run `chmod 600 {}`", path.display(), path.display())]
    SharedKey { path: PathBuf, mode: u32 },
    #[error("the key `{}` is missing", .0.display())]
    MissingKey(PathBuf),
    #[error("the keys in `{}` do not belong together", .0.display())]
    MixedKeys(PathBuf),
    #[error("there is no key that signs users of the kind `{0}`")]
    NoSigningKey(&'static str),
    /// An operation of the embedded server.
    #[error("operator and system account of NATS are not those of this control plane")]
    NoOperator,
    #[error("`accounts.json` in the folder `identity` is damaged")]
    Accounts(#[from] serde_json::Error),
    #[error("cannot generate a key")]
    Generate(#[from] KeyError),
    #[error("cannot sign a JWT, or one in the folder `identity` is damaged")]
    Jwt(#[from] JwtError),
    #[error(transparent)]
    Creds(#[from] CredsError),
    #[error("cannot make credentials")]
    CredsFormat(#[from] CredsFormatError),
    #[error("the credentials in `{}` are from another control plane", .0.display())]
    ForeignCreds(PathBuf),
    #[error("the clock is set to a time that cannot be used")]
    Clock,
    #[error(transparent)]
    Tls(#[from] ServerTlsError),
    #[error(transparent)]
    Own(#[from] OwnNatsError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
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
            Self::Own(error) => error.hint().map(str::to_owned),
            Self::Key { .. } | Self::MissingKey(_) | Self::MixedKeys(_) | Self::Accounts(_) => Some(
                "restore the folder `identity` of the state folder from a backup; if there is none, remove `*.nk`, \
                 `operator.jwt`, `accounts.json` and `first-users.json` from it, and the folder `credentials`; keep \
                 `decision-key.json` and `tls`. All users and nodes then need new credentials"
                    .to_owned(),
            ),
            Self::ForeignCreds(path) => Some(format!("move `{}` elsewhere", path.display())),
            Self::SharedKey { .. }
            | Self::NoSigningKey(_)
            | Self::NoOperator
            | Self::Credentials(_)
            | Self::Generate(_)
            | Self::Jwt(_)
            | Self::Creds(_)
            | Self::CredsFormat(_)
            | Self::Clock
            | Self::Folder(_)
            | Self::Run { .. } => None,
        }
    }
}
