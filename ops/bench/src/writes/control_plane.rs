//! A control plane without nodes, and requests to it as a client sends them: over NATS, as the user `admin`, in JSON.

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, HeaderMap, Message, Request};
use bytes::Bytes;
use otherix_transport::Credentials;
use serde_json::Value;
use uuid::Uuid;

use super::process::{ServerProcess, find, free_port};
use crate::BenchError;
use crate::processor::processor_time_of_all;

/// Connections that requests are spread over.
const CONNECTIONS: usize = 4;

/// How long the control plane may take to serve, and a request to be answered.
const WITHIN: Duration = Duration::from_secs(120);

/// Pause between requests while it starts: the resolution of the time to serving.
const RETRY: Duration = Duration::from_millis(5);

/// `otherixd` with its state in a folder.
pub(super) struct ControlPlane {
    clients: Vec<Client>,
    user: String,
    next: Cell<usize>,
    process: ServerProcess,
}

/// Time from the start of the process to the first answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct StartTimes {
    /// To a command.
    pub(super) commands: Duration,
    /// To a query, which waits for the read models to have applied every event.
    pub(super) queries: Duration,
}

/// Whether requests carry an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyMode {
    None,
    Fresh,
}

impl ControlPlane {
    /// Starts `otherixd` on `state`, and returns it with the times of its first answers.
    pub(super) async fn start(bin_dir: &Path, state: &Path) -> Result<(Self, StartTimes), BenchError> {
        Self::start_with(bin_dir, state, &[]).await
    }

    /// Starts it with more arguments.
    pub(super) async fn start_with(
        bin_dir: &Path,
        state: &Path,
        more: &[&str],
    ) -> Result<(Self, StartTimes), BenchError> {
        let begin = Instant::now();
        let listen = format!("127.0.0.1:{}", free_port()?);
        let program = find("otherixd", bin_dir).ok_or("there is no `otherixd` beside the bench")?;
        let folder = state.to_str().ok_or("the folder's name is not UTF-8")?;
        let arguments = [&["run", "--state", folder, "--listen", &listen], more].concat();
        let mut process = ServerProcess::spawn(&program, &arguments, &state.with_extension("log"))?;
        let mut clients = Vec::new();
        while clients.len() < CONNECTIONS {
            process.check()?;
            match connect(state, &listen).await {
                Ok(client) => clients.push(client),
                Err(error) if begin.elapsed() > WITHIN => return Err(error),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
        let user = user(&state.join("credentials/admin.creds"))?;
        let mut control_plane = Self { clients, user, next: Cell::new(0), process };
        // A command that changes nothing; rejecting it requires the state.
        let commands = control_plane
            .first_answer(begin, "network.delete", r#"{"id":"00000000-0000-7000-8000-000000000000"}"#)
            .await?;
        let queries = control_plane.first_answer(begin, "network.list", LIST).await?;
        Ok((control_plane, StartTimes { commands, queries }))
    }

    /// Sends a request until a service answers it, with a success or a rejection, and returns the time since `begin`.
    async fn first_answer(&mut self, begin: Instant, name: &str, body: &'static str) -> Result<Duration, BenchError> {
        loop {
            self.process.check()?;
            match self.request(name, body, KeyMode::None).await {
                Ok(_) => return Ok(begin.elapsed()),
                Err(error) if error.to_string().contains("not_found") => return Ok(begin.elapsed()),
                Err(error) if begin.elapsed() > WITHIN => return Err(error),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// Creates a network and returns its id.
    pub(super) async fn create(&self, body: String, key: KeyMode) -> Result<String, BenchError> {
        let answer: Value = serde_json::from_slice(&self.request("network.create", body, key).await?)?;
        let id = answer.pointer("/data/id").and_then(Value::as_str);
        Ok(id.ok_or("a created network has no id")?.to_owned())
    }

    pub(super) async fn delete(&self, id: &str) -> Result<(), BenchError> {
        self.request("network.delete", format!(r#"{{"id":"{id}"}}"#), KeyMode::None).await?;
        Ok(())
    }

    /// Waits until the read models have applied every event so far.
    pub(super) async fn caught_up(&self) -> Result<(), BenchError> {
        let begin = Instant::now();
        while let Err(error) = self.request("network.list", LIST, KeyMode::None).await {
            if begin.elapsed() > WITHIN {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Sends a request, and returns the answer unless it is an error.
    pub(super) async fn request(&self, name: &str, body: impl Into<Bytes>, key: KeyMode) -> Result<Bytes, BenchError> {
        let turn = self.next.replace(self.next.get().wrapping_add(1)) % CONNECTIONS;
        let client = self.clients.get(turn).ok_or("there is no connection")?;
        let mut request = Request::new().payload(body.into()).timeout(Some(WITHIN));
        if key == KeyMode::Fresh {
            let mut headers = HeaderMap::new();
            headers.insert("Otherix-Idempotency-Key", Uuid::new_v4().to_string());
            request = request.headers(headers);
        }
        let Message { payload, headers, .. } =
            client.send_request(format!("otherix.req.v1.{}.{name}", self.user), request).await?;
        if headers.is_some_and(|headers| headers.get("Nats-Service-Error-Code").is_some()) {
            return Err(format!("`{name}` is refused: {}", String::from_utf8_lossy(&payload)).into());
        }
        Ok(payload)
    }

    /// Its processor time so far, with that of its NATS server, in seconds.
    pub(super) fn processor_time(&self) -> Result<f64, BenchError> {
        processor_time_of_all(self.process.id())
    }

    /// Stops it, which publishes all stored events to the stream.
    pub(super) async fn stop(self) -> Result<(), BenchError> {
        let Self { clients, process, .. } = self;
        drop(clients);
        process.stop().await
    }
}

const LIST: &str = r#"{"limit":1}"#;

async fn connect(state: &Path, listen: &str) -> Result<Client, BenchError> {
    let file = state.join("credentials/admin.creds");
    let user = user(&file)?;
    let options = ConnectOptions::with_credentials_file(file).await?.custom_inbox_prefix(format!("_INBOX_{user}"));
    Ok(options.max_reconnects(1).connect(listen).await?)
}

/// The user of a credentials file, as in the subjects of its requests.
fn user(file: &Path) -> Result<String, BenchError> {
    Ok(Credentials::load(file)?.user().to_string())
}
