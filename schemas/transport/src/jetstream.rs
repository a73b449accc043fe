//! JetStream, for the control plane, which administers the stream of events: through the client library, on
//! connections that receive nothing that other clients have sent.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Event};
use otherix_runtime::{Backoff, SystemRuntime};
use tokio::sync::watch;

use crate::credentials::{Credentials, PasswordCredentials};
use crate::nats::NatsEndpoint;

/// Delays between attempts to connect.
const RECONNECT_MIN: Duration = Duration::from_millis(2);
const RECONNECT_MAX: Duration = Duration::from_millis(500);

/// How long one attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often an idle connection is checked.
const PING: Duration = Duration::from_secs(1);

/// A connection for the administration of JetStream.
#[derive(Clone, Debug)]
pub struct JetStream {
    client: Client,
    connects: watch::Receiver<u64>,
}

/// NATS could not be reached, or refuses the user.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach NATS at `{url}`")]
pub struct JetStreamConnectError {
    pub url: String,
    #[source]
    pub source: async_nats::ConnectError,
}

fn authenticated(credentials: &Credentials) -> ConnectOptions {
    match credentials {
        Credentials::Key(creds) => {
            let creds = Arc::clone(creds);
            ConnectOptions::with_jwt(creds.jwt().to_owned(), move |nonce| {
                let creds = Arc::clone(&creds);
                async move { Ok(creds.key().sign(&nonce).to_vec()) }
            })
        }
        Credentials::Password(PasswordCredentials { user, password }) => {
            ConnectOptions::with_user_and_password(user.to_string(), password.clone())
        }
    }
}

impl JetStream {
    /// Connects within `timeout`. A connection that is lost is not re-established.
    ///
    /// # Errors
    /// If no server answers in time, or the server refuses the credentials.
    pub async fn once(endpoint: &NatsEndpoint, name: &str, timeout: Duration) -> Result<Self, JetStreamConnectError> {
        // One attempt for each server.
        let servers = endpoint.url.split(',').count();
        let options = |options: ConnectOptions| options.connection_timeout(timeout).max_reconnects(servers);
        Self::connect(endpoint, name, options).await
    }

    /// Returns at once and connects in the background, and again after every loss.
    ///
    /// # Errors
    /// If the endpoint's URL is malformed.
    pub async fn lasting(endpoint: &NatsEndpoint, name: &str) -> Result<Self, JetStreamConnectError> {
        let random = SystemRuntime::shared();
        let options = |options: ConnectOptions| {
            options
                .retry_on_initial_connect()
                .max_reconnects(None)
                .connection_timeout(CONNECT_TIMEOUT)
                .ping_interval(PING)
                .reconnect_delay_callback(move |attempt| {
                    Backoff::delay_of_attempt(RECONNECT_MIN, RECONNECT_MAX, attempt, random.random_u64())
                })
        };
        Self::connect(endpoint, name, options).await
    }

    async fn connect(
        endpoint: &NatsEndpoint,
        name: &str,
        kind: impl FnOnce(ConnectOptions) -> ConnectOptions,
    ) -> Result<Self, JetStreamConnectError> {
        let NatsEndpoint { url, credentials, ca } = endpoint;
        let credentials = credentials.current();
        let (connected, connects) = watch::channel(0);
        let connected = Arc::new(connected);
        let options = authenticated(&credentials)
            .name(name)
            .custom_inbox_prefix(format!("_INBOX_{}", credentials.user()))
            .ignore_discovered_servers()
            .event_callback(move |event| {
                let connected = Arc::clone(&connected);
                async move {
                    if event == Event::Connected {
                        connected.send_modify(|count| *count += 1);
                    } else {
                        tracing::debug!(event = %event, "nats connection");
                    }
                }
            });
        // With a CA, plain text is refused.
        let options = match ca {
            Some(ca) => options.require_tls(true).tls_client_config(ca.client_config()),
            None => options,
        };
        // The first that accepts the connection, as with the other connections: not a random one.
        let servers: Vec<&str> = url.split(',').map(str::trim).collect();
        let connecting = kind(options).retain_servers_order().connect(servers.as_slice());
        let client = connecting.await.map_err(|source| JetStreamConnectError { url: url.clone(), source })?;
        Ok(Self { client, connects })
    }

    /// The client library's handle.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The JetStream API of the user's account.
    pub fn context(&self) -> Context {
        jetstream::new(self.client.clone())
    }

    /// Counts the times that the connection was established.
    pub fn connects(&self) -> watch::Receiver<u64> {
        self.connects.clone()
    }
}
