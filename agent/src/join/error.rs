//! Why a machine cannot join, and what to do.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use otherix_identity::{Creds, CredsFormatError, KeyError};
use otherix_runtime::{Runtime, SystemRuntime};
use otherix_schemas::decision_chain::DecisionKey;
use otherix_schemas::error::{ErrorBody, ErrorCode, REMOVED_NODE};
use otherix_schemas::id::{ClusterId, NodeId};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::NodeName;
use otherix_transport::nats::{ConnectError, ConnectFailure, CredentialsRefusal};
use otherix_transport::request::CallError;
use otherix_transport::tls::{CaError, TlsFailure};

use super::JoinStep;
use crate::connection::ConnectionError;
use crate::identity::IdentityError;
use crate::trust::TrustError;

/// How a new token is made.
const CREATE: &str = "create another with `otherix node join-token create`";

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(
        "an otherix-agent runs with the state folder `{}`: stop it, join, and start it again", .0.display()
    )]
    AgentRuns(PathBuf),
    #[error(transparent)]
    Identity(IdentityError),
    #[error(transparent)]
    Settings(#[from] ConnectionError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(
        "the node of the state folder `{}` follows a control plane that signs with {known}, and that of the token \
         signs with {found}. If the token is older than the last rotation of the decision key (`otherixd \
         rotate-decision-key`), {CREATE}. If the key was rotated while the agent was stopped, start the agent with its \
         present credentials first, or remove `decision-key.json` from the folder. If the token is of another cluster, \
         join with an empty state folder. If the control plane was replaced on purpose, remove `decision-key.json`",
        folder.display()
    )]
    OtherControlPlane { folder: PathBuf, known: DecisionKey, found: DecisionKey },
    #[error(
        "the state folder `{}` is that of a node of cluster `{known}`, and the token is of cluster `{found}`: join \
         with an empty state folder",
        folder.display()
    )]
    OtherCluster { folder: PathBuf, known: ClusterId, found: ClusterId },
    #[error(
        "the state folder `{}` is that of node `{own}`, and the token joins node `{joined}`: join with an empty state \
         folder",
        folder.display()
    )]
    OtherNode { folder: PathBuf, own: NodeId, joined: NodeId },
    #[error("the join token is for node `{named}`, not for `{name}`: join as `{named}`, or {CREATE}")]
    OtherName { named: NodeName, name: NodeName },
    #[error(
        "joining as `{pending}` with this token was interrupted: repeat it with `--name {pending}`; if it is to be \
         another node, {CREATE}"
    )]
    OtherPendingName { pending: NodeName },
    #[error("the name of this machine cannot be that of a node: choose one with `--name`")]
    HostName(#[source] io::Error),
    #[error("cannot make a key")]
    Key(#[source] KeyError),
    #[error("the CA in the join token has no certificate: {CREATE}")]
    Ca(#[source] CaError),
    #[error("the join token expired at {0}: {CREATE}")]
    Expired(Timestamp),
    #[error("`{server}` does not accept the join token: it is revoked, or of another cluster. If not, {CREATE}")]
    NotAccepted { server: String },
    #[error(
        "the server at `{server}` is not that of the join token: {failure}. Another server answers at this address, or \
         the control plane has a new CA or name since the token was made: {CREATE}"
    )]
    OtherServer { server: String, failure: TlsFailure },
    #[error("cannot reach the control plane: nothing was changed; check address and network, and repeat this command")]
    Connect(#[source] ConnectError),
    #[error("{}{}", .0.error.message, what_to_do(.0))]
    Refused(ErrorBody),
    #[error("the control plane does not answer: repeat this command; the token is not redeemed twice")]
    NoAnswer(#[source] CallError),
    #[error("the control plane has answered with the credential of another key")]
    OtherKey,
    #[error("the control plane has answered with a credential that cannot be used")]
    Credential(#[from] CredsFormatError),
    #[error(
        "`{}` has the key of a join that was interrupted, and cannot be used: the token may have been redeemed with \
         it. Remove the file, and repeat this command; if the token is used up then, {CREATE}",
        path.display()
    )]
    Pending { path: PathBuf, source: Box<dyn Error + Send + Sync> },
    #[error("cannot write `{}`: repeat this command when it can be written", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// By whoever follows the steps.
    #[error("stopped before the step {0:?}")]
    Stopped(JoinStep),
}

impl JoinError {
    /// Whether the same command may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Connect(_) | Self::NoAnswer(_) => true,
            Self::Refused(body) => body.error.code == ErrorCode::Unavailable,
            Self::AgentRuns(_)
            | Self::Identity(_)
            | Self::Settings(_)
            | Self::Trust(_)
            | Self::OtherControlPlane { .. }
            | Self::OtherCluster { .. }
            | Self::OtherNode { .. }
            | Self::OtherName { .. }
            | Self::OtherPendingName { .. }
            | Self::HostName(_)
            | Self::Key(_)
            | Self::Ca(_)
            | Self::Expired(_)
            | Self::NotAccepted { .. }
            | Self::OtherServer { .. }
            | Self::OtherKey
            | Self::Credential(_)
            | Self::Pending { .. }
            | Self::Write { .. }
            | Self::Stopped(_) => false,
        }
    }
}

