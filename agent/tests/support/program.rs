//! The agent as a process, with a state folder that remains after its end.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};

use otherix_agent::identity::FolderLock;
use otherix_agent::trust::Trust;
use otherix_runtime::files;
use otherix_schemas::decision_chain::DecisionSigner;
use otherix_testkit::{TempDir, tempdir};
use rustix::process::{Pid, Signal, kill_process};

use super::DECISION_SEED;

const BINARY: &str = env!("CARGO_BIN_EXE_otherix-agent");

/// The program with its folder.
pub(crate) struct Program {
    /// `None`: it takes everything from its state folder.
    url: Option<String>,
    folder: TempDir,
    child: Option<Child>,
    /// A command that runs the program, if it is not to be started directly.
    pub(crate) wrapper: Vec<String>,
}

impl Program {
    /// Prepares the folder. The program is not started.
    pub(crate) fn new(url: String) -> Self {
        let folder = tempdir().unwrap();
        files::replace(&folder.path().join("credentials"), br#"{"user": "node-1", "password": "x"}"#).unwrap();
        Self { url: Some(url), folder, child: None, wrapper: Vec::new() }
    }

    /// Prepares the folder of one that has to join before it is started.
    pub(crate) fn without_settings() -> Self {
        Self { url: None, folder: tempdir().unwrap(), child: None, wrapper: Vec::new() }
    }

    pub(crate) fn start(url: String) -> Self {
        let mut program = Self::new(url);
        program.spawn();
        program
    }

    /// Starts the program, which must not be running.
    pub(crate) fn spawn(&mut self) {
        if self.url.is_some() && !self.state().exists() {
            self.know_control_plane();
        }
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = self.command();
        command.stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    fn know_control_plane(&self) {
        know_control_plane(&self.state());
    }

    /// Prepares a second program for the same control plane, with a folder of its own.
    pub(crate) fn another(&self) -> Self {
        Self::new(self.url.clone().unwrap())
    }

    /// Starts a second process with the same folder, and waits for its end.
    pub(crate) fn run_second(&self) -> Output {
        self.command().output().unwrap()
    }

    fn command(&self) -> Command {
        let mut arguments = self.wrapper.iter().map(String::as_str).chain([BINARY]);
        let mut command = Command::new(arguments.next().unwrap());
        command.args(arguments).arg("run").arg("--state").arg(self.state()).env("OTHERIX_LOG", "debug");
        if let Some(url) = &self.url {
            command.args(["--name", "node-1", "--nats", url]);
            command.arg("--credentials").arg(self.folder.path().join("credentials"));
        }
        command
    }

    /// Returns another command of the program with its state folder.
    pub(crate) fn other_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg("--state").arg(self.state());
        command
    }

    /// Runs `otherix-agent release`.
    pub(crate) fn release(&self) -> Output {
        Command::new(BINARY).arg("release").arg("--state").arg(self.state()).output().unwrap()
    }

    /// Runs `otherix-agent status`, and returns what it prints.
    pub(crate) fn status(&self) -> String {
        let output = Command::new(BINARY).arg("status").arg("--state").arg(self.state()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `otherix-agent leave`.
    pub(crate) fn leave(&self) -> Output {
        Command::new(BINARY).arg("leave").arg("--state").arg(self.state()).output().unwrap()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Returns how often the log contains a text.
    pub(crate) fn log_count(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    pub(crate) fn stop(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.child.take().unwrap().wait().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.stop(Signal::KILL);
        }
        if std::thread::panicking() {
            std::io::stderr().write_all(self.log().as_bytes()).unwrap();
        }
    }
}

/// Writes the decision key of [`Control`](super::Control) to a state folder, as a join does.
pub(crate) fn know_control_plane(state: &Path) {
    drop(FolderLock::take(state).unwrap());
    Trust::load(state).unwrap().keep(DecisionSigner::from_seed(&DECISION_SEED).public()).unwrap();
}
