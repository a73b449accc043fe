//! A child process that cannot outlive its test. Owns its start, its death and reaping it; never interprets what it does.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::mpsc,
    thread::{self, JoinHandle},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, getppid, set_parent_process_death_signal, waitid};

/// A running child, killed and reaped on drop, and killed by the kernel if the test process dies in whatever way.
///
/// The parent-death signal is sent when the *thread* that started the child ends, so each child has a keeper: a thread that
/// starts it and lives as long as it. The keeper inherits the network namespace of the thread that asked for it.
pub(crate) struct Kept {
    id: u32,
    stop: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Kept {
    /// Starts `command`.
    pub(crate) fn spawn(mut command: Command) -> io::Result<Self> {
        die_with_parent(&mut command);
        let (stop, stopped) = mpsc::channel::<()>();
        let (started, start) = mpsc::channel();
        let keeper = thread::Builder::new().name("keeper".into()).spawn(move || match command.spawn() {
            Ok(child) => {
                let told = started.send(Ok(child.id()));
                // Ends with an error as soon as the other side is dropped, which is how it is told to stop.
                let _dropped = told.is_ok().then(|| stopped.recv());
                kill_and_reap(child);
            }
            Err(error) => {
                let _nobody_waits = started.send(Err(error));
            }
        })?;
        let id = start.recv().map_err(io::Error::other)??;
        Ok(Self { id, stop: Some(stop), keeper: Some(keeper) })
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Kills with SIGKILL and returns when the process is gone. A second call does nothing.
    pub(crate) fn kill9(&mut self) {
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take() {
            keeper.join().expect("the keeper thread does not panic");
        }
    }

    /// True if it has ended by itself (it stays a zombie until it is dropped, so the id is not used again).
    pub(crate) fn has_ended(&self) -> bool {
        let pid = i32::try_from(self.id).ok().and_then(Pid::from_raw);
        let pid = pid.expect("the system gave this id");
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(pid), options), Ok(None))
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.keeper.is_none()
    }
}

impl Drop for Kept {
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
    // SAFETY: the closure makes two plain system calls (prctl, getppid), which are async-signal-safe, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the signal was set; it would never come then.
            if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        });
    }
}
