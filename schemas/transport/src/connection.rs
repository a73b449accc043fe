//! A connection to NATS. Two kinds of caller: a command that wants an answer now or an error
//! ([`Connection::once`]), and a service that goes on whatever happens ([`Connection::lasting`]).

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use bytes::Bytes;
use futures::stream::StreamExt;
use otherix_schemas::value::UserId;
use tokio::sync::watch;

use crate::credentials::Credentials;

/// Longest pause between a service's attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_millis(500);

/// How often the connection is checked while nothing is said. With two pings unanswered, the third finds it dead: a service
/// that was cut off connects anew within moments of the healing, where TCP would wait out a pause as long as the cut.
const PING: Duration = Duration::from_secs(1);

/// When a message that has not come back is taken for lost.
const SETTLE_AGAIN: Duration = Duration::from_millis(500);

/// Where to connect, and as whom.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// A URL such as `nats://127.0.0.1:4222`.
    pub url: String,
    /// The user.
    pub credentials: Credentials,
}

impl Endpoint {
    /// The host, as a name or an address, and the port of the first server that the URL names; nothing if it is no URL of NATS.
    pub fn host(&self) -> Option<(String, u16)> {
        let first = self.url.split(',').next().unwrap_or_default().trim();
        let server: ServerAddr = first.parse().ok()?;
        Some((server.host().trim_matches(['[', ']']).to_owned(), server.port()))
    }
}

/// A connection, and how often it has been made.
#[derive(Clone, Debug)]
pub struct Connection {
    client: Client,
    user: UserId,
    url: String,
    connects: watch::Receiver<u64>,
}

/// NATS could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach NATS at `{url}`")]
pub struct ConnectError {
    /// Where.
    pub url: String,
    /// Why.
    #[source]
    pub source: async_nats::ConnectError,
}

/// The connection was closed for good.
#[derive(Debug, thiserror::Error)]
#[error("the connection to NATS cannot be used")]
pub struct SettleError(#[source] async_nats::Error);

impl Connection {
    /// Connects within `timeout`, or fails; used by commands.
    ///
    /// # Errors
    /// When no server answers, or it refuses the credentials.
    pub async fn once(endpoint: &Endpoint, name: &str, timeout: Duration) -> Result<Self, ConnectError> {
        Self::connect(endpoint, name, |options| options.connection_timeout(timeout).max_reconnects(1)).await
    }

    /// Connects now or later, and again after every loss; used by services. Requests that are made
    /// while there is no connection wait, up to their own time-out.
    ///
    /// # Errors
    /// When the endpoint itself is malformed.
    pub async fn lasting(endpoint: &Endpoint, name: &str) -> Result<Self, ConnectError> {
        Self::connect(endpoint, name, |options| {
            options
                .retry_on_initial_connect()
                .max_reconnects(None)
                .connection_timeout(Duration::from_secs(2))
                .ping_interval(PING)
                .subscription_capacity(1 << 16)
                .reconnect_delay_callback(|attempts| {
                    let doubled = 1u64 << attempts.min(9);
                    Duration::from_millis(doubled).min(RECONNECT_MAX)
                })
        })
        .await
    }

    async fn connect(
        endpoint: &Endpoint,
        name: &str,
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
        Ok(Self { client, user, url: endpoint.url.clone(), connects })
    }

    /// Waits until the server has taken in all that this connection was asked for before; a subscription, above all. May take
    /// for ever, while there is no server.
    ///
    /// # Errors
    /// When the connection is closed for good.
    pub async fn settled(&self) -> Result<(), SettleError> {
        let own = self.client.new_inbox();
        let mut arrived = self.client.subscribe(own.clone()).await.map_err(|error| SettleError(error.into()))?;
        loop {
            // The server works through a connection's messages in order: what comes back was behind all of them.
            self.client.publish(own.clone(), Bytes::new()).await.map_err(|error| SettleError(error.into()))?;
            match tokio::time::timeout(SETTLE_AGAIN, arrived.next()).await {
                Ok(Some(_)) => return Ok(()),
                Ok(None) => return Err(SettleError("it is closed".into())),
                // It went down with a connection.
                Err(_) => {}
            }
        }
    }

    /// The client underneath.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// As whom this connection was made.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Where this connection goes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Counts the times that the connection was made; whoever depends on messages not being
    /// missed looks again at every change.
    pub fn connects(&self) -> watch::Receiver<u64> {
        self.connects.clone()
    }
}
