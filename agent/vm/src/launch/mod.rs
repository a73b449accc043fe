//! The launcher: a process with one thread that opens what a VM needs, gives up all privileges, and becomes QEMU. The
//! process id stays the same from the agent's `fork` on.

pub mod cgroup;
mod descriptors;
mod privileges;

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use otherix_runtime::files;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use crate::command_line::{Descriptors, arguments};
use crate::folder::{ProcessRecord, VmFolder, read_json, start_time, write_json};
use crate::spec::LaunchSpec;

/// Descriptors below are stdin, stdout and stderr.
const FIRST_DESCRIPTOR: i32 = 3;

/// Why a VM's process was not started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("cannot {attempt} `{}`", path.display())]
    Io {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot {attempt}")]
    Kernel {
        attempt: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("stdin is not the VM's lock: the launcher is started by the agent")]
    NotLocked,
    #[error(transparent)]
    Tap(#[from] otherix_tun::TapError),
    #[error(transparent)]
    Cgroup(#[from] cgroup::CgroupError),
    #[error("/dev/kvm is for root only: give it a group, for example by `chgrp kvm /dev/kvm; chmod 0660 /dev/kvm`")]
    KvmMode,
    #[error("the kernel left capabilities after the change of the user")]
    Capabilities,
}

/// Becomes the QEMU process of the VM of that folder; its stdin is the VM's lock, held by the caller. Returns only if
/// that fails. Must be called from the main thread of a process without other threads, as root.
#[must_use]
pub fn launch(folder: &Path) -> LaunchError {
    // It returns only an error.
    match run(&VmFolder::new(folder)) {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

/// An error and its causes, on one line.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn run(folder: &VmFolder) -> Result<std::convert::Infallible, LaunchError> {
    let _lock = inherit_lock(folder)?;
    let path = folder.launch_spec();
    let spec: LaunchSpec = read_json(&path)
        .and_then(|spec| spec.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(|source| LaunchError::Io { attempt: "read", path, source })?;
    record_process(folder)?;
    // A session of its own: no signal of the agent's terminal reaches it. It fails if it leads one already.
    let _leader = rustix::process::setsid();
    rustix::process::umask(Mode::from_raw_mode(0o077));
    if let Some(cgroup) = &spec.cgroup {
        cgroup::enter(cgroup, &spec)?;
    }
    let (descriptors, _open) = open(folder, &spec)?;
    rustix::process::chdir("/").map_err(|error| kernel("change the folder", error))?;
    privileges::give_up(&spec)?;
    let source = Command::new(&spec.program).args(arguments(&spec, &descriptors)).env_clear().exec();
    Err(LaunchError::Io { attempt: "execute", path: spec.program, source })
}

/// Moves the lock from stdin to a descriptor that QEMU inherits and does not know of.
fn inherit_lock(folder: &VmFolder) -> Result<OwnedFd, LaunchError> {
    let stdin = io::stdin();
    let lock = fcntl_dupfd_cloexec(stdin.as_fd(), FIRST_DESCRIPTOR).map_err(|_| LaunchError::NotLocked)?;
    let lock = File::from(lock);
    let expected = folder.lock_file().symlink_metadata().map_err(|_| LaunchError::NotLocked)?;
    let found = lock.metadata().map_err(|_| LaunchError::NotLocked)?;
    if (found.dev(), found.ino()) != (expected.dev(), expected.ino()) {
        return Err(LaunchError::NotLocked);
    }
    // Succeeds if it is held by this very open file description.
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| LaunchError::NotLocked)?;
    let path = Path::new("/dev/null");
    let null = File::open(path).map_err(|source| LaunchError::Io { attempt: "open", path: path.into(), source })?;
    rustix::stdio::dup2_stdin(&null).map_err(|error| kernel("close stdin", error))?;
    // Whatever else the agent may have left open, QEMU must not have.
    descriptors::close_on_exec(FIRST_DESCRIPTOR).map_err(|error| kernel("close descriptors", error))?;
    fcntl_setfd(&lock, FdFlags::empty()).map_err(|error| kernel("keep the lock", error))?;
    Ok(lock.into())
}

/// All that the process opens, by the numbers that QEMU is told, and the descriptors themselves.
fn open(folder: &VmFolder, spec: &LaunchSpec) -> Result<(Descriptors, Vec<OwnedFd>), LaunchError> {
    let mut open = Vec::new();
    let mut keep = |descriptor: BorrowedFd<'_>| {
        let inherited = fcntl_dupfd_cloexec(descriptor, FIRST_DESCRIPTOR)
            .and_then(|inherited| fcntl_setfd(&inherited, FdFlags::empty()).map(|()| inherited))
            .map_err(|error| kernel("pass a descriptor on", error))?;
        let number = inherited.as_raw_fd();
        open.push(inherited);
        Ok::<_, LaunchError>(number)
    };
    let mut read = OpenOptions::new();
    read.read(true);
    let mut change = OpenOptions::new();
    change.read(true).write(true);
    let mut append = OpenOptions::new();
    append.append(true).create(true);

    let tap = match &spec.nic {
        Some(nic) => Some(keep(otherix_tun::attach_descriptor(&nic.tap, nic.offload)?.as_fd())?),
        None => None,
    };
    let seed = match &spec.seed {
        Some(seed) => Some(keep(open_file(seed, read.clone())?.as_fd())?),
        None => None,
    };
    let descriptors = Descriptors {
        disk: keep(open_file(&spec.disk, change)?.as_fd())?,
        base: keep(open_file(&spec.base.path, read)?.as_fd())?,
        seed,
        tap,
        qmp: keep(listen(folder, VmFolder::QMP_SOCKET)?.as_fd())?,
        console: keep(listen(folder, VmFolder::CONSOLE_SOCKET)?.as_fd())?,
        console_log: keep(open_file(&folder.console_log(), append)?.as_fd())?,
    };
    Ok((descriptors, open))
}

/// Opens a regular file of mode 0600, if it is created; never by a symbolic link.
fn open_file(path: &Path, mut options: OpenOptions) -> Result<File, LaunchError> {
    let failed = |source| LaunchError::Io { attempt: "open", path: path.to_owned(), source };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options.mode(0o600).custom_flags(flags.bits().cast_signed()).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_file() { Ok(file) } else { Err(failed(io::Error::other("it is not a regular file"))) }
}

/// Listens on a socket in the VM's folder, whose path may be longer than that of a socket.
fn listen(folder: &VmFolder, name: &str) -> Result<UnixListener, LaunchError> {
    let path = folder.path().join(name);
    let failed = |source| LaunchError::Io { attempt: "listen on", path: path.clone(), source };
    // The lock is held: one that is there is of an ended process.
    files::remove(&path).map_err(failed)?;
    rustix::process::chdir(folder.path()).map_err(|error| failed(error.into()))?;
    UnixListener::bind(name).map_err(failed)
}

fn record_process(folder: &VmFolder) -> Result<(), LaunchError> {
    let path = folder.process_record();
    let pid = std::process::id().cast_signed();
    let record = start_time(pid).map(|start_time| ProcessRecord { pid, start_time });
    let written = record.ok_or_else(|| io::Error::other("/proc is missing")).and_then(|it| write_json(&path, &it));
    written.map_err(|source| LaunchError::Io { attempt: "write", path, source })
}

fn kernel(attempt: &'static str, source: rustix::io::Errno) -> LaunchError {
    LaunchError::Kernel { attempt, source: source.into() }
}
