//! What a VM is started with. Written to the VM's folder by the agent, read by the launcher.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The first user id of VMs: above those that systemd gives to containers (up to 0x6fff_ffff), below 2^31.
pub const FIRST_USER: u32 = 0x7000_0000;
/// How many user ids there are for VMs of a node.
pub const USERS: u32 = 65_536;

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor, through `/dev/kvm`.
    Kvm,
    /// QEMU's translator: runs everywhere, ten times slower or more.
    Tcg,
}

/// Format of a base image. Never guessed by QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    Qcow2,
    Raw,
}

/// The image below a VM's disk, which is only read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseImage {
    pub path: PathBuf,
    pub format: ImageFormat,
}

/// A NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NicSpec {
    /// Name of a persistent tap with a single queue in the launcher's network namespace.
    pub tap: String,
    pub mac: [u8; 6],
    /// Whether the guest may leave checksums and segmentation to the host. What reads frames on the host must then
    /// expect TCP segments of up to 64 KiB, and checksums that are not filled in.
    pub offload: bool,
}

/// What one start of a VM is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchSpec {
    pub vm: Uuid,
    /// The position of the VM's decision that this follows from.
    pub generation: u64,
    /// QEMU, by its absolute path.
    pub program: PathBuf,
    pub accelerator: Accelerator,
    pub vcpus: u32,
    pub memory_mib: u32,
    /// A qcow2 overlay over `base`, the only file that is opened for writing.
    pub disk: PathBuf,
    pub base: BaseImage,
    /// The cloud-init seed, raw.
    pub seed: Option<PathBuf>,
    pub nic: Option<NicSpec>,
    /// User and group id of the process: no other process has them, so that VMs cannot reach each other's.
    pub user: u32,
    /// A cgroup (version 2) to create for the process, with limits derived from this spec. The folder above must exist,
    /// and offer the controllers. `None` runs without limits.
    pub cgroup: Option<PathBuf>,
}

/// Returns the lowest user id of the range that no VM of the node has; `None` if all are taken.
#[must_use]
pub fn free_user(taken: &[u32]) -> Option<u32> {
    (FIRST_USER..FIRST_USER.saturating_add(USERS)).find(|user| !taken.contains(user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_lowest_free_user() {
        assert_eq!(free_user(&[]), Some(FIRST_USER));
        assert_eq!(free_user(&[FIRST_USER + 1, FIRST_USER, 1000]), Some(FIRST_USER + 2));
    }
}
