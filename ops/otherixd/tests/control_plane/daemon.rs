//! An `otherixd` for one test: the program that cargo built, on a temporary state folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use otherix_identity::jwt::{self, Claims, User};
use otherix_identity::{Creds, KeyKind, KeyPair};
use otherix_runtime::{Runtime, SystemRuntime};
use otherix_schemas::enrollment::{
    CreateJoinToken, EnrollNode, GetEnrolledNode, GetJoinTokenCredential, JoinTokenById, JoinTokenCredentialView,
    JoinTokenView, NewJoinToken, NewNodeKey, NodeCredentialView, NodeKeyView, NodeToEnroll,
};
use otherix_schemas::error::ErrorBody;
use otherix_schemas::id::NodeId;
use otherix_schemas::network::{
    CreateNetwork, GetNetwork, ListNetworks, NetworkById, NetworkDraft, NetworkPageRequest, NetworkView,
};
use otherix_schemas::request::{Answer, Request};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::UserKey;
use otherix_testkit::python::nats_py;
use otherix_testkit::wait::wait_for;
use otherix_testkit::{TempDir, tempdir};
use otherix_transport::request::{CallError, CallOptions};
use otherix_transport::{Credentials, JetStream, Nats, NatsEndpoint};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A state folder and the process that uses it.
pub(crate) struct OtherixdProcess {
    process: Child,
    log: PathBuf,
    folder: TempDir,
    listen: String,
    extra_args: &'static [&'static str],
    starts: u32,
    /// Number of events in the journal when it served for the first time, and of those about join tokens since.
    preparing: AtomicU64,
}

/// The command that runs otherixd on a folder.
pub(crate) fn command(state: &Path, listen: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otherixd"));
    command
        .arg("run")
        .arg("--state")
        .arg(state)
        .args(["--listen", listen])
        .env("OTHERIX_LOG", "info,otherix_transport=debug");
    // The server installed by the setup script, if there is one.
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/bin/nats-server");
    if installed.is_file() {
        command.arg("--nats-server").arg(installed);
    }
    command
}