impl JoinError {
    /// If the control plane was not reached or does not accept the token, and the token has expired, that is why: the
    /// connection has ended then.
    pub(super) fn unless_expired(self, token: &Creds) -> Self {
        let is_not_accepted = matches!(&self, Self::Refused(body) if body.error.code == ErrorCode::Unauthenticated);
        if !self.is_temporary() && !is_not_accepted {
            return self;
        }
        let expiry = token.expires_at().and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(1_000_000));
        let expiry = expiry.and_then(|micros| Timestamp::from_unix_micros(micros).ok());
        match expiry.zip(SystemRuntime.now().ok()) {
            Some((at, now)) if at <= now => Self::Expired(at),
            Some(_) | None => self,
        }
    }
}

fn what_to_do(body: &ErrorBody) -> &'static str {
    if body.error.details.contains_key(REMOVED_NODE) {
        "; to use this machine again, empty its state folder and join with a new token: it is a new node then"
    } else {
        ""
    }
}

impl From<IdentityError> for JoinError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::InUse(folder) => Self::AgentRuns(folder),
            error @ (IdentityError::Folder { .. }
            | IdentityError::Read { .. }
            | IdentityError::Malformed { .. }
            | IdentityError::Missing(_)
            | IdentityError::Write { .. }) => Self::Identity(error),
        }
    }
}

impl From<ConnectError> for JoinError {
    fn from(error: ConnectError) -> Self {
        let ConnectError { url, source } = error;
        match source {
            ConnectFailure::Credentials(CredentialsRefusal::Expired(at)) => Self::Expired(at),
            ConnectFailure::Credentials(CredentialsRefusal::Revoked | CredentialsRefusal::Unknown) => {
                Self::NotAccepted { server: url }
            }
            ConnectFailure::Tls(failure) if failure.is_distrust() => Self::OtherServer { server: url, failure },
            source @ (ConnectFailure::Address(_)
            | ConnectFailure::Connect { .. }
            | ConnectFailure::TimedOut(_)
            | ConnectFailure::Closed
            | ConnectFailure::Io(_)
            | ConnectFailure::Protocol(_)
            | ConnectFailure::Tls(_)
            | ConnectFailure::Credentials(CredentialsRefusal::Password | CredentialsRefusal::NoNonce)
            | ConnectFailure::Credentials(CredentialsRefusal::Other(_))
            | ConnectFailure::Refused(_)
            | ConnectFailure::Unanswered
            | ConnectFailure::Replaced) => Self::Connect(ConnectError { url, source }),
        }
    }
}

impl From<CallError> for JoinError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(body) => Self::Refused(body),
            error @ (CallError::NoService { .. }
            | CallError::TimedOut { .. }
            | CallError::Transport { .. }
            | CallError::Malformed(_)) => Self::NoAnswer(error),
        }
    }
}
