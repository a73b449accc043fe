//! Giving up privileges, for good: the calls concern the calling thread, so the process must have no other.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set, set_no_new_privs,
};

use super::LaunchError;
use crate::spec::{Accelerator, LaunchSpec};

/// Mode bit of the group's permission to write.
const GROUP_WRITE: u32 = 0o020;
/// Mode bit of everybody's permission to write.
const OTHERS_WRITE: u32 = 0o002;

const KVM: &str = "/dev/kvm";

/// Leaves network, IPC and all privileges behind: afterwards the process has the VM's user and group, no capability
/// (also none to get by executing a program), and an empty network namespace.
pub(super) fn give_up(spec: &LaunchSpec) -> Result<(), LaunchError> {
    let groups = match spec.accelerator {
        Accelerator::Kvm => kvm_group()?,
        Accelerator::Tcg => None,
    };
    // What is open stays usable: the tap belongs to the namespace that it was opened in.
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC)
        .map_err(failed("leave the network and IPC namespaces"))?;
    // The agent may be spared when memory runs out; its guests are not.
    let path = Path::new("/proc/self/oom_score_adj");
    std::fs::write(path, "0").map_err(|source| LaunchError::Io { attempt: "write", path: path.into(), source })?;
    // A core would contain the guest's memory.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(failed("forbid core dumps"))?;
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // The kernel does not know it.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(failed("drop capabilities")(error)),
        }
    }
    let groups: Vec<Gid> = groups.into_iter().collect();
    setgroups(&groups).map_err(failed("set groups"))?;
    let (user, group) = (Uid::from_raw(spec.user), Gid::from_raw(spec.user));
    setresgid(group, group, group).map_err(failed("set the group"))?;
    setresuid(user, user, user).map_err(failed("set the user"))?;
    clear_ambient_capability_set().map_err(failed("clear ambient capabilities"))?;
    set_no_new_privs(true).map_err(failed("forbid new privileges"))?;
    check()
}

/// The kernel has cleared all sets with the change of the user.
fn check() -> Result<(), LaunchError> {
    let sets = capabilities(None).map_err(failed("read capabilities"))?;
    let left = sets.effective | sets.permitted | sets.inheritable;
    if left.is_empty() { Ok(()) } else { Err(LaunchError::Capabilities) }
}

/// The group to have for `/dev/kvm`, which QEMU opens itself; `None` if everybody may.
fn kvm_group() -> Result<Option<Gid>, LaunchError> {
    let metadata = Path::new(KVM).metadata();
    let metadata = metadata.map_err(|source| LaunchError::Io { attempt: "look at", path: KVM.into(), source })?;
    if metadata.mode() & OTHERS_WRITE != 0 {
        Ok(None)
    } else if metadata.mode() & GROUP_WRITE != 0 && metadata.gid() != 0 {
        Ok(Some(Gid::from_raw(metadata.gid())))
    } else {
        Err(LaunchError::KvmMode)
    }
}

fn failed<E: Into<io::Error>>(attempt: &'static str) -> impl Fn(E) -> LaunchError {
    move |error| LaunchError::Kernel { attempt, source: error.into() }
}
