//! An `otherixd` on an existing NATS, for one test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use otherix_identity::jwt::{self, Claims, User};
use otherix_identity::{Creds, KeyKind, KeyPair};
use otherix_testkit::python::nats_py;
use otherix_testkit::wait::wait_for;
use otherix_testkit::{TempDir, tempdir};
use otherix_transport::{Credentials, JetStream, Nats, NatsEndpoint};
use rustix::process::{Pid, Signal, kill_process};

use super::cluster::OwnNats;
use crate::daemon::DEADLINE;

/// A state folder, and the process that uses it.
pub(super) struct OwnDaemon {
    state: PathBuf,
    process: Option<Child>,
    log: PathBuf,
    starts: u32,
    /// Of this folder, if it is not another process's.
    folder: Option<TempDir>,
}

impl Drop for OwnDaemon {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The arguments with which otherixd uses these servers.
pub(super) fn servers(nats: &OwnNats) -> Vec<String> {
    let mut arguments = vec!["--nats".to_owned(), nats.urls()];
    if nats.ca().is_some() {
        arguments.extend(["--nats-ca".to_owned(), shown(&nats.path("ca.pem"))]);
    }
    arguments
}

/// The arguments with which it pushes accounts.
pub(super) fn keys(nats: &OwnNats) -> [String; 4] {
    [
        "--nats-operator-key".to_owned(),
        shown(&nats.path("operator.nk")),
        "--nats-system-creds".to_owned(),
        shown(&nats.path("system.creds")),
    ]
}

pub(super) fn shown(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Runs another subcommand; returns whether it succeeded, stdout and stderr.
pub(super) async fn run(state: &Path, arguments: &[&str], more: &[String]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otherixd"));
    command.args(arguments).args(more).arg("--state").arg(state);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

impl OwnDaemon {
    /// A state folder that no process uses yet.
    pub(super) fn new() -> Self {
        let folder = tempdir().unwrap();
        let mut daemon = Self::on(folder.path());
        daemon.folder = Some(folder);
        daemon
    }

    /// The state folder of another process, which has ended.
    pub(super) fn on(state: &Path) -> Self {
        Self { log: state.join("own-0.log"), state: state.to_owned(), process: None, starts: 0, folder: None }
    }

    /// Starts it without waiting until it serves.
    pub(super) fn launch(&mut self, arguments: &[String]) {
        self.starts += 1;
        self.log = self.state().join(format!("own-{}.log", self.starts));
        let mut command = Command::new(env!("CARGO_BIN_EXE_otherixd"));
        command.arg("run").arg("--state").arg(self.state()).args(arguments);
        command.env("OTHERIX_LOG", "info,otherix_transport=debug").stdin(Stdio::null()).stdout(Stdio::null());
        self.process = Some(command.stderr(File::create(&self.log).unwrap()).spawn().unwrap());
    }

    /// Starts it, and waits until it serves.
    pub(super) async fn start(&mut self, arguments: &[String]) {
        self.launch(arguments);
        let served = async || {
            let log = self.log();
            if log.contains("the control plane serves") { Ok(()) } else { Err(log) }
        };
        wait_for(DEADLINE, "the control plane to serve", served).await;
    }

    /// Starts it where it cannot serve. Returns its log.
    pub(super) async fn fail(&mut self, arguments: &[String]) -> String {
        self.launch(arguments);
        assert!(!self.wait_for_exit().await.success(), "{}", self.log());
        self.log()
    }

    pub(super) async fn stop(&mut self) {
        kill_process(Pid::from_child(self.process.as_ref().unwrap()), Signal::TERM).unwrap();
        assert!(self.wait_for_exit().await.success(), "{}", self.log());
    }

    async fn wait_for_exit(&mut self) -> ExitStatus {
        let process = self.process.as_mut().unwrap();
        wait_for(DEADLINE, "the process to end", async || process.try_wait().unwrap()).await
    }

    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for a text in its log.
    pub(super) async fn logs(&self, text: &str) {
        wait_for(DEADLINE, text, async || if self.log().contains(text) { Ok(()) } else { Err(self.log()) }).await;
    }

    /// Asserts with an independent client that the clients' stream is a copy of the journal.
    pub(super) async fn assert_stream_is_copy(&self, nats: &OwnNats) {
        let journal = shown(&self.state().join("journal.db"));
        let context = jetstream(nats, &self.sign("mirror", "events")).await;
        let query = "SELECT coalesce(max(position), 0) FROM events";
        let output = Command::new("sqlite3").args(["-readonly", &journal, query]).output().unwrap();
        let head: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        wait_for(DEADLINE, "the mirror", async || {
            let stream = context.get_stream("OTHERIX_EVENTS").await.map_err(|error| error.to_string())?;
            let last = stream.cached_info().state.last_sequence;
            if last == head { Ok(()) } else { Err(format!("{last} instead of {head}")) }
        })
        .await;
        let credentials = shown(&self.state().join("credentials/admin.creds"));
        let mut arguments = vec![nats.servers.last().unwrap().url(), journal, credentials];
        arguments.extend(nats.ca().map(|_| shown(&nats.path("ca.pem"))));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        nats_py(include_str!("../../../../../commands/tests/copy.py"), &arguments).await;
    }

    pub(super) fn admin(&self) -> Creds {
        Creds::load(&self.state().join("credentials/admin.creds")).unwrap()
    }

    /// A user of a kind, signed as the control plane signs it.
    pub(super) fn sign(&self, scope: &str, account: &str) -> Creds {
        let key = |name: String| {
            let text = fs::read_to_string(self.state().join(format!("identity/{name}.nk"))).unwrap();
            KeyPair::from_seed(text.trim()).unwrap()
        };
        let (signing, account) = (key(format!("signing-{scope}")), key(format!("account-{account}")));
        let user = KeyPair::generate(KeyKind::User).unwrap();
        let claims = Claims::new(user.public_key(), "test", 1, User::scoped(account.public_key()));
        Creds::new(jwt::encode(claims, &signing).unwrap(), user).unwrap()
    }
}

/// A lasting connection to whichever server answers.
pub(super) async fn connect(nats: &OwnNats, creds: &Creds) -> Nats {
    let endpoint = NatsEndpoint::new(nats.urls(), Credentials::Key(creds.clone().into())).with_ca(nats.ca());
    Nats::lasting(&endpoint, "test").await.unwrap()
}

/// Whether a server accepts a user.
pub(super) async fn connects(nats: &OwnNats, server: usize, creds: &Creds) -> bool {
    Nats::once(&nats.endpoint(server, creds), "test", DEADLINE).await.is_ok()
}

/// The JetStream API of a user's account.
pub(super) async fn jetstream(nats: &OwnNats, creds: &Creds) -> async_nats::jetstream::Context {
    jetstream_at(nats, &nats.urls(), creds).await
}

/// The same at some of the servers.
pub(super) async fn jetstream_at(nats: &OwnNats, urls: &str, creds: &Creds) -> async_nats::jetstream::Context {
    let endpoint = NatsEndpoint::new(urls, Credentials::Key(creds.clone().into())).with_ca(nats.ca());
    JetStream::once(&endpoint, "test", DEADLINE).await.unwrap().context()
}
