//! One `nats-server` process, from its start until it is reaped. It never outlives its parent: the kernel kills it when
//! the thread that started it ends. That thread is a dedicated keeper thread, which ends after the child, so that a
//! server can be started from any thread of a runtime.
//!
//! Cancel-safety: dropping a child kills it; the keeper reaps it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::thread;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
};
use tokio::sync::oneshot;

/// A child process that may have ended.
pub(super) struct NatsProcess {
    pid: u32,
    /// Refers to this process even after its id has been reused.
    handle: OwnedFd,
    end: oneshot::Receiver<io::Result<ExitStatus>>,
    ended: Option<String>,
}

impl NatsProcess {
    /// Starts `command`; the child inherits `lock` and holds it until it ends. Blocks for about a millisecond, until
    /// the child has an owner.
    pub(super) fn spawn(mut command: Command, lock: &File) -> io::Result<Self> {
        prepare(&mut command, lock.try_clone()?);
        let (report_start, start) = mpsc::channel();
        let (report_end, end) = oneshot::channel();
        thread::Builder::new().name("nats-keeper".to_owned()).spawn(move || {
            let started = spawn_with_handle(&mut command);
            drop(command); // closes this copy of the lock
            let (process, started) = match started {
                Ok((process, handle)) => (Some(process), Ok(handle)),
                Err(error) => (None, Err(error)),
            };
            let _owner_is_waiting =
                report_start.send(started.map(|handle| (process.as_ref().map_or(0, Child::id), handle)));
            if let Some(mut process) = process {
                let _owner_dropped = report_end.send(process.wait());
            }
        })?;
        let (pid, handle) = start.recv().map_err(io::Error::other)??;
        Ok(Self { pid, handle, end, ended: None })
    }

    /// The process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Signals the child unless it has ended.
    pub(super) fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.handle, signal) {
            tracing::debug!(%error, "nats-server cannot be signalled: it has ended");
        }
    }

    /// Waits until the child has ended and is reaped, and returns its status. Cancel-safe; may be called again.
    pub(super) async fn wait(&mut self) -> &str {
        if self.ended.is_none() {
            let end = match (&mut self.end).await {
                Ok(Ok(status)) => status.to_string(),
                Ok(Err(error)) => error.to_string(),
                Err(_keeper_ended) => "unknown".to_owned(),
            };
            self.ended = Some(end);
        }
        self.ended.as_deref().unwrap_or_default()
    }
}

impl Drop for NatsProcess {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.signal(Signal::KILL);
        }
    }
}

fn spawn_with_handle(command: &mut Command) -> io::Result<(Child, OwnedFd)> {
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
    // SIGINT from the terminal must reach the parent only, which stops the child gracefully.
    command.process_group(0);
    // SAFETY: the closure makes three plain system calls (prctl, getppid, fcntl), which are async-signal-safe, and
    // allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // If the parent ended before the signal was set, the signal is never sent.
            if getppid() != Some(parent) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            fcntl_setfd(&lock, FdFlags::empty())?;
            Ok(())
        });
    }
}
