//! The transport over a NATS server.
//!
//! There are two kinds of connection: one for programs that need a result or an error at once ([`Nats::once`]), and one
//! for services, which reconnects indefinitely ([`Nats::lasting`]).

mod transport;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use otherix_runtime::{Backoff, Runtime, SystemRuntime};
use tokio::sync::watch;

use self::transport::NatsTransport;
use crate::connection::Connection;
use crate::credentials::Credentials;

/// Delays between a service's attempts to connect.
const RECONNECT_MIN: Duration = Duration::from_millis(2);
const RECONNECT_MAX: Duration = Duration::from_millis(500);

/// How long one attempt of a service to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often an idle connection is checked. After two unanswered pings it is closed: a service that was cut off
/// reconnects about a second after the network's recovery, whereas TCP would wait as long again as the interruption
/// lasted.
const PING: Duration = Duration::from_secs(1);

/// Messages queued in a service's subscription, above which further ones are dropped.
const SUBSCRIPTION_CAPACITY: usize = 1 << 16;

/// Where to connect, and as whom.
#[derive(Clone, Debug)]
pub struct NatsEndpoint {
    /// One or more URLs such as `nats://127.0.0.1:4222`, separated by commas.
    pub url: String,
    pub credentials: Credentials,
}

impl NatsEndpoint {
    /// Returns host and port of the first server; `None` if the URL is malformed. The host is a name or an address.
    pub fn host(&self) -> Option<(String, u16)> {
        let first = self.url.split(',').next().unwrap_or_default().trim();
        let server: ServerAddr = first.parse().ok()?;
        Some((server.host().trim_matches(['[', ']']).to_owned(), server.port()))
    }
}

/// A connection to NATS: a [`Connection`], and the features that only NATS has. Code that does not administer NATS
/// takes the [`Connection`].
#[derive(Clone, Debug)]
pub struct Nats {
    connection: Connection,
    client: Client,
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
    pub source: async_nats::ConnectError,
}

impl Nats {
    /// Connects within `timeout`. A connection that is lost is not re-established.
    ///
    /// # Errors
    /// If no server answers in time, or the server refuses the credentials.
    pub async fn once(endpoint: &NatsEndpoint, name: &str, timeout: Duration) -> Result<Self, ConnectError> {
        let options = |options: ConnectOptions| options.connection_timeout(timeout).max_reconnects(1);
        Self::connect(endpoint, name, SystemRuntime::shared(), options).await
    }

    /// Returns at once and connects in the background, and again after every loss. Requests that are made meanwhile
    /// wait for the connection until they time out.
    ///
    /// # Errors
    /// If the endpoint's URL is malformed.
    pub async fn lasting(endpoint: &NatsEndpoint, name: &str) -> Result<Self, ConnectError> {
        let runtime = SystemRuntime::shared();
        let random = Arc::clone(&runtime);
        let options = |options: ConnectOptions| {
            options
                .retry_on_initial_connect()
                .max_reconnects(None)
                .connection_timeout(CONNECT_TIMEOUT)
                .ping_interval(PING)
                .subscription_capacity(SUBSCRIPTION_CAPACITY)
                .reconnect_delay_callback(move |attempt| {
                    Backoff::delay_of_attempt(RECONNECT_MIN, RECONNECT_MAX, attempt, random.random_u64())
                })
        };
        Self::connect(endpoint, name, runtime, options).await
    }

    async fn connect(
        endpoint: &NatsEndpoint,
        name: &str,
        runtime: Arc<dyn Runtime>,
        kind: impl FnOnce(ConnectOptions) -> ConnectOptions,
    ) -> Result<Self, ConnectError> {
        let Credentials { user, password } = endpoint.credentials.clone();
        let (connected, connects) = watch::channel(0);
        let options = ConnectOptions::with_user_and_password(user.to_string(), password)
            .name(name)
            .custom_inbox_prefix(format!("_INBOX_{user}"))
            .ignore_discovered_servers()
            .event_callback(move |event| {
                let connected = connected.clone();
                async move {
                    if event == Event::Connected {
                        connected.send_modify(|count| *count += 1);
                    } else {
                        tracing::debug!(event = %event, "nats connection");
                    }
                }
            });
        let client = kind(options)
            .connect(&endpoint.url)
            .await
            .map_err(|source| ConnectError { url: endpoint.url.clone(), source })?;
        let transport = Arc::new(NatsTransport { client: client.clone(), connects });
        let connection = Connection::new(transport, user, &endpoint.url, runtime);
        Ok(Self { connection, client })
    }

    /// The client library's handle.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The JetStream API of the user's account.
    pub fn jetstream(&self) -> Context {
        jetstream::new(self.client.clone())
    }

    /// The connection, for code that does not depend on NATS.
    pub fn connection(&self) -> Connection {
        self.connection.clone()
    }
}
