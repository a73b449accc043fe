//! What is wrong with an existing NATS, or with what its operator has given to otherixd, and what to do.

use std::path::PathBuf;

use otherix_identity::KeyError;
use otherix_identity::PublicKey;
use otherix_transport::nats::ConnectFailure;
use otherix_transport::tls::CaError;
use otherix_transport::transport::TransportError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnNatsError {
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error("the operator's key `{}` does not exist", .0.display())]
    NoOperatorKey(PathBuf),
    #[error("`{}` is not the seed of an operator's key", path.display())]
    OperatorKey {
        path: PathBuf,
        #[source]
        source: KeyError,
    },
    #[error("cannot use NATS at `{url}` as {user}")]
    Connect {
        url: String,
        /// Which of otherixd's users.
        user: &'static str,
        #[source]
        source: ConnectFailure,
    },
    #[error("the NATS server at `{url}` is version {version}; at least 2.11 is required")]
    TooOld { url: String, version: String },
    #[error("JetStream cannot be used in the account {account} ({reason})")]
    JetStream { account: String, reason: String },
    #[error("the credentials of --nats-system-creds are not those of a user of the system account")]
    NotSystem,
    #[error("no NATS server answers the user of --nats-system-creds")]
    NoServer,
    #[error("the NATS server {server} does not trust the operator's key {key}")]
    Untrusted { server: String, key: PublicKey },
    #[error("the operator of the NATS server {server} requires signing keys, and {key} is its own key")]
    NotASigningKey { server: String, key: PublicKey },
    #[error("the NATS server does not take accounts: its resolver is not a full one")]
    NoFullResolver,
    #[error("the NATS servers {servers} do not answer about {about}")]
    Silent { servers: String, about: String },
    #[error("the NATS servers do not permit `{subject}` to the user of --nats-system-creds")]
    Denied { subject: String },
    #[error("the NATS server {server} refuses the account {account}: {reason}")]
    Refused { server: String, account: String, reason: String },
    #[error("after the account {account} was pushed, not all servers have it")]
    NotStored { account: String },
    #[error("the account {account} on the NATS servers cannot be read ({reason})")]
    Unreadable { account: String, reason: String },
    #[error("the connection to NATS failed")]
    Transport(#[from] TransportError),
}

impl OwnNatsError {
    /// How to resolve it, where the message does not say so.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            // A server that looks for an account in vain may say that the authentication took too long.
            Self::Connect { source: ConnectFailure::Credentials(_) | ConnectFailure::Refused(_), .. } => Some(
                "the servers do not have the accounts of this state folder, or older ones: push them with `otherixd \
                 accounts push`, or `otherixd accounts print` and `nsc`; if it is the user of --nats-system-creds, \
                 get a file that these servers accept",
            ),
            Self::Connect { source: ConnectFailure::Tls(_), .. } | Self::Ca(_) => Some(
                "give the certificate of the CA that has issued those of the servers with --nats-ca, and the servers' \
                 names as they are in their certificates with --nats",
            ),
            Self::Connect { .. } | Self::NoServer => Some("check the URLs of --nats, and that the servers run"),
            Self::TooOld { .. } => Some("upgrade the NATS servers"),
            Self::JetStream { .. } => Some(
                "enable JetStream in the configuration of the servers, and see that the account's JWT permits it: push \
                 it again with `otherixd accounts push`",
            ),
            Self::Denied { .. } => Some("permit it, and the answers, to this user"),
            Self::NotSystem => Some("make a user in the account that `system_account` of the operator names"),
            Self::Untrusted { .. } => {
                Some("give the seed of a signing key of the operator whose JWT the servers have in `operator`")
            }
            Self::NotASigningKey { .. } => Some("give the seed of one of the operator's signing keys"),
            Self::NoFullResolver => Some(
                "configure `resolver { type: full, dir: … }` on all servers; with another one, put the output of \
                 `otherixd accounts print` into `resolver_preload`, and start without --nats-operator-key",
            ),
            Self::Silent { .. } | Self::NotStored { .. } => {
                Some("check these servers, and that all have a full resolver; then repeat it")
            }
            Self::Unreadable { .. } => Some("remove what was added to it by other means, for example with `nsc`"),
            Self::NoOperatorKey(_) | Self::OperatorKey { .. } | Self::Refused { .. } | Self::Transport(_) => None,
        }
    }
}
