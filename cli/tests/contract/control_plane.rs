//! A control plane for the tests: the `otherixd` built beside the program, with a temporary state directory. Its
//! `nats-server` ends with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use otherix_identity::Creds;
use otherix_testkit::wait::wait_for_blocking;
use otherix_testkit::{TempDir, tempdir};
use otherix_transport::{Credentials, Nats, NatsEndpoint};

const PROGRAM: &str = env!("CARGO_BIN_EXE_otherix");
const DEADLINE: Duration = Duration::from_secs(20);

/// A running control plane.
pub(crate) struct ControlPlane {
    process: Child,
    directory: TempDir,
    url: String,
}

impl ControlPlane {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a control plane with additional flags.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let directory = tempdir().expect("a directory");
        let log = directory.path().join("otherixd.log");
        let program = PathBuf::from(PROGRAM).with_file_name("otherixd");
        assert!(program.is_file(), "`{}` is not there: `cargo build --workspace` makes it", program.display());
        let mut command = Command::new(program);
        command.arg("run").arg("--state").arg(directory.path()).args(["--listen", "127.0.0.1:0"]).args(flags);
        // The server that `make setup` installed, in case PATH has none that is new enough.
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/nats-server");
        if installed.is_file() {
            command.arg("--nats-server").arg(installed);
        }
        command.env("OTHERIX_LOG", "info").stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&log).expect("a log"));
        let process = command.spawn().expect("otherixd starts");
        let mut control_plane = Self { process, directory, url: String::new() };
        control_plane.url = wait_for_blocking(DEADLINE, "the control plane to serve", || {
            let log = fs::read_to_string(&log).expect("a log");
            let serving = log.lines().find(|line| line.contains("the control plane serves"));
            serving.and_then(|line| line.split("url=\"").nth(1)?.split('"').next().map(str::to_owned)).ok_or(log)
        });
        // The log line precedes the start of both services.
        for (line, code) in [("network list", 0), ("network delete 0198b2c4-7a60-7c3e-9d0f-5b1d2f0a9c11", 3)] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            wait_for_blocking(DEADLINE, "both services", || {
                let output = control_plane.command(&words).output().expect("the program starts");
                if output.status.code() == Some(code) { Ok(()) } else { Err(output) }
            });
        }
        control_plane
    }

    /// The program with these arguments, isolated from the environment of the test run.
    pub(crate) fn command(&self, arguments: &[String]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).stdin(Stdio::null()).env("HOME", "/nonexistent");
        command.env("OTHERIX_NATS_URL", &self.url).env("OTHERIX_CREDENTIALS", self.credentials("admin"));
        command
    }

    /// Connects to NATS directly.
    pub(crate) async fn connect(&self, user: &str) -> Nats {
        self.connect_with(Credentials::load(&self.credentials(user)).expect("credentials")).await
    }

    /// Connects with any credentials.
    pub(crate) async fn connect_as(&self, creds: Creds) -> Nats {
        self.connect_with(Credentials::Key(Arc::new(creds))).await
    }

    async fn connect_with(&self, credentials: Credentials) -> Nats {
        let endpoint = NatsEndpoint::new(self.url.clone(), credentials);
        Nats::once(&endpoint, "test", DEADLINE).await.expect("connected")
    }

    /// The result of a query to the journal, by `sqlite3`.
    pub(crate) fn query(&self, query: &str) -> String {
        let journal = self.directory.path().join("journal.db");
        let output = Command::new("sqlite3").arg(journal).arg(query).output().expect("sqlite3 runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Changes another database of the control plane behind its back, by `sqlite3`; returns what that prints.
    pub(crate) fn alter(&self, file: &str, statement: &str) -> String {
        let mut command = Command::new("sqlite3");
        command.args(["-cmd", ".timeout 5000"]).arg(self.directory.path().join(file)).arg(statement);
        let output = command.output().expect("sqlite3 runs");
        assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn credentials(&self, user: &str) -> PathBuf {
        self.directory.path().join(format!("credentials/{user}.creds"))
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // It may have exited already.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}
