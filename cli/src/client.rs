//! The connection to the control plane: requests with a time limit, repeated where that is safe. Prints nothing.
//!
//! Cancel-safety: a request whose future is dropped may have been carried out, like any request without a reply.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use otherix_runtime::{Backoff, SystemRuntime};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, AsOf, Request, RequestKind, RequestType};
use otherix_schemas::subject::{EVENTS_DOMAIN, STREAM};
use otherix_transport::request::{CallError, CallOptions};
use otherix_transport::transport::{Message, Subscription};
use otherix_transport::{Connection, Nats, NatsEndpoint};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use crate::access;
use crate::failure::{self, Failure};
use crate::offline;
use crate::trace;

/// Time limit of a command, excluding waits for nodes and for a confirmation. Including the start of the process, a
/// command without a reply fails within 3 s.
const LIMIT: Duration = Duration::from_millis(2500);

/// Time limit of one attempt of a request.
const ATTEMPT: Duration = Duration::from_millis(1200);

/// Shortest and longest delay between attempts.
const RETRY_DELAY: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(200)];

/// The header with the position of a message of the stream.
const SEQUENCE: &str = "Nats-Sequence";

/// Options that every command accepts.
#[derive(Clone, Debug, Args)]
pub(crate) struct GlobalArgs {
    /// The address of the NATS server [default: that of the context, or nats://127.0.0.1:4222]
    #[arg(long, global = true, value_name = "URL", env = "OTHERIX_NATS_URL", hide_env_values = true)]
    #[arg(help_heading = "Global options")]
    pub(crate) server: Option<String>,

    /// The credentials file [default: that of the context, or ~/.config/otherix/credentials.creds]
    #[arg(long, global = true, value_name = "FILE", env = "OTHERIX_CREDENTIALS", hide_env_values = true)]
    #[arg(help_heading = "Global options")]
    pub(crate) credentials: Option<PathBuf>,

    /// The file with the CA of the server's certificate; unencrypted connections are refused [default: that of the
    /// context]
    #[arg(long, global = true, value_name = "FILE", env = "OTHERIX_CA", hide_env_values = true)]
    #[arg(help_heading = "Global options")]
    pub(crate) ca: Option<PathBuf>,

    /// The context that names server, credentials and CA [default: the one in use, unless --server or --credentials is
    /// given]
    #[arg(long, global = true, value_name = "NAME", env = "OTHERIX_CONTEXT", hide_env_values = true)]
    #[arg(help_heading = "Global options")]
    pub(crate) context: Option<String>,

    /// Answer `get` and `list` from a folder that `otherix audit replay` has written; no control plane is asked
    #[arg(long, global = true, value_name = "FOLDER", env = "OTHERIX_OFFLINE", hide_env_values = true)]
    #[arg(help_heading = "Global options")]
    pub(crate) offline: Option<PathBuf>,
}

/// A connection to the control plane, or to read models in its place.
pub(crate) struct ControlPlaneClient {
    /// `None`: read models, offline.
    endpoint: Option<NatsEndpoint>,
    connection: Connection,
    deadline: Instant,
    stale: bool,
    /// When queries look at the state, unless it is now.
    at: Option<AsOf>,
}

impl ControlPlaneClient {
    /// Connects as the user of the credentials file.
    ///
    /// # Errors
    /// Also if no control plane is to be asked (`--offline`).
    pub(crate) async fn connect(global: &GlobalArgs) -> Result<Self, Failure> {
        let endpoint = access::endpoint(global)?;
        let deadline = Instant::now() + LIMIT;
        let connection = connect(&endpoint, deadline).await?;
        Ok(Self { endpoint: Some(endpoint), connection, deadline, stale: false, at: None })
    }

    /// Connects for queries that read models alone can answer: to those of `--offline`, if it is given.
    pub(crate) async fn connect_for_queries(global: &GlobalArgs) -> Result<Self, Failure> {
        let Some(folder) = offline::folder(global) else { return Self::connect(global).await };
        if let Some(flag) = access::given_flag() {
            return Err(offline::names_control_plane(flag));
        }
        Ok(Self::offline(offline::open(folder)?.connection(&folder.display().to_string())))
    }

    /// A client of read models.
    pub(crate) fn offline(connection: Connection) -> Self {
        Self { endpoint: None, connection, deadline: Instant::now() + LIMIT, stale: false, at: None }
    }

    /// Where and as whom it is connected.
    ///
    /// # Errors
    /// If it is a client of read models.
    pub(crate) fn endpoint(&self) -> Result<&NatsEndpoint, Failure> {
        self.endpoint.as_ref().ok_or_else(offline::takes_control_plane)
    }

    /// A connection as the same user that lasts: it is established again whenever it is lost.
    ///
    /// # Errors
    /// If this is a client of read models, or its address is malformed.
    pub(crate) async fn lasting(&self) -> Result<Connection, Failure> {
        let connected = Nats::lasting(self.endpoint()?, "otherix console").await;
        let connection: Connection = connected.map_err(|error| Failure::connect(&error))?.into();
        Ok(connection.traced(&trace::context()))
    }

