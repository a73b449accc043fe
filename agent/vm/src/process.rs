//! The process of a VM: started by a launcher, found again after a restart of the agent, watched for its end, killed.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use crate::folder::{VmFolder, VmLock, start_time, write_json};
use crate::spec::LaunchSpec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

mod watch {
    #![expect(unsafe_code, reason = "tokio's `AsyncFd` trusts the caller to keep the descriptor open")]

    use std::io;
    use std::os::fd::OwnedFd;

    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    pub(super) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
        // SAFETY: the descriptor stays open as long as it is registered: `AsyncFd` owns it.
        let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
        Ok(registered?)
    }
}

/// Clock ticks of `/proc` in a second (`USER_HZ`): 100 on all platforms that QEMU runs VMs on.
const TICKS: u64 = 100;

/// Longest file of messages to which those of another start are appended, in bytes.
const MESSAGES_MAX: u64 = 64 << 10;

/// What the launcher is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    pub program: PathBuf,
    /// Arguments before the folder.
    pub arguments: Vec<OsString>,
}

/// The process of a VM: first the launcher, then QEMU. Dropping this leaves it alone.
#[derive(Debug)]
pub struct VmProcess {
    pid: i32,
    pidfd: OwnedFd,
    /// If this agent started it: to be reaped.
    child: Option<Child>,
}

/// What a VM has.
#[derive(Debug)]
pub enum Found {
    /// No process, and nobody else can start one while the lock is kept.
    Free(VmLock),
    Running(VmProcess),
    /// A process that is about to end or has just started, or another user of the lock: to be tried again in some
    /// milliseconds.
    Changing,
}

/// Finds the process of a VM.
///
/// # Errors
/// If the folder's files cannot be read; `NotFound` if there is no folder.
pub fn find(folder: &VmFolder) -> io::Result<Found> {
    if let Some(lock) = folder.try_lock()? {
        return Ok(Found::Free(lock));
    }
    // While the lock is held, the record is that of the holder, or of an ended process if the holder has not yet
    // written its own.
    let Some(record) = folder.read_process()? else { return Ok(Found::Changing) };
    let Some(pid) = Pid::from_raw(record.pid) else { return Ok(Found::Changing) };
    let pidfd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(Found::Changing),
        Err(error) => return Err(error.into()),
    };
    // Only now is it certain that the descriptor is that of the recorded process.
    if start_time(record.pid) != Some(record.start_time) {
        return Ok(Found::Changing);
    }
    Ok(Found::Running(VmProcess { pid: record.pid, pidfd, child: None }))
}

/// Starts the VM's process. It has not yet become QEMU when this returns, and may end with an error, which is then in
/// [`VmFolder::messages`].
///
/// # Errors
/// If the folder's files cannot be written, or the launcher cannot be executed.
pub fn start(lock: VmLock, launcher: &Launcher, spec: &LaunchSpec) -> io::Result<VmProcess> {
    lock.clean()?;
    let folder = lock.folder();
    write_json(&folder.launch_spec(), spec)?;
    let messages = open_messages(folder)?;
    let mut command = Command::new(&launcher.program);
    command.args(&launcher.arguments).arg(folder.path()).current_dir("/").env_clear();
    command.stdin(lock.file()?).stdout(messages.try_clone()?).stderr(messages);
    let child = command.spawn()?;
    let pid = child.id().cast_signed();
    // Not reaped yet, so that the id is its own.
    let pidfd = Pid::from_raw(pid).ok_or(Errno::SRCH).and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK))?;
    Ok(VmProcess { pid, pidfd, child: Some(child) })
}

fn open_messages(folder: &VmFolder) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(folder.messages())?;
    if file.metadata()?.len() > MESSAGES_MAX {
        file.set_len(0)?;
    }
    Ok(file)
}

impl VmProcess {
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// How long it has been running, the launcher's milliseconds included; `None` if it has ended.
    pub fn age(&self) -> Option<Duration> {
        let text = std::fs::read_to_string("/proc/uptime").ok()?;
        let uptime: f64 = text.split_whitespace().next()?.parse().ok()?;
        let started = Duration::from_millis(start_time(self.pid)?.saturating_mul(1000 / TICKS));
        // Of another process, if it has ended in between.
        let is_running = !self.wait(Duration::ZERO).ok()?;
        is_running.then(|| Duration::from_secs_f64(uptime.max(0.0)).saturating_sub(started))
    }

    /// Kills it; not an error if it has ended.
    ///
    /// # Errors
    /// Without the permission to.
    pub fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it has ended. Cancel-safe.
    ///
    /// # Errors
    /// If the descriptor cannot be polled.
    pub async fn ended(&self) -> io::Result<()> {
        let pidfd = watch::register(self.pidfd.try_clone()?)?;
        pidfd.readable().await?.retain_ready();
        Ok(())
    }

    /// As [`Self::ended`], for a thread that may block; whether it has ended within the time.
    ///
    /// # Errors
    /// If the descriptor cannot be polled.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let mut descriptors = [PollFd::new(&self.pidfd, PollFlags::IN)];
        Ok(poll(&mut descriptors, Some(&timeout))? > 0)
    }

    /// Reaps it if it has ended and was started by this agent, even by a part of it that is gone: it would remain as a
    /// zombie.
    pub fn collect(&self) {
        // Another agent's is no child of ours.
        let _not_a_child = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }

    /// Reaps it if it has ended: without this, an ended process that this agent started remains as a zombie. The exit
    /// status is known only of those.
    ///
    /// # Errors
    /// Those of `waitpid`.
    pub fn reap(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.as_mut().map_or(Ok(None), Child::try_wait)
    }
}
