//! One `nats-server` process, from its start until it is reaped. It never outlives its parent: the kernel kills it with
//! the thread that started it, and that is a keeper thread of its own, which lives exactly as long as the child. So it does
//! not matter on which thread of a runtime a server is started or started again.
//!
//! Cancel-safety: a child that is dropped is killed; the keeper reaps it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child as Process, Command, ExitStatus};
use std::sync::mpsc;
use std::thread;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
};
use tokio::sync::oneshot;

/// A running child, or one whose end has not been noticed yet.
pub(super) struct Child {
    pid: u32,
    /// Names this very process, also after it has ended and its id is another's.
    handle: OwnedFd,
    end: oneshot::Receiver<io::Result<ExitStatus>>,
    ended: Option<String>,
}

impl Child {
    /// Starts `command`; the child holds `lock` for as long as it lives. Blocks for the millisecond that a start takes, so
    /// that no child is ever between a start and its owner.
    pub(super) fn spawn(mut command: Command, lock: &File) -> io::Result<Self> {
        prepare(&mut command, lock.try_clone()?);
        let (tell_start, start) = mpsc::channel();
        let (tell_end, end) = oneshot::channel();
        thread::Builder::new().name("nats-keeper".to_owned()).spawn(move || {
            let started = spawn_with_handle(&mut command);
            drop(command); // and with it our copy of the lock
            let (process, started) = match started {
                Ok((process, handle)) => (Some(process), Ok(handle)),
                Err(error) => (None, Err(error)),
            };
            let _the_owner_waits =
                tell_start.send(started.map(|handle| (process.as_ref().map_or(0, Process::id), handle)));
            if let Some(mut process) = process {
                let _nobody_asks_any_more = tell_end.send(process.wait());
            }
        })?;
        let (pid, handle) = start.recv().map_err(io::Error::other)??;
        Ok(Self { pid, handle, end, ended: None })
    }

    /// The process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal; a child that has ended gets none.
    pub(super) fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.handle, signal) {
            tracing::debug!(%error, "nats-server takes no signal: it has ended");
        }
    }

    /// Waits until the child has ended and is reaped, and says how. Cancel-safe; may be asked again.
    pub(super) async fn wait(&mut self) -> &str {
        if self.ended.is_none() {
            let end = match (&mut self.end).await {
                Ok(Ok(status)) => status.to_string(),
                Ok(Err(error)) => error.to_string(),
                Err(_keeper_is_gone) => "unknown".to_owned(),
            };
            self.ended = Some(end);
        }
        self.ended.as_deref().unwrap_or_default()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.signal(Signal::KILL);
        }
    }
}

fn spawn_with_handle(command: &mut Command) -> io::Result<(Process, OwnedFd)> {
    let mut process = command.spawn()?;
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => Ok((process, handle)),
        Err(error) => {
            process.kill()?;
            process.wait()?;
            Err(error.into())
        }
    }
}

#[expect(unsafe_code, reason = "`pre_exec` is unsafe: its closure runs between fork and exec")]
fn prepare(command: &mut Command, lock: File) {
    let parent = getpid();
    // An interrupt on the terminal is for the parent, which stops the child when it has no more use for it.
    command.process_group(0);
    // SAFETY: the closure makes three plain system calls (prctl, getppid, fcntl), which are async-signal-safe, and
    // allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the signal was set; it would never come then.
            if getppid() != Some(parent) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            fcntl_setfd(&lock, FdFlags::empty())?;
            Ok(())
        });
    }
}
