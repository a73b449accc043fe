//! The mesh device's process: started detached, so that it outlives the agent, found again by whoever serves its local socket, and
//! watched for its end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::model::mesh_device::{MESH, MESH_ALIAS};
use otherix_mesh::client::{ClientError, UapiClient};
use otherix_mesh::config::WgDeviceStatus;

/// How long a process may take until it serves its socket, or until it has ended: both take milliseconds, but the machine may be
/// busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// The program that is only the mesh device.
const PROGRAM: &str = "otherix-mesh";

/// This program's file, even if it was replaced.
const SELF: &str = "/proc/self/exe";

/// How often it is looked whether it serves: the kernel does not tell.
const LOOK: Duration = Duration::from_millis(5);

/// Why the process does not serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProcessError {
    /// It could not be started.
    #[error("cannot start the mesh device's process `{}`", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended at once. Its log says why.
    #[error("the mesh device's process ended at once ({0}): see its last lines in the agent's log")]
    Ended(std::process::ExitStatus),
    /// It did neither serve nor end.
    #[error("the mesh device's process does not serve its socket")]
    Silent,
    /// It serves, but not as it should.
    #[error("cannot talk to the mesh device's process")]
    Talk(#[source] ClientError),
    /// It does not end.
    #[error("the mesh device's process does not end")]
    Stays,
    /// Somebody else serves the socket, and would be told the private key.
    #[error("user {0} serves the mesh device's socket, not this agent's user: nothing is told there")]
    Stranger(u32),
    /// It could not be told to end.
    #[error("cannot end the mesh device's process")]
    End(#[source] io::Error),
}

/// The process that serves one socket.
pub(super) struct Process {
    program: Option<PathBuf>,
    folder: PathBuf,
    port: u16,
    client: UapiClient,
    /// The one that was started by this agent, to be reaped.
    child: Option<Child>,
}

impl Process {
    /// Of this program, or of another; with its socket in that folder.
    pub(super) fn new(program: Option<PathBuf>, folder: &Path, port: u16) -> Self {
        let client = UapiClient::new(folder, MESH);
        Self { program, folder: folder.to_owned(), port, client, child: None }
    }

    pub(super) const fn client(&self) -> &UapiClient {
        &self.client
    }

    /// Whether there is one.
    pub(super) fn serves(&self) -> bool {
        self.watch().is_some()
    }

    /// What the device is; the process is started if there is none.
    pub(super) fn serve(&mut self, mtu: u32) -> Result<WgDeviceStatus, ProcessError> {
        self.reap();
        self.check_owner()?;
        match self.client.get() {
            Err(ClientError::Connect { .. }) => {}
            served => return served.map_err(ProcessError::Talk),
        }
        let child = self.start(mtu)?;
        tracing::info!(pid = child.id(), "started the mesh device's process");
        let child = self.child.insert(child);
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            match self.client.get() {
                Err(ClientError::Connect { .. }) => {}
                served => return served.map_err(ProcessError::Talk),
            }
            if let Ok(Some(status)) = child.try_wait() {
                self.child = None;
                return Err(ProcessError::Ended(status));
            }
            std::thread::sleep(LOOK);
        }
        Err(ProcessError::Silent)
    }

    fn start(&self, mtu: u32) -> Result<Child, ProcessError> {
        let (program, mut command) = self.command();
        command.args(["--name", MESH, "--alias", MESH_ALIAS, "--detach"]);
        command.arg("--socket-dir").arg(&self.folder);
        command.args(["--port", &self.port.to_string(), "--mtu", &mtu.to_string()]);
        // Its log goes where the agent's goes. It holds no folder that somebody may want to unmount.
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
        command.env_remove("OTHERIX_CREDENTIALS").env_remove("OTHERIX_NATS_URL");
        command.spawn().map_err(|source| ProcessError::Start { program, source })
    }

    /// The lean program `otherix-mesh` if it is in the folder of this one, else this one, which contains the device too.
    fn command(&self) -> (PathBuf, Command) {
        let own = std::env::current_exe().ok();
        let lean = own.as_ref().and_then(|own| Some(own.parent()?.join(PROGRAM))).filter(|file| file.is_file());
        if let (None, Some(program)) = (&self.program, lean) {
            let command = Command::new(&program);
            return (program, command);
        }
        // After an upgrade has replaced this program's file, the kernel still provides it.
        let own = || own.filter(|file| file.exists()).unwrap_or_else(|| SELF.into());
        let program = self.program.clone().unwrap_or_else(own);
        let mut command = Command::new(&program);
        command.arg0("otherix-agent").arg("mesh");
        (program, command)
    }

    /// A connection with the process that serves, which ends with it (and sooner, for nothing is asked); nothing if there is none.
    pub(super) fn watch(&self) -> Option<UnixStream> {
        UnixStream::connect(self.folder.join(format!("{MESH}.sock"))).ok()
    }

    fn check_owner(&self) -> Result<(), ProcessError> {
        let peer = self.watch().and_then(|stream| socket_peercred(&stream).ok());
        match peer.map(|peer| peer.uid).filter(|uid| *uid != rustix::process::geteuid()) {
            Some(stranger) => Err(ProcessError::Stranger(stranger.as_raw())),
            None => Ok(()),
        }
    }

    /// The process that serves, if it is one that an agent started: another program's is nobody's to end.
    fn running(&self) -> Option<OwnedFd> {
        let pid = socket_peercred(&self.watch()?).ok()?.pid;
        let handle = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        line.split(|byte| *byte == 0).any(|word| word == MESH_ALIAS.as_bytes()).then_some(handle)
    }

    /// Has the process end that serves, if an agent started it, and waits for it. That there is none is no error.
    pub(super) fn end(&mut self) -> Result<(), ProcessError> {
        let failed = |error: rustix::io::Errno| ProcessError::End(error.into());
        if let Some(process) = self.running() {
            pidfd_send_signal(&process, Signal::TERM).map_err(failed)?;
            let timeout = Timespec { tv_sec: PATIENCE.as_secs().try_into().unwrap_or(1), tv_nsec: 0 };
            let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)).map_err(failed)?;
            if ended == 0 {
                return Err(ProcessError::Stays);
            }
        }
        self.reap();
        Ok(())
    }

    fn reap(&mut self) {
        self.child.take_if(|child| child.try_wait().is_ok_and(|ended| ended.is_some()));
    }
}
