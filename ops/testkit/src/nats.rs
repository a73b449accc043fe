//! A real `nats-server` for one test: on a free loopback port, with its own JetStream store, stopped on drop. Owns the
//! process and its folder; knows no subjects or streams of otherix.
//!
//! Calls block for tens of milliseconds, which is acceptable in tests, async ones included.

use std::{
    env, fs,
    io::{self, BufRead, BufReader},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{process::KeptProcess, wait::wait_for_blocking};

/// The folder of the workspace.
pub(crate) const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Time-out of a start, which takes 30 ms on an idle machine.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// Time-out for the greeting of a server that is starting.
const INFO_TIMEOUT: Duration = Duration::from_secs(2);
/// The first version with the JetStream features that otherix uses.
const OLDEST_VERSION: (u64, u64) = (2, 11);
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A server that is running, or was killed and can be restarted on the same port and store.
pub struct NatsServer {
    process: KeptProcess, // dropped before the folder that it writes into
    port: u16,
    folder: TempDir,
}

impl NatsServer {
    /// Starts a server with JetStream and without authentication.
    ///
    /// # Panics
    /// If there is no `nats-server`, or it does not start; with its log.
    #[track_caller]
    #[must_use]
    pub fn start() -> Self {
        Self::start_with_config(|store| {
            let store = store.display();
            format!("jetstream {{ store_dir: \"{store}\", max_memory_store: 64M, max_file_store: 1G }}\n")
        })
    }

    /// Starts a server with the configuration that `config` returns for a JetStream store folder.
    ///
    /// The command line overrides the client port of the configuration. Anything else may be configured; TLS without
    /// `handshake_first`.
    ///
    /// # Panics
    /// If there is no `nats-server`, or it does not start; with its log.
    #[track_caller]
    #[must_use]
    pub fn start_with_config(config: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        let text = config(&folder.path().join("jetstream"));
        fs::write(config_file(folder.path()), text).expect("a configuration can be written");
        // The server chooses a free port and publishes it: no other test can take it in between.
        let (process, port) = start(folder.path(), None);
        Self { process, port, folder }
    }

    /// Sets the configuration from the next [`Self::restart`] on.
    ///
    /// # Panics
    /// If it cannot be written.
    #[track_caller]
    pub fn configure(&self, config: impl FnOnce(&Path) -> String) {
        let folder = self.folder.path();
        fs::write(config_file(folder), config(&folder.join("jetstream"))).expect("a configuration can be written");
    }

    /// Kills the server with SIGKILL and waits until it has ended.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Restarts it on the same port, configuration and store; kills it first if it is running.
    ///
    /// # Panics
    /// If it does not start, with its log.
    #[track_caller]
    pub fn restart(&mut self) {
        self.process.kill9();
        (self.process, self.port) = start(self.folder.path(), Some(self.port));
    }

    /// False after [`Self::kill9`], until [`Self::restart`].
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.process.is_killed()
    }

    /// `nats://127.0.0.1:<port>`; the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{LOOPBACK}:{}", self.port)
    }

    /// The client port on loopback; the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port for other servers of its cluster, as of the last start.
    ///
    /// # Panics
    /// If no cluster is configured.
    #[must_use]
    pub fn route(&self) -> String {
        let ports = read_ports(self.folder.path(), self.pid()).expect("a server that runs has a ports file");
        let url = ports.pointer("/cluster/0").and_then(Value::as_str).expect("a cluster is configured");
        url.rsplit('/').next().unwrap_or(url).to_owned()
    }

    /// The process id of the last start.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The server's log of all starts.
    ///
    /// # Panics
    /// If the log cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(log_file(self.folder.path())).expect("the server's log can be read")
    }
}

fn config_file(folder: &Path) -> PathBuf {
    folder.join("nats.conf")
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("nats.log")
}

/// Starts the server, on `port` or a free one, and returns when it accepts clients.
#[track_caller]
fn start(folder: &Path, port: Option<u16>) -> (KeptProcess, u16) {
    let process = match spawn(folder, port) {
        Ok(process) => process,
        Err(error) => panic!("cannot start `nats-server`: {error}; `make setup` installs it"),
    };
    let info = wait_for_blocking(START_DEADLINE, "`nats-server` to accept clients", || {
        match listening_port(folder, process.id()).and_then(read_info) {
            Ok(info) => Ok(Some(info)),
            Err(_) if process.has_ended() => Ok(None),
            Err(error) => Err(error),
        }
    });
    let Some(ServerInfo { port, version }) = info else {
        let log = fs::read_to_string(log_file(folder)).unwrap_or_default();
        panic!("`nats-server` ended during its start:\n{log}")
    };
    assert!(
        is_new_enough(&version),
        "`nats-server` {version} is too old; `make setup` installs a newer one into .tools/bin"
    );
    (process, port)
}

fn spawn(folder: &Path, port: Option<u16>) -> io::Result<KeptProcess> {
    let log = fs::File::options().create(true).append(true).open(log_file(folder))?;
    let mut command = Command::new(binary()?);
    command
        .args(["--addr", &LOOPBACK.to_string()])
        .args(["--port", &port.map_or("-1".to_owned(), |port| port.to_string())])
        .arg("--config")
        .arg(config_file(folder))
        .arg("--ports_file_dir")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    KeptProcess::spawn(command)
}

/// The server of `OTHERIX_NATS_SERVER`, else that installed by `ops/setup`, else the first on PATH.
fn binary() -> io::Result<PathBuf> {
    if let Some(chosen) = env::var_os("OTHERIX_NATS_SERVER") {
        return Ok(chosen.into());
    }
    let installed = Path::new(PROJECT).join(".tools/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(installed)
        .chain(env::split_paths(&path))
        .map(|folder| folder.join("nats-server"))
        .find(|file| file.is_file())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it is neither in .tools/bin nor on PATH"))
}

/// Reads the client port of process `pid` from its ports file. Retried while the file is incomplete.
fn listening_port(folder: &Path, pid: u32) -> io::Result<u16> {
    let ports = read_ports(folder, pid)?;
    ports
        .pointer("/nats/0")
        .and_then(Value::as_str)
        .and_then(|url| url.rsplit_once(':'))
        .and_then(|(_, port)| port.parse().ok())
        .ok_or_else(|| io::Error::other(format!("no client port in {ports}")))
}

/// Fails while the file is incomplete.
fn read_ports(folder: &Path, pid: u32) -> io::Result<Value> {
    let text = fs::read_to_string(folder.join(format!("nats-server_{pid}.ports")))?;
    Ok(serde_json::from_str(&text)?)
}

/// The part of the server's `INFO` greeting that is used.
struct ServerInfo {
    port: u16,
    version: String,
}

fn read_info(port: u16) -> io::Result<ServerInfo> {
    let stream = TcpStream::connect((LOOPBACK, port))?;
    stream.set_read_timeout(Some(INFO_TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let info = line.strip_prefix("INFO ").ok_or_else(|| io::Error::other(format!("no INFO but `{}`", line.trim())))?;
    let info: Value = serde_json::from_str(info)?;
    let version = info.get("version").and_then(Value::as_str).unwrap_or_default();
    Ok(ServerInfo { port, version: version.to_owned() })
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u64>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= OLDEST_VERSION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_versions_numerically() {
        assert!(is_new_enough("2.11.0"));
        assert!(is_new_enough("2.15.1-beta.2"));
        assert!(is_new_enough("10.0.0"));
        assert!(!is_new_enough("2.9.10"));
        assert!(!is_new_enough("v?"));
    }
}