/// Runs another subcommand on a folder; returns whether it succeeded, stdout and stderr.
pub(crate) async fn tool(state: &Path, arguments: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otherixd"));
    command.args(arguments).arg("--state").arg(state);
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/bin/nats-server");
    // A backup needs no NATS.
    if installed.is_file() && arguments.first() != Some(&"backup") {
        command.arg("--nats-server").arg(installed);
    }
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

impl OtherixdProcess {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts it with extra arguments, which restarts use too.
    pub(crate) async fn start_with(extra_args: &'static [&'static str]) -> Self {
        Self::start_in(tempdir().unwrap(), extra_args).await
    }

    /// Starts it on an existing folder.
    pub(crate) async fn start_in(folder: TempDir, extra_args: &'static [&'static str]) -> Self {
        let listen = "127.0.0.1:0".to_owned();
        let log = folder.path().join("otherixd-0.log");
        let process = spawn(folder.path(), &listen, &log, extra_args);
        let mut daemon = Self { process, log, folder, listen, extra_args, starts: 0, preparing: AtomicU64::new(0) };
        daemon.listen = daemon.url().await.trim_start_matches("nats://").to_owned();
        daemon.preparing = AtomicU64::new(daemon.count_events("count(*)").parse().unwrap());
        daemon
    }

    /// The position of an event, numbered from 1 after those of the first start and about join tokens.
    pub(crate) fn position(&self, number: u64) -> u64 {
        self.preparing.load(Ordering::Relaxed) + number
    }

    /// Restarts it at the same address.
    pub(crate) async fn start_again(&mut self) {
        self.launch();
        self.url().await;
    }

    /// Restarts it without waiting until it serves.
    pub(crate) fn launch(&mut self) {
        self.starts += 1;
        self.log = self.folder.path().join(format!("otherixd-{}.log", self.starts));
        self.process = spawn(self.folder.path(), &self.listen, &self.log, self.extra_args);
    }

    /// Stops it with SIGTERM.
    pub(crate) async fn stop(&mut self) {
        self.signal(Signal::TERM);
        assert!(self.wait_for_exit().await.success(), "{}", self.log());
    }

    pub(crate) fn state(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it serves, and returns the URL that it logs.
    pub(crate) async fn url(&self) -> String {
        wait_for(DEADLINE, "the control plane to serve", async || {
            let log = self.log();
            let ready = log.lines().find(|line| line.contains("the control plane serves"));
            ready.and_then(|line| line.split("url=\"").nth(1)?.split('"').next().map(str::to_owned)).ok_or(log)
        })
        .await
    }

    pub(crate) fn credentials(&self, user: &str) -> PathBuf {
        self.folder.path().join(format!("credentials/{user}.creds"))
    }

    pub(crate) async fn connect(&self, user: &str) -> Nats {
        self.connect_as(Creds::load(&self.credentials(user)).unwrap()).await
    }

    /// Connects with any credentials.
    pub(crate) async fn connect_as(&self, creds: Creds) -> Nats {
        let credentials = Credentials::Key(Arc::new(creds));
        let url = format!("nats://{}", self.listen);
        Nats::lasting(&NatsEndpoint::new(url, credentials), "test").await.unwrap()
    }

    /// The credential in a new join token.
    pub(crate) async fn join_token(&self, name: Option<&str>, max_uses: u32) -> Creds {
        let admin = self.connect("admin").await;
        let pair = KeyPair::generate(KeyKind::User).unwrap();
        let now = SystemRuntime.now().unwrap().unix_micros();
        let expires_at = Timestamp::from_unix_micros(now + 3_600_000_000).unwrap();
        let node_name = name.map(|name| name.parse().unwrap());
        let draft = NewJoinToken { node_name, key: user_key(&pair), expires_at, max_uses };
        let created: JoinTokenView = call(&admin, Request::of::<CreateJoinToken>(), &draft, None).await.unwrap().data;
        self.preparing.fetch_add(1, Ordering::Relaxed);
        let by_id = JoinTokenById { id: created.id };
        let credential: JoinTokenCredentialView =
            call(&admin, Request::of::<GetJoinTokenCredential>(), &by_id, None).await.unwrap().data;
        Creds::new(credential.jwt, pair).unwrap()
    }

    /// Has a machine join with a token that names it; returns the credentials of the node.
    pub(crate) async fn enroll(&self, node_id: NodeId, name: &str) -> Creds {
        let machine = self.connect_as(self.join_token(Some(name), 1).await).await;
        let pair = KeyPair::generate(KeyKind::User).unwrap();
        let key = user_key(&pair);
        let body = NodeToEnroll { name: name.parse().unwrap(), key: key.clone(), node_id: Some(node_id) };
        let _: NodeKeyView = call(&machine, Request::of::<EnrollNode>(), &body, None).await.unwrap().data;
        self.preparing.fetch_add(1, Ordering::Relaxed);
        let enrolled: NodeCredentialView =
            call(&machine, Request::of::<GetEnrolledNode>(), &NewNodeKey { key }, None).await.unwrap().data;
        Creds::new(enrolled.jwt, pair).unwrap()
    }

    /// As [`OtherixdProcess::enroll`]; returns a connection of the node.
    pub(crate) async fn node(&self, node_id: NodeId, name: &str) -> Nats {
        self.connect_as(self.enroll(node_id, name).await).await
    }

    /// A key of the control plane.
    pub(crate) fn identity_key(&self, name: &str) -> KeyPair {
        let text = fs::read_to_string(self.folder.path().join(format!("identity/{name}.nk"))).unwrap();
        KeyPair::from_seed(text.trim()).unwrap()
    }

    /// A user of a kind, signed as the control plane signs it.
    pub(crate) fn sign(&self, scope: &str, account: &str) -> Creds {
        let (signing, account) =
            (self.identity_key(&format!("signing-{scope}")), self.identity_key(&format!("account-{account}")));
        let user = KeyPair::generate(KeyKind::User).unwrap();
        let claims = Claims::new(user.public_key(), "test", 1, User::scoped(account.public_key()));
        Creds::new(jwt::encode(claims, &signing).unwrap(), user).unwrap()
    }

    /// The credentials file of another user of a part of the control plane.
    pub(crate) fn credentials_of_part(&self, part: &str, account: &str) -> PathBuf {
        let path = self.folder.path().join(format!("test-{part}.creds"));
        otherix_runtime::files::replace(&path, self.sign(part, account).render().as_bytes()).unwrap();
        path
    }

    pub(crate) async fn jetstream(&self, credentials: &Path) -> async_nats::jetstream::Context {
        let endpoint = NatsEndpoint::new(self.url().await, Credentials::load(credentials).unwrap());
        JetStream::lasting(&endpoint, "test").await.unwrap().context()
    }

    /// The JetStream API of the account of the mirror.
    pub(crate) async fn mirror(&self) -> async_nats::jetstream::Context {
        self.jetstream(&self.credentials_of_part("mirror", "events")).await
    }

    /// The JetStream API of the account of the stream.
    pub(crate) async fn stream(&self) -> async_nats::jetstream::Context {
        self.jetstream(&self.credentials_of_part("relay", "control")).await
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(crate) async fn wait_for_exit(&mut self) -> ExitStatus {
        wait_for(DEADLINE, "the process to end", async || self.process.try_wait().unwrap()).await
    }

    /// The nats-server processes of this folder.
    pub(crate) fn servers(&self) -> Vec<i32> {
        servers(self.state())
    }

    pub(crate) async fn wait_for_no_servers(&self) {
        wait_for(DEADLINE, "no nats-server", async || match self.servers() {
            pids if pids.is_empty() => Ok(()),
            pids => Err(pids),
        })
        .await;
    }

    /// Aggregates of the events in the journal.
    fn count_events(&self, aggregates: &str) -> String {
        let (journal, query) = (self.state().join("journal.db"), format!("SELECT {aggregates} FROM events"));
        let output = Command::new("sqlite3").args(["-readonly", journal.to_str().unwrap(), &query]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Asserts with an independent client that the clients' stream is a copy of the journal; returns the number of
    /// events but those of the first start and about join tokens.
    pub(crate) async fn assert_stream_is_copy(&self) -> u64 {
        let expected = self.count_events("count(*), coalesce(max(position), 0)");
        let events: u64 = expected.split('|').next().unwrap().parse().unwrap();
        let context = self.mirror().await;
        wait_for(DEADLINE, "the mirror", async || {
            let stream = context.get_stream("OTHERIX_EVENTS").await.map_err(|error| error.to_string())?;
            // A mirror of an earlier epoch may have as many messages, and is about to be recreated.
            let state = &stream.cached_info().state;
            let found = format!("{}|{}", state.messages, state.last_sequence);
            if found == expected { Ok(()) } else { Err(format!("{found} instead of {expected}")) }
        })
        .await;
        let (journal, credentials) = (self.state().join("journal.db"), self.credentials("admin"));
        let arguments = [&self.url().await, journal.to_str().unwrap(), credentials.to_str().unwrap()];
        let output = nats_py(include_str!("../../../../commands/tests/copy.py"), &arguments).await;
        assert_eq!(output.trim(), events.to_string());
        events - self.position(0)
    }
}

impl Drop for OtherixdProcess {
    fn drop(&mut self) {
        // It may have ended already; its server ends with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The public key as requests contain it.
pub(crate) fn user_key(pair: &KeyPair) -> UserKey {
    pair.public_key().as_str().parse().unwrap()
}

fn spawn(state: &Path, listen: &str, log: &Path, extra_args: &[&str]) -> Child {
    let log = File::create(log).unwrap();
    command(state, listen).args(extra_args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

fn servers(state: &Path) -> Vec<i32> {
    let config = state.join("nats/nats.conf");
    let runs_server = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == config.as_os_str().as_encoded_bytes())
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(runs_server).collect()
}

/// Makes one attempt to call.
pub(crate) async fn try_call<Data: DeserializeOwned>(
    connection: &Nats,
    request: Request,
    body: &(impl Serialize + Sync),
    key: Option<&str>,
) -> Result<Answer<Data>, CallError> {
    let options = CallOptions { timeout: Duration::from_secs(3), idempotency_key: key.map(str::to_owned) };
    connection.call_untyped(request, body, options).await
}

/// Retries until there is an answer, which may be a refusal. Commands have an idempotency key.
pub(crate) async fn call<Data: DeserializeOwned>(
    connection: &Nats,
    request: Request,
    body: &(impl Serialize + Sync),
    key: Option<&str>,
) -> Result<Answer<Data>, ErrorBody> {
    wait_for(DEADLINE, "an answer", async || match try_call(connection, request, body, key).await {
        Ok(answer) => Ok(Ok(answer)),
        Err(CallError::Refused(refusal)) if refusal.error.code.status() != 503 => Ok(Err(refusal)),
        Err(error) => Err(error.to_string()),
    })
    .await
}

/// A network with a managed bridge.
pub(crate) fn draft(name: &str, bridge: &str) -> NetworkDraft {
    NetworkDraft {
        name: name.to_owned(),
        bridge_name: Some(bridge.to_owned()),
        managed: Some(true),
        ..NetworkDraft::default()
    }
}

/// An overlay; any number of them can exist.
pub(crate) fn overlay(name: &str) -> NetworkDraft {
    NetworkDraft {
        name: name.to_owned(),
        kind: Some("overlay".to_owned()),
        subnet: Some("10.7.0.0/24".to_owned()),
        ..NetworkDraft::default()
    }
}

pub(crate) async fn create(admin: &Nats, draft: &NetworkDraft) -> NetworkView {
    call(admin, Request::of::<CreateNetwork>(), draft, Some(&draft.name)).await.unwrap().data
}

pub(crate) async fn get(admin: &Nats, view: &NetworkView) -> Result<NetworkView, ErrorBody> {
    call(admin, Request::of::<GetNetwork>(), &NetworkById { id: view.id }, None).await.map(|answer| answer.data)
}

/// Lists all networks, page by page.
pub(crate) async fn list_all(admin: &Nats) -> Vec<NetworkView> {
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let request = NetworkPageRequest { kind: None, limit: Some(200), cursor };
        let page: Answer<Vec<NetworkView>> = call(admin, Request::of::<ListNetworks>(), &request, None).await.unwrap();
        all.extend(page.data);
        cursor = page.meta.next_cursor;
        if cursor.is_none() {
            return all;
        }
    }
}
