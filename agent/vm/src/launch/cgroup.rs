//! A cgroup for each VM (version 2), with limits: a guest, or a QEMU that a guest has taken over, does not get more of
//! the node than the VM was given.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::command_line::TCG_BUFFER_MIB;
use crate::spec::{Accelerator, LaunchSpec};

/// Where the kernel's controllers usually are.
pub const MOUNT: &str = "/sys/fs/cgroup";
/// The folder of our cgroups.
const PARENT: &str = "otherix-vms";
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// What QEMU needs beside the guest's memory, in MiB: its own, page tables, buffers of disks and network.
const OVERHEAD_MIB: u64 = 256;
/// Of the overhead, for each virtual CPU.
const VCPU_OVERHEAD_MIB: u64 = 8;
/// Period of the CPU limit, in microseconds.
const PERIOD: u64 = 100_000;
/// CPU time for what QEMU does beside the virtual CPUs, in microseconds of each period.
const CPU_OVERHEAD: u64 = 50_000;
/// Threads beside the virtual CPUs: QEMU's pool for disks has up to 64.
const THREADS: u64 = 96;

/// Why VMs run without limits.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("no cgroups of version 2 at `{}`", .0.display())]
    NoVersion2(PathBuf),
    #[error("the cgroup controller `{controller}` is not available at `{}`", folder.display())]
    NoController { controller: &'static str, folder: PathBuf },
    #[error("cannot {attempt} the cgroup file `{}`", path.display())]
    Io {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Prepares the folder in which cgroups of VMs can be created, and returns its path. `mount` is that of the file
/// system, usually [`MOUNT`].
///
/// # Errors
/// [`CgroupError`]: VMs are then to be started without a cgroup, and the node is to say so.
pub fn prepare(mount: &Path) -> Result<PathBuf, CgroupError> {
    let available = fs::read_to_string(mount.join("cgroup.controllers"));
    let available = available.map_err(|_| CgroupError::NoVersion2(mount.to_owned()))?;
    for controller in CONTROLLERS {
        if !available.split_whitespace().any(|name| name == controller) {
            return Err(CgroupError::NoController { controller, folder: mount.to_owned() });
        }
    }
    let parent = mount.join(PARENT);
    create(&parent)?;
    for folder in [mount, &parent] {
        write(&folder.join("cgroup.subtree_control"), &CONTROLLERS.map(|name| format!("+{name}")).join(" "))?;
    }
    Ok(parent)
}

/// Moves the calling process into a cgroup of its own.
pub(super) fn enter(path: &Path, spec: &LaunchSpec) -> Result<(), CgroupError> {
    create(path)?;
    for (file, value) in limits(spec) {
        write(&path.join(file), &value)?;
    }
    write(&path.join("cgroup.procs"), "0")
}

/// Removes the cgroup of a VM whose process has ended.
///
/// # Errors
/// [`CgroupError::Io`] if it is in use; not if there is none.
pub fn remove(path: &Path) -> Result<(), CgroupError> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(CgroupError::Io { attempt: "remove", path: path.to_owned(), source }),
    }
}

/// The files of a cgroup, and what to write.
fn limits(spec: &LaunchSpec) -> [(&'static str, String); 4] {
    let translated = match spec.accelerator {
        Accelerator::Kvm => 0,
        Accelerator::Tcg => u64::from(TCG_BUFFER_MIB),
    };
    let vcpus = u64::from(spec.vcpus);
    let memory = u64::from(spec.memory_mib) + OVERHEAD_MIB + vcpus * VCPU_OVERHEAD_MIB + translated;
    [
        ("memory.max", (memory << 20).to_string()),
        ("memory.oom.group", "1".to_owned()),
        ("cpu.max", format!("{} {PERIOD}", vcpus * PERIOD + CPU_OVERHEAD)),
        ("pids.max", (vcpus + THREADS).to_string()),
    ]
}

fn create(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(CgroupError::Io { attempt: "create", path: path.to_owned(), source }),
    }
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).map_err(|source| CgroupError::Io { attempt: "write", path: path.to_owned(), source })
}
