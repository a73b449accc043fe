//! The way to the control plane: one connection, requests within a bound, repeated where that is safe. It prints nothing.
//!
//! Cancel-safety: a request that is dropped may have been carried out; the same holds for every request without an answer.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{ServerAddr, Subscriber};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::request::{Answer, Request};
use otherix_transport::request::{CallError, CallOptions};
use otherix_transport::{Connection, Credentials, Endpoint};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use crate::args::Global;
use crate::exit::Exit;
use crate::failure::{self, Failure};

/// Everything between the start of a command and its last answer, waiting for nodes and people aside. Whoever waits in vain
/// is told so within 3 s.
const BOUND: Duration = Duration::from_millis(2500);

/// How long one try may take before the request is made again.
const TRY: Duration = Duration::from_millis(1200);

/// Pause before a request is made again.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection to the control plane.
pub(crate) struct Client {
    endpoint: Endpoint,
    connection: Connection,
    deadline: Instant,
    stale: bool,
}

impl Client {
    /// Connects as the user of the credentials file.
    pub(crate) async fn connect(global: &Global) -> Result<Self, Failure> {
        let endpoint = Endpoint { url: server(&global.server)?, credentials: credentials(global)? };
        let deadline = Instant::now() + BOUND;
        let connection = connect(&endpoint, deadline).await?;
        Ok(Self { endpoint, connection, deadline, stale: false })
    }

    /// The same, content with answers that are behind what was acknowledged, if `stale`.
    pub(crate) fn content_with_stale(self, stale: bool) -> Self {
        Self { stale, ..self }
    }

    /// Begins the bound anew: what took so long was a person.
    pub(crate) fn renew(&mut self) {
        self.deadline = Instant::now() + BOUND;
    }

    /// Lets the following requests take until `deadline`, or the usual bound if that is sooner.
    pub(crate) fn renew_until(&mut self, deadline: Instant) {
        self.renew();
        self.deadline = self.deadline.min(deadline);
    }

    /// Asks, and asks again within the bound while there is no answer or "not now". A command is safe to repeat because
    /// every repetition has the same idempotency key.
    pub(crate) async fn call<Body: Serialize + Sync, Data: DeserializeOwned>(
        &mut self,
        request: Request,
        body: &Body,
    ) -> Result<Answer<Data>, Failure> {
        let idempotency_key = match request {
            Request::NetworkCreate
            | Request::NetworkDelete
            | Request::VmCreate
            | Request::VmDelete
            | Request::NodeDelete => Some(Uuid::new_v4().to_string()),
            Request::NetworkGet
            | Request::NetworkFind
            | Request::NetworkList
            | Request::VmGet
            | Request::VmFind
            | Request::VmList
            | Request::NodeGet
            | Request::NodeFind
            | Request::NodeList
            | Request::NodeJoin
            | Request::NodeReport => None,
        };
        loop {
            let timeout = self.deadline.saturating_duration_since(Instant::now()).min(TRY);
            let answer = if self.stale {
                self.connection.call_stale(request, body, timeout).await
            } else {
                let options = CallOptions { timeout, idempotency_key: idempotency_key.clone() };
                self.connection.call(request, body, options).await
            };
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !worth_repeating(&error) || Instant::now() + PAUSE >= self.deadline {
                return Err(Failure::call(error, request));
            }
            sleep(PAUSE).await;
            self.reconnect_if_lost().await?;
        }
    }

    /// The connection gives up at once when it is lost, as it should for most commands.
    async fn reconnect_if_lost(&mut self) -> Result<(), Failure> {
        if self.connection.client().connection_state() != State::Connected {
            self.connection = connect(&self.endpoint, self.deadline).await?;
        }
        Ok(())
    }

    /// Listens to a subject.
    pub(crate) async fn listen(&mut self, subject: String) -> Result<Subscriber, Failure> {
        self.reconnect_if_lost().await?;
        let listened = self.connection.client().subscribe(subject).await;
        listened.map_err(|error| failure::unreachable(self.connection.url(), &failure::causes(&error)))
    }
}

fn worth_repeating(error: &CallError) -> bool {
    match error {
        CallError::Refused(body) => body.error.code == ErrorCode::Unavailable,
        // Services come back a moment after their NATS server does.
        CallError::TimedOut { .. } | CallError::Nats { .. } | CallError::NoService { .. } => true,
        CallError::Malformed(_) => false,
    }
}

async fn connect(endpoint: &Endpoint, deadline: Instant) -> Result<Connection, Failure> {
    // The library bounds each address that a name stands for, not all of them together.
    match timeout_at(deadline, Connection::once(endpoint, "otherix", BOUND)).await {
        Ok(connected) => connected.map_err(|error| Failure::connect(&error)),
        Err(_) => Err(failure::unreachable(&endpoint.url, "no answer in time")),
    }
}

/// The address of NATS. A password in it would be seen in the list of processes and in messages.
fn server(url: &str) -> Result<String, Failure> {
    let address: ServerAddr =
        url.parse().map_err(|_| failure::server("must be an address such as `nats://HOST:PORT`"))?;
    if address.has_user_pass() || address.password().is_some() {
        return Err(failure::server("must not contain a user or password: they belong in the credentials file"));
    }
    if address.host().is_empty() {
        return Err(failure::server("must name a host"));
    }
    Ok(url.to_owned())
}

fn credentials(global: &Global) -> Result<Credentials, Failure> {
    let path = match &global.credentials {
        Some(path) => path.clone(),
        None => default_credentials()?,
    };
    Credentials::load(&path).map_err(|error| Failure::credentials(&error))
}

/// The file under the home folder, if it is there.
fn default_credentials() -> Result<PathBuf, Failure> {
    let missing = |place: String| {
        Failure::new(Exit::Denied, ErrorCode::Unauthenticated, format!("there are no credentials: {place}"))
            .hint("pass `--credentials FILE` or set OTHERIX_CREDENTIALS; `otherix-lab env` sets it for a lab")
    };
    let home = env::home_dir().ok_or_else(|| missing("there is no home folder".to_owned()))?;
    let path = home.join(".config/otherix/credentials.json");
    if path.exists() { Ok(path) } else { Err(missing(format!("no file `{}`", path.display()))) }
}