    /// With `stale`, queries may return data that lacks acknowledged changes.
    pub(crate) fn accept_stale(self, stale: bool) -> Self {
        Self { stale, ..self }
    }

    /// Lets queries look at the state at another moment, or now.
    pub(crate) fn look_at(&mut self, at: Option<AsOf>) {
        self.at = at;
    }

    /// Restarts the time limit.
    pub(crate) fn renew(&mut self) {
        self.deadline = Instant::now() + LIMIT;
    }

    /// Restarts the time limit, but ends it at `deadline`.
    pub(crate) fn renew_until(&mut self, deadline: Instant) {
        self.renew();
        self.deadline = self.deadline.min(deadline);
    }

    /// Makes a request, and repeats it within the time limit while there is no reply or the control plane is
    /// temporarily unavailable. Repeating a command is safe, because every attempt has the same idempotency key.
    pub(crate) async fn call<R: RequestType>(&mut self, body: &R::Body) -> Result<Answer<R::Answer>, Failure> {
        self.call_or_try::<R>(body, false).await
    }

    /// Asks the control plane what a command would be answered; nothing changes.
    pub(crate) async fn try_out<R: RequestType>(&mut self, body: &R::Body) -> Result<Answer<R::Answer>, Failure> {
        self.call_or_try::<R>(body, true).await
    }

    async fn call_or_try<R: RequestType>(
        &mut self,
        body: &R::Body,
        dry_run: bool,
    ) -> Result<Answer<R::Answer>, Failure> {
        let request = Request::of::<R>();
        let idempotency_key = match request.kind {
            RequestKind::Command(_) => Some(Uuid::new_v4().to_string()),
            RequestKind::Query
            | RequestKind::Lookup
            | RequestKind::Unrecorded
            | RequestKind::Maintenance
            | RequestKind::Relayed => None,
        };
        let [first, max] = RETRY_DELAY;
        let mut backoff = Backoff::new(first, max, &SystemRuntime);
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let timeout = left.min(ATTEMPT);
            let answer = if let Some(at) = self.at {
                // Queries about the past wait for each other.
                self.connection.call_at::<R>(body, at, left).await
            } else if dry_run {
                self.connection.call_dry_run::<R>(body, timeout).await
            } else if self.stale {
                self.connection.call_stale::<R>(body, timeout).await
            } else {
                let options = CallOptions { timeout, idempotency_key: idempotency_key.clone() };
                self.connection.call::<R>(body, options).await
            };
            let error = match answer {
                Ok(answer) => {
                    // Further queries look at the same state.
                    self.at = self.at.map(|_| AsOf::Position(answer.meta.position));
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let delay = backoff.next_delay();
            if !is_transient(&error) || Instant::now() + delay >= self.deadline {
                return Err(Failure::call(error, request));
            }
            sleep(delay).await;
            self.reconnect_if_lost().await?;
        }
    }

    /// Reconnects if the connection is lost. It does not do so by itself, because most commands should fail at once.
    async fn reconnect_if_lost(&mut self) -> Result<(), Failure> {
        if !self.connection.is_connected() {
            self.connection = connect(self.endpoint()?, self.deadline).await?;
        }
        Ok(())
    }

    /// Reads the message at a position of the clients' mirror of the stream; `None` if it has none there.
    pub(crate) async fn stored_message(&self, position: Position) -> Result<Option<Bytes>, Failure> {
        let subject = format!("$JS.{EVENTS_DOMAIN}.API.DIRECT.GET.{STREAM}");
        let body = serde_json::json!({ "seq": position.get() }).to_string();
        let answer = self.connection.request(Message::new(subject, Bytes::from(body)), LIMIT).await;
        let answer = answer.map_err(|error| failure::unreachable(self.connection.url(), &failure::causes(&error)))?;
        let is_there = answer.headers.get(SEQUENCE) == Some(position.to_string().as_str());
        Ok(is_there.then_some(answer.payload))
    }

    /// Subscribes to a subject.
    pub(crate) async fn subscribe(&mut self, subject: String) -> Result<Subscription, Failure> {
        self.reconnect_if_lost().await?;
        let subscribed = self.connection.subscribe(subject).await;
        subscribed.map_err(|error| failure::unreachable(self.connection.url(), &failure::causes(&error)))
    }
}

/// Whether the same request may succeed a moment later.
pub(crate) fn is_transient(error: &CallError) -> bool {
    match error {
        CallError::Refused(body) => body.error.code == ErrorCode::Unavailable,
        // Services reconnect a moment after their NATS server restarts.
        CallError::TimedOut { .. } | CallError::Transport { .. } | CallError::NoService { .. } => true,
        CallError::Malformed(_) => false,
    }
}

async fn connect(endpoint: &NatsEndpoint, deadline: Instant) -> Result<Connection, Failure> {
    // The time limit of async-nats applies to each address of a name, not to all of them together.
    match timeout_at(deadline, Nats::once(endpoint, "otherix", LIMIT)).await {
        Ok(connected) => {
            let connection: Connection = connected.map_err(|error| Failure::connect(&error))?.into();
            Ok(connection.traced(&trace::context()))
        }
        Err(_) => Err(failure::unreachable(&endpoint.url, "timed out")),
    }
}
