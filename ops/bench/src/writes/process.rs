//! A server of the bench: a child process that the kernel kills when the bench ends.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::BenchError;

/// How long a server may take to end after SIGTERM.
const END_WITHIN: Duration = Duration::from_secs(30);

/// Interval at which the end of a process is polled.
const POLL: Duration = Duration::from_millis(5);

/// A running server, killed when dropped.
pub(super) struct ServerProcess(Child);

impl ServerProcess {
    /// Runs `program` with its output in the file `log`.
    pub(super) fn spawn(program: &Path, arguments: &[&str], log: &Path) -> Result<Self, BenchError> {
        let log = std::fs::File::options().create(true).append(true).open(log)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        Ok(Self(child.map_err(|error| format!("cannot run `{}`: {error}", program.display()))?))
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Fails if the process has ended.
    pub(super) fn check(&mut self) -> Result<(), BenchError> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("a server ended early: {status}").into()),
        }
    }

    /// Sends SIGTERM and waits for the end.
    pub(super) async fn stop(mut self) -> Result<(), BenchError> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        let deadline = Instant::now() + END_WITHIN;
        while self.0.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err("a server does not end on SIGTERM".into());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped_already = self.0.wait();
    }
}

/// Finds a program in `folder`, or on PATH.
pub(super) fn find(name: &str, folder: &Path) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Returns a loopback port that was free a moment ago.
pub(super) fn free_port() -> Result<u16, BenchError> {
    Ok(std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
