//! The transport over a NATS server.
//!
//! The protocol is spoken here, not by a client library: the messages of untrusted clients, with any bytes as subjects
//! and headers, must cost nobody but their sender anything (docs/adr/0017).
//!
//! There are two kinds of connection: one for programs that need a result or an error at once ([`Nats::once`]), and one
//! for services, which reconnects indefinitely ([`Nats::lasting`]).

mod address;
mod client;
mod events;
mod failure;
mod handshake;
mod link;
mod link_state;
mod micro;
mod protocol;
#[cfg(test)]
mod protocol_tests;
mod queue;
mod refused;
mod transport;

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use otherix_runtime::{Runtime, SystemRuntime};
use tokio::sync::watch;

use self::client::Client;
use self::link::Lifetime;
use self::transport::NatsTransport;
use crate::connection::Connection;
use crate::credentials::CredentialsSource;
use crate::tls::TrustedCa;

pub use self::address::{AddressError, ServerAddress};
pub use self::failure::{ConnectFailure, CredentialsRefusal};
pub use self::protocol::ProtocolError;

/// Where to connect, and as whom.
#[derive(Clone, Debug)]
pub struct NatsEndpoint {
    /// One or more URLs such as `nats://127.0.0.1:4222`, separated by commas.
    pub url: String,
    pub credentials: Arc<dyn CredentialsSource>,
    /// Plain text, and servers whose certificate no such CA has issued, are refused. Without one, a server decides
    /// whether the connection is encrypted, and its certificate must be from a CA that this machine trusts.
    pub ca: Option<TrustedCa>,
}

impl NatsEndpoint {
    /// Returns an endpoint whose CA this machine trusts.
    pub fn new(url: impl Into<String>, credentials: impl CredentialsSource + 'static) -> Self {
        Self { url: url.into(), credentials: Arc::new(credentials), ca: None }
    }

    /// Sets the CA, if there is one.
    #[must_use]
    pub fn with_ca(self, ca: Option<TrustedCa>) -> Self {
        Self { ca, ..self }
    }

    /// Returns host and port of the first server; `None` if the URL is malformed. The host is a name or an address.
    pub fn host(&self) -> Option<(String, u16)> {
        let ServerAddress { host, port, requires_tls: _ } =
            ServerAddress::parse_list(&self.url).ok()?.into_iter().next()?;
        Some((host, port))
    }
}

/// A connection to NATS.
#[derive(Clone, Debug)]
pub struct Nats {
    connection: Connection,
    peer: watch::Receiver<Option<SocketAddr>>,
}

impl Deref for Nats {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl From<Nats> for Connection {
    fn from(nats: Nats) -> Self {
        nats.connection
    }
}

/// NATS could not be reached, or refuses the user.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach NATS at `{url}`")]
pub struct ConnectError {
    pub url: String,
    #[source]
    pub source: ConnectFailure,
}

impl Nats {
    /// Connects within `timeout`. A connection that is lost is not re-established.
    ///
    /// # Errors
    /// If no server answers in time, or the server refuses the credentials.
    pub async fn once(endpoint: &NatsEndpoint, name: &str, timeout: Duration) -> Result<Self, ConnectError> {
        let (nats, connected) = Self::start(endpoint, name, Lifetime::Once(timeout))?;
        let connected = connected.await.unwrap_or(Err(ConnectFailure::Closed));
        connected.map_err(|source| ConnectError { url: endpoint.url.clone(), source })?;
        Ok(nats)
    }

    /// Returns at once and connects in the background, and again after every loss. Requests that are made meanwhile
    /// wait for the connection until they time out.
    ///
    /// # Errors
    /// If the endpoint's URL is malformed.
    #[expect(clippy::unused_async, reason = "a connection may need I/O before it can be used")]
    pub async fn lasting(endpoint: &NatsEndpoint, name: &str) -> Result<Self, ConnectError> {
        Ok(Self::start(endpoint, name, Lifetime::Lasting)?.0)
    }

    fn start(
        endpoint: &NatsEndpoint,
        name: &str,
        lifetime: Lifetime,
    ) -> Result<(Self, tokio::sync::oneshot::Receiver<Result<(), ConnectFailure>>), ConnectError> {
        let addresses = ServerAddress::parse_list(&endpoint.url)
            .map_err(|error| ConnectError { url: endpoint.url.clone(), source: error.into() })?;
        let runtime: Arc<dyn Runtime> = SystemRuntime::shared();
        let (client, connected) = Client::start(endpoint, addresses, name, lifetime, &runtime);
        let (peer, user) = (client.peer(), client.user_changes());
        let transport = Arc::new(NatsTransport { client, runtime: Arc::clone(&runtime) });
        let connection = Connection::new(transport, user, &endpoint.url, runtime);
        Ok((Self { connection, peer }, connected))
    }

    /// The connection, for code that does not depend on NATS.
    pub fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// The address of the server that has accepted the connection, while there is one.
    pub fn peer(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.peer.clone()
    }
}
