//! A control plane for the transcripts: the `otherixd` that was built beside the program, on a folder that goes with the
//! test; its `nats-server` goes with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use otherix_testkit::wait::wait_for_blocking;
use otherix_testkit::{TempDir, tempdir};
use otherix_transport::{Credentials, Nats, NatsEndpoint};

const PROGRAM: &str = env!("CARGO_BIN_EXE_otherix");
const DEADLINE: Duration = Duration::from_secs(20);

/// The control plane and where it is.
pub(crate) struct Plane {
    process: Child,
    folder: TempDir,
    url: String,
}

impl Plane {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// One that is started with more flags.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let folder = tempdir().expect("a folder");
        let log = folder.path().join("otherixd.log");
        let program = PathBuf::from(PROGRAM).with_file_name("otherixd");
        assert!(program.is_file(), "`{}` is not there: `cargo build --workspace` makes it", program.display());
        let mut command = Command::new(program);
        command.arg("run").arg("--state").arg(folder.path()).args(["--listen", "127.0.0.1:0"]).args(flags);
        // The server that the set-up installed, where PATH has none that is new enough.
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/nats-server");
        if installed.is_file() {
            command.arg("--nats-server").arg(installed);
        }
        command.env("OTHERIX_LOG", "info").stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&log).expect("a log"));
        let process = command.spawn().expect("otherixd starts");
        let mut plane = Self { process, folder, url: String::new() };
        plane.url = wait_for_blocking(DEADLINE, "the control plane to serve", || {
            let log = fs::read_to_string(&log).expect("a log");
            let said = log.lines().find(|line| line.contains("the control plane serves"));
            said.and_then(|line| line.split("url=\"").nth(1)?.split('"').next().map(str::to_owned)).ok_or(log)
        });
        // It says so before both services are there.
        for (line, code) in [("network list", 0), ("network delete 0198b2c4-7a60-7c3e-9d0f-5b1d2f0a9c11", 3)] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            wait_for_blocking(DEADLINE, "both services", || {
                let output = plane.command(&words).output().expect("it runs");
                if output.status.code() == Some(code) { Ok(()) } else { Err(output) }
            });
        }
        plane
    }

    /// The program with these arguments, cut off from the environment of whoever runs the tests.
    pub(crate) fn command(&self, arguments: &[String]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).stdin(Stdio::null()).env("HOME", "/nonexistent");
        command.env("OTHERIX_NATS_URL", &self.url).env("OTHERIX_CREDENTIALS", self.credentials("admin"));
        command
    }

    /// A connection without the program.
    pub(crate) async fn connect(&self, user: &str) -> Nats {
        let credentials = Credentials::load(&self.credentials(user)).expect("credentials");
        let endpoint = NatsEndpoint { url: self.url.clone(), credentials };
        Nats::once(&endpoint, "test", DEADLINE).await.expect("connected")
    }

    /// The journal's database.
    pub(crate) fn journal(&self) -> PathBuf {
        self.folder.path().join("journal.db")
    }

    fn credentials(&self, user: &str) -> PathBuf {
        self.folder.path().join(format!("credentials/{user}.json"))
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // It may have ended; its server goes with it.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}
