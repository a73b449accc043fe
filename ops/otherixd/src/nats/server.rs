//! The NATS of the control plane: one that it starts, or an existing one.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use otherix_identity::KeyPair;
use otherix_transport::NatsEndpoint;
use tokio::sync::Notify;

use super::error::NatsError;
use super::identity::Identity;
use super::own::{OwnNats, OwnNatsSettings, Wanted};
use super::refusals::LogPosition;
use super::supervisor::{NatsSettings, NatsSupervisor};

/// Which NATS to use.
#[derive(Clone, Debug)]
pub(crate) enum NatsChoice {
    Embedded(NatsSettings),
    Own(OwnNatsSettings),
}

/// A NATS that can be used.
pub(crate) enum NatsServer {
    Embedded(NatsSupervisor),
    Own(OwnNats),
}

/// Who changes the accounts on the servers.
#[derive(Clone, Debug)]
pub(crate) enum AccountAuthority {
    /// The control plane, with the keys of the embedded server.
    Embedded,
    /// The control plane, with this key of the operator of an existing NATS.
    Operator(Arc<KeyPair>),
    /// Somebody else: what the control plane revokes does not reach the servers by itself.
    SomebodyElse,
}

/// How the control plane connects to the server.
#[derive(Clone, Debug)]
pub(crate) struct NatsAccess {
    /// As clients on this machine connect. Several are separated by commas.
    pub(crate) url: String,
    /// The system account: changes accounts, and hears of failed authentications.
    pub(crate) claims: Option<NatsEndpoint>,
    /// The stream.
    pub(crate) relay: NatsEndpoint,
    /// The services for people.
    pub(crate) people: NatsEndpoint,
    /// The services for nodes.
    pub(crate) nodes: NatsEndpoint,
    /// The mirror of the stream.
    pub(crate) mirror: NatsEndpoint,
    /// The buckets of the state.
    pub(crate) state: NatsEndpoint,
    /// The mirrors of the buckets.
    pub(crate) state_mirrors: NatsEndpoint,
    pub(crate) identity: Arc<Identity>,
    pub(crate) accounts: AccountAuthority,
    /// Replicas of stream and mirror; `None` leaves existing ones as they are.
    pub(crate) replicas: Option<usize>,
    /// The embedded server's log, and its end before the server was started.
    pub(crate) log: Option<(PathBuf, LogPosition)>,
    /// Requests a restart of the embedded server.
    pub(crate) restart: Option<Arc<Notify>>,
}

impl NatsServer {
    /// Starts the server, or connects to those that exist, and returns when they can be used. The accounts are pushed
    /// to the latter as they are `wanted`.
    ///
    /// # Errors
    /// If NATS cannot be used.
    pub(crate) async fn start(choice: NatsChoice, wanted: Wanted<'_>) -> Result<Self, NatsError> {
        match choice {
            NatsChoice::Embedded(settings) => NatsSupervisor::start(settings).await.map(Self::Embedded),
            NatsChoice::Own(settings) => OwnNats::start(settings, wanted).await.map(Self::Own),
        }
    }

    pub(crate) fn access(&self) -> NatsAccess {
        match self {
            Self::Embedded(supervisor) => supervisor.access(),
            Self::Own(own) => own.access(),
        }
    }

    /// Supervises the embedded server until the future is dropped. Whoever has started the others supervises them.
    pub(crate) async fn run(&mut self) -> Infallible {
        match self {
            Self::Embedded(supervisor) => supervisor.run().await,
            Self::Own(_) => std::future::pending().await,
        }
    }

    /// Stops the embedded server; returns when it has ended.
    pub(crate) async fn stop(self) {
        match self {
            Self::Embedded(supervisor) => supervisor.stop().await,
            Self::Own(_) => {}
        }
    }
}
