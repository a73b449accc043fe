//! A child process that cannot outlive its test: starts, kills and reaps it.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::mpsc,
    thread::{self, JoinHandle},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, getppid, set_parent_process_death_signal, waitid};

/// A running child, killed and reaped on drop, and killed by the kernel if the test process ends in any way.
///
/// The parent-death signal is sent when the *thread* that started the child ends, so each child has a keeper thread
/// that starts it and ends after it. The keeper inherits the network namespace of the calling thread.
pub(crate) struct KeptProcess {
    id: u32,
    stop: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl KeptProcess {
    /// Starts `command`.
    pub(crate) fn spawn(mut command: Command) -> io::Result<Self> {
        die_with_parent(&mut command);
        let (stop, stopped) = mpsc::channel::<()>();
        let (started, start) = mpsc::channel();
        let keeper = thread::Builder::new().name("keeper".into()).spawn(move || match command.spawn() {
            Ok(child) => {
                let reported = started.send(Ok(child.id()));
                // Returns an error as soon as the sender is dropped, which is the signal to stop.
                let _dropped = reported.is_ok().then(|| stopped.recv());
                kill_and_reap(child);
            }
            Err(error) => {
                let _caller_ended = started.send(Err(error));
            }
        })?;
        let id = start.recv().map_err(io::Error::other)??;
        Ok(Self { id, stop: Some(stop), keeper: Some(keeper) })
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Kills it with SIGKILL and returns when it has been reaped. A second call does nothing.
    pub(crate) fn kill9(&mut self) {
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take() {
            keeper.join().expect("the keeper thread does not panic");
        }
    }

    /// True if it has ended by itself. It stays a zombie until it is dropped, so that its id is not reused.
    pub(crate) fn has_ended(&self) -> bool {
        let pid = i32::try_from(self.id).ok().and_then(Pid::from_raw);
        let pid = pid.expect("the id of a child is valid");
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(pid), options), Ok(None))
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.keeper.is_none()
    }
}

impl Drop for KeptProcess {
    fn drop(&mut self) {
        self.kill9();
    }
}

fn kill_and_reap(mut child: Child) {
    // Both fail only if the child was reaped already, and only this thread reaps it.
    child.kill().expect("our own child can be killed");
    child.wait().expect("our own child can be reaped");
}

#[expect(unsafe_code, reason = "`pre_exec` is unsafe: the closure runs between fork and exec")]
fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    // SAFETY: the closure makes two plain system calls (prctl, getppid), which are async-signal-safe, and allocates
    // nothing.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // If the parent ended before the signal was set, the signal is never sent.
            if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        });
    }
}
