//! The files of a VM on its node, and the lock that tells whether it has a process.
//!
//! The lock is a `flock` on an open file description. The agent takes it, the launcher inherits it, and QEMU after it:
//! so it is held exactly as long as one of them lives, whoever is killed at whatever moment, and a second process is
//! never started. It is not passed on: QEMU cannot fork.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use otherix_runtime::files;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::launch::cgroup;
use crate::spec::LaunchSpec;

/// Longest file of state, in bytes.
const STATE_MAX: u64 = 1 << 20;

/// The folder of a VM. Its owner is root; QEMU has no access to it, only to what it inherits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmFolder {
    path: PathBuf,
}

/// Which process a VM has, while the lock is held: a process id may be that of another after its end, a process id with
/// its start time not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    pub pid: i32,
    /// Clock ticks from the start of the machine (field 22 of `/proc/<pid>/stat`).
    pub start_time: u64,
}

/// The right to start a process for the VM, or to change and remove its files. There is at most one on the machine,
/// and none while the VM's process lives.
#[derive(Debug)]
pub struct VmLock {
    folder: VmFolder,
    file: File,
}

impl VmFolder {
    /// Nothing is created. `path` is absolute.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the folder with mode 0700, unless it exists.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(&self) -> io::Result<()> {
        files::create_private_folder(&self.path)
    }

    /// The VM's disk, an overlay.
    pub fn disk(&self) -> PathBuf {
        self.path.join("disk.qcow2")
    }

    /// The cloud-init seed.
    pub fn seed(&self) -> PathBuf {
        self.path.join("seed.img")
    }

    /// What the launcher and QEMU wrote to stderr.
    pub fn messages(&self) -> PathBuf {
        self.path.join("qemu.log")
    }

    /// What the guest wrote to its console.
    pub fn console_log(&self) -> PathBuf {
        self.path.join("console.log")
    }

    /// The part of the console's log before [`Self::console_log`].
    pub fn older_console_log(&self) -> PathBuf {
        self.path.join("console.log.1")
    }

    /// Socket of the control protocol.
    pub fn qmp_socket(&self) -> PathBuf {
        self.path.join(Self::QMP_SOCKET)
    }

    /// Socket of the serial console.
    pub fn console_socket(&self) -> PathBuf {
        self.path.join(Self::CONSOLE_SOCKET)
    }

    pub(crate) const QMP_SOCKET: &str = "qmp.sock";
    pub(crate) const CONSOLE_SOCKET: &str = "console.sock";

    pub(crate) fn lock_file(&self) -> PathBuf {
        self.path.join("lock")
    }

    pub(crate) fn launch_spec(&self) -> PathBuf {
        self.path.join("launch.json")
    }

    pub(crate) fn process_record(&self) -> PathBuf {
        self.path.join("process.json")
    }

    /// When the VM's process began, by the clock of that moment; `None` if there was none.
    pub fn began_at(&self) -> Option<std::time::SystemTime> {
        fs::metadata(self.process_record()).and_then(|record| record.modified()).ok()
    }

    /// What the VM's disk is made of: of any type that the agent can encode.
    pub fn origin(&self) -> PathBuf {
        self.path.join("origin.json")
    }

    /// What the agent remembers of the VM: of any type that it can encode.
    pub fn state(&self) -> PathBuf {
        self.path.join("state.json")
    }

    /// Takes the lock; `None` if the VM has a process, or another thread or process has the lock.
    ///
    /// # Errors
    /// If the lock's file cannot be opened; `NotFound` if there is no folder.
    pub fn try_lock(&self) -> io::Result<Option<VmLock>> {
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
        let file = options.open(self.lock_file())?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(VmLock { folder: self.clone(), file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What the VM's process was started with; `None` if there is none, and after [`VmLock::clean`].
    ///
    /// # Errors
    /// Those of the file system; others if an incompatible version of the agent has written it.
    pub fn running_spec(&self) -> io::Result<Option<LaunchSpec>> {
        read_json(&self.launch_spec())
    }

    pub(crate) fn read_process(&self) -> io::Result<Option<ProcessRecord>> {
        read_json(&self.process_record())
    }
}

impl VmLock {
    pub const fn folder(&self) -> &VmFolder {
        &self.folder
    }

    pub(crate) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Removes what an ended process leaves, its cgroup included. The disk, the seed and the logs stay.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn clean(&self) -> io::Result<()> {
        let folder = &self.folder;
        // Written before the process was started, so that no cgroup is forgotten.
        let spec = read_json::<WithCgroup>(&folder.launch_spec());
        if let Some(cgroup) = spec.ok().flatten().and_then(|spec| spec.cgroup) {
            cgroup::remove(&cgroup).map_err(io::Error::other)?;
        }
        for path in [folder.qmp_socket(), folder.console_socket(), folder.process_record(), folder.launch_spec()] {
            files::remove(&path)?;
        }
        Ok(())
    }

    /// Removes the folder with the disk and all else. The lock's file goes last: until then, whoever finds the folder
    /// does not get the lock.
    ///
    /// # Errors
    /// Those of the file system; may be repeated with a new lock.
    pub fn remove(self) -> io::Result<()> {
        self.clean()?;
        let lock = self.folder.lock_file();
        for entry in fs::read_dir(&self.folder.path)? {
            let entry = entry?;
            if entry.path() == lock {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                files::remove(&entry.path())?;
            }
        }
        files::remove(&lock)?;
        fs::remove_dir(&self.folder.path)
    }
}

/// What every version of the agent can read of a spec, whichever has written it.
#[derive(Deserialize)]
struct WithCgroup {
    #[serde(default)]
    cgroup: Option<PathBuf>,
}

/// Writes a value as JSON, atomically and durably, with mode 0600.
///
/// # Errors
/// Those of the file system.
pub fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    files::replace(path, &serde_json::to_vec(value)?)
}

/// Reads a value that [`write_json`] wrote; `None` if there is no such file.
///
/// # Errors
/// Those of the file system; `InvalidData` or others if the content is not such a value.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let file = match files::open_regular(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let bytes = files::read_at_most(file, STATE_MAX)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

/// The start time of a process; `None` if there is none of that id.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may contain spaces and parentheses.
    let (_, fields) = text.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, VmFolder) {
        let temporary = tempfile::tempdir().unwrap();
        let folder = VmFolder::new(temporary.path().join("vm"));
        folder.create().unwrap();
        (temporary, folder)
    }

    #[test]
    fn lock_is_exclusive_and_ends_with_its_holder() {
        let (_temporary, folder) = folder();
        let lock = folder.try_lock().unwrap().unwrap();
        assert!(folder.try_lock().unwrap().is_none());
        // As in a process that inherited it.
        let inherited = lock.file().unwrap();
        drop(lock);
        assert!(folder.try_lock().unwrap().is_none());
        drop(inherited);
        assert!(folder.try_lock().unwrap().is_some());
    }

    #[test]
    fn removal_leaves_nothing_and_needs_the_lock() {
        let (temporary, folder) = folder();
        for path in [folder.disk(), folder.seed(), folder.console_log(), folder.state()] {
            std::fs::write(path, "x").unwrap();
        }
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        folder.try_lock().unwrap().unwrap().remove().unwrap();
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
        assert_eq!(folder.try_lock().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn start_time_is_that_of_the_process() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(start_time(own), start_time(own));
        assert!(start_time(own) > start_time(1));
        assert_eq!(start_time(i32::MAX), None);
    }
}
