//! The process `otherix-mesh`, which serves the mesh device: started detached, so that it outlives the agent, found by
//! its local socket after a restart, and watched for its end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use otherix_mesh::client::{ClientError, UapiClient};
use otherix_mesh::config::WgDeviceStatus;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};

use crate::model::mesh_device::{MESH, MESH_ALIAS};

/// How long the process may take to serve its socket, or to end: milliseconds, unless the machine is overloaded.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The program that contains the mesh device only.
const PROGRAM: &str = "otherix-mesh";

/// This process's program, even if its file was replaced.
const SELF: &str = "/proc/self/exe";

/// How often a started process is polled: nothing notifies of its socket.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

#[derive(Debug, thiserror::Error)]
pub(super) enum ProcessError {
    #[error("cannot start the mesh device's process `{}`", program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("the mesh device's process ended immediately ({0}): see its last lines in the agent's log")]
    Exited(ExitStatus),
    /// It was started, and still runs.
    #[error("the mesh device's process does not serve its socket")]
    NotServing,
    #[error("cannot communicate with the mesh device's process")]
    Communicate(#[source] ClientError),
    #[error("the mesh device's process does not end")]
    StillRunning,
    /// The private key must not be sent to it.
    #[error("user {0} serves the mesh device's socket, not this agent's user: the device is not configured")]
    ForeignUser(u32),
    #[error("cannot terminate the mesh device's process")]
    Terminate(#[source] io::Error),
}

/// The process that serves a socket.
pub(super) struct MeshProcess {
    program: Option<PathBuf>,
    folder: PathBuf,
    port: u16,
    client: UapiClient,
    /// The process, if this agent started it; to be reaped.
    child: Option<Child>,
}

impl MeshProcess {
    /// `program` is an agent whose subcommand `mesh` to run; by default `otherix-mesh` or this agent. `folder` is that
    /// of the socket.
    pub(super) fn new(program: Option<PathBuf>, folder: &Path, port: u16) -> Self {
        let client = UapiClient::new(folder, MESH);
        Self { program, folder: folder.to_owned(), port, client, child: None }
    }

    pub(super) const fn client(&self) -> &UapiClient {
        &self.client
    }

    pub(super) fn is_serving(&self) -> bool {
        self.watch().is_some()
    }

    /// Returns the status of the device. If no process serves it, starts one, which creates it with this MTU.
    pub(super) fn status(&mut self, mtu: u32) -> Result<WgDeviceStatus, ProcessError> {
        self.reap();
        self.check_owner()?;
        match self.client.get() {
            Err(ClientError::Connect { .. }) => {}
            status => return status.map_err(ProcessError::Communicate),
        }
        let child = self.start(mtu)?;
        tracing::info!(pid = child.id(), "started the mesh device's process");
        let child = self.child.insert(child);
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            match self.client.get() {
                Err(ClientError::Connect { .. }) => {}
                status => return status.map_err(ProcessError::Communicate),
            }
            if let Ok(Some(status)) = child.try_wait() {
                self.child = None;
                return Err(ProcessError::Exited(status));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Err(ProcessError::NotServing)
    }

    fn start(&self, mtu: u32) -> Result<Child, ProcessError> {
        let (program, mut command) = self.command();
        command.args(["--name", MESH, "--alias", MESH_ALIAS, "--detach"]);
        command.arg("--socket-dir").arg(&self.folder);
        command.args(["--port", &self.port.to_string(), "--mtu", &mtu.to_string()]);
        // It logs to the agent's stderr. Its working folder must not keep a file system from being unmounted.
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
        command.env_remove("OTHERIX_CREDENTIALS").env_remove("OTHERIX_NATS_URL");
        command.spawn().map_err(|source| ProcessError::Start { program, source })
    }

    /// Returns `otherix-mesh` if it is in the folder of this program, otherwise this program with the subcommand
    /// `mesh`.
    fn command(&self) -> (PathBuf, Command) {
        let own = std::env::current_exe().ok();
        let separate = own.as_ref().and_then(|own| Some(own.parent()?.join(PROGRAM))).filter(|file| file.is_file());
        if let (None, Some(program)) = (&self.program, separate) {
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

    /// Connects to the process that serves the socket, if there is one. The connection becomes readable when the
    /// process ends, and also when the process closes it because no request is sent.
    pub(super) fn watch(&self) -> Option<UnixStream> {
        UnixStream::connect(self.folder.join(format!("{MESH}.sock"))).ok()
    }

    fn check_owner(&self) -> Result<(), ProcessError> {
        let peer = self.watch().and_then(|stream| socket_peercred(&stream).ok());
        match peer.map(|peer| peer.uid).filter(|uid| *uid != geteuid()) {
            Some(uid) => Err(ProcessError::ForeignUser(uid.as_raw())),
            None => Ok(()),
        }
    }

    /// Returns the process that serves the socket, if an agent started it. Others must not be terminated.
    fn running(&self) -> Option<OwnedFd> {
        let pid = socket_peercred(&self.watch()?).ok()?.pid;
        let process = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
        let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        command_line.split(|byte| *byte == 0).any(|argument| argument == MESH_ALIAS.as_bytes()).then_some(process)
    }

    /// Terminates the process that serves the socket, if an agent started it, and waits until it has ended.
    pub(super) fn terminate(&mut self) -> Result<(), ProcessError> {
        let failed = |error: Errno| ProcessError::Terminate(error.into());
        if let Some(process) = self.running() {
            pidfd_send_signal(&process, Signal::TERM).map_err(failed)?;
            let timeout = Timespec { tv_sec: TIMEOUT.as_secs().try_into().unwrap_or(1), tv_nsec: 0 };
            let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)).map_err(failed)?;
            if ended == 0 {
                return Err(ProcessError::StillRunning);
            }
        }
        self.reap();
        Ok(())
    }

    fn reap(&mut self) {
        self.child.take_if(|child| child.try_wait().is_ok_and(|status| status.is_some()));
    }
}
