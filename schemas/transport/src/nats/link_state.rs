//! What the log says about a connection: one line for each change of its state, however many attempts there are.

use std::net::SocketAddr;

use otherix_schemas::error::Causes;

use super::failure::{ConnectFailure, CredentialsRefusal};
use crate::tls::TlsFailure;

/// The state of a connection, as it was logged last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum LinkState {
    /// No attempt has ended yet.
    #[default]
    New,
    Connected,
    /// There is no server, or none that answers.
    Unreachable,
    /// The server was reached, and refuses the user or is not trusted.
    Refused(String),
}

/// Logs changes of the state.
#[derive(Debug)]
pub(super) struct StateLog {
    /// The connection's name.
    name: String,
    state: LinkState,
}

impl StateLog {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), state: LinkState::New }
    }

    /// The server has accepted the connection.
    pub(super) fn connected(&mut self, peer: SocketAddr) {
        let Self { name, state } = self;
        match std::mem::replace(state, LinkState::Connected) {
            LinkState::Connected => {}
            LinkState::New => tracing::debug!(connection = name, %peer, "connected to NATS"),
            LinkState::Unreachable | LinkState::Refused(_) => {
                tracing::info!(connection = name, %peer, "connected to NATS again");
            }
        }
    }

    /// The connection was ended, because other credentials are to be used.
    pub(super) fn replaced(&mut self) {
        tracing::info!(connection = self.name, "the credentials were replaced: connecting to NATS with the new ones");
        self.state = LinkState::New;
    }

    /// An attempt failed, or the connection was lost.
    pub(super) fn failed(&mut self, failure: &ConnectFailure) {
        let Self { name, state } = self;
        let refusal = failure.hint();
        let now = match refusal {
            Some(_) => LinkState::Refused(failure.to_string()),
            None => LinkState::Unreachable,
        };
        let error = Causes(failure);
        if *state == now {
            tracing::debug!(connection = name, %error, "there is no connection to NATS");
        } else if let Some(hint) = refusal {
            tracing::error!(connection = name, %error, hint, "cannot use NATS: retrying at growing intervals");
        } else {
            tracing::warn!(connection = name, %error, "there is no connection to NATS: retrying");
        }
        *state = now;
    }
}

impl ConnectFailure {
    /// What to do where a server refuses the user or is not trusted, for a service. None where trying again helps.
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Credentials(CredentialsRefusal::NoNonce) => Some("connect to the NATS server of the control plane"),
            Self::Credentials(_) => Some("get new credentials from the control plane's administrator"),
            Self::Tls(failure) => failure.is_distrust().then(|| failure.hint()),
            Self::Address(_)
            | Self::Connect { .. }
            | Self::TimedOut(_)
            | Self::Closed
            | Self::Io(_)
            | Self::Protocol(_)
            | Self::Refused(_)
            | Self::Unanswered
            | Self::Replaced => None,
        }
    }

    /// Whether the server refuses the user or is not trusted, so that attempts should be rare.
    pub(super) fn is_refusal(&self) -> bool {
        self.hint().is_some()
    }
}

impl TlsFailure {
    /// What to do, in a sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotOffered => {
                "check the address: the control plane's NATS requires TLS unless it listens on loopback"
            }
            Self::Injected => "somebody may have changed the data on its way: check the network and the address",
            Self::UnknownCa { .. } => {
                "copy the CA of this control plane (`identity/tls/ca.pem` in its state folder) and pass it with \
                 `--ca FILE` or `OTHERIX_CA`; if the file is the right one, another server answers at this address"
            }
            Self::WrongName { .. } => {
                "use one of these names in the address, or add the name to the certificate with `otherixd run \
                 --tls-name`"
            }
            Self::Expired => "restart `otherixd`, which renews its own certificate; check the clocks of both machines",
            Self::NotYetValid => "check the clocks of both machines",
            Self::Certificate(_) => "check the certificate of the control plane's NATS",
            Self::Name(_) => "use a host name or an IP address in the address",
            Self::Handshake(_) => "check that the address is that of the control plane's NATS, and that it has TLS 1.3",
            Self::Ca(_) => "pass the CA of the control plane with `--ca FILE` or `OTHERIX_CA`",
        }
    }
}
