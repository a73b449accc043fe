//! Makes what a machine is started from: image, disk, seed, and a user of its own. Blocks.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use otherix_image::cache::{CacheError, CachedImage, PinOwner, PullError, PullPolicy, PullRequest};
use otherix_image::fetch::{Cancel, Digest, ImageSource, Progress};
use otherix_image::inspect::{Format, SECTOR};
use otherix_image::overlay::{self, Base, OverlayError};
use otherix_schemas::error::Causes;
use otherix_schemas::id::VmId;
use otherix_schemas::position::Position;
use otherix_schemas::vm;
use otherix_vm::folder::{VmFolder, read_json, write_json};
use otherix_vm::seed::{Seed, SeedError, dhcp_network_config, hostname};
use otherix_vm::spec::{BaseImage, ImageFormat, LaunchSpec, NicSpec, free_user};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Host;
use crate::model::desired::DesiredMachine;

/// QEMU for VMs of this machine's architecture.
const QEMU: &str = if cfg!(target_arch = "aarch64") { "qemu-system-aarch64" } else { "qemu-system-x86_64" };

/// What a VM's disk is made of. Written once the image is pinned, and before there is a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Origin {
    /// The digest of the image.
    pub(super) image: String,
    pub(super) base: BaseImage,
    /// Size of the image's disk in bytes.
    pub(super) size: u64,
    /// The user id of the VM's process.
    pub(super) user: u32,
}

/// How a download is cancelled, and who is told of it.
pub(super) struct Fetching<'a> {
    pub(super) cancel: &'a Cancel,
    pub(super) progress: &'a dyn Fn(Progress),
}

/// The user ids of VMs.
#[derive(Debug, Default)]
pub(super) struct Users(BTreeMap<VmId, u32>);

/// Why a machine cannot be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrepareError {
    #[error("the image's URL cannot be used: {0}")]
    Source(String),
    #[error("{}; {}", Causes(.0), .0.hint())]
    Pull(PullError),
    #[error("its image is gone from the cache of this node: delete the VM and create it again")]
    ImageGone,
    #[error("{}", Causes(.0))]
    Cache(#[from] CacheError),
    #[error("{}", Causes(.0))]
    Disk(#[from] OverlayError),
    #[error("{}", Causes(.0))]
    Seed(#[from] SeedError),
    #[error("this node has no user id left for another VM")]
    Users,
    #[error("cannot use the VM's folder: {0}")]
    Folder(#[from] io::Error),
}

impl PrepareError {
    /// Whether the same may succeed later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Pull(error) => error.is_transient(),
            Self::Folder(_) | Self::Cache(_) => true,
            Self::Source(_) | Self::ImageGone | Self::Disk(_) | Self::Seed(_) | Self::Users => false,
        }
    }
}

impl Users {
    /// Those that VMs have already.
    pub(super) fn read(folder: &Path) -> Self {
        let user = |id: VmId| {
            let origin = read_json::<Origin>(&folder_of(folder, id).origin()).ok().flatten()?;
            Some((id, origin.user))
        };
        Self(folders(folder).into_iter().filter_map(user).collect())
    }

    pub(super) fn take(&mut self, id: VmId) -> Option<u32> {
        if let Some(user) = self.0.get(&id) {
            return Some(*user);
        }
        let taken: Vec<u32> = self.0.values().copied().collect();
        let user = free_user(&taken)?;
        self.0.insert(id, user);
        Some(user)
    }
}

/// The folder of a VM.
pub(super) fn folder_of(folder: &Path, id: VmId) -> VmFolder {
    VmFolder::new(folder.join(id.to_string()))
}

/// The VMs that have a folder.
pub(super) fn folders(folder: &Path) -> Vec<VmId> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse::<Uuid>().ok().map(VmId::new)).collect()
}

/// QEMU, or why there is none.
pub(super) fn find_qemu(chosen: Option<PathBuf>) -> Result<PathBuf, String> {
    if let Some(path) = chosen {
        return if path.is_file() { Ok(path) } else { Err(format!("there is no `{}`", path.display())) };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/bin", "/usr/local/bin"].map(PathBuf::from);
    let mut folders = std::env::split_paths(&path).chain(system);
    let found = folders.find_map(|folder| Some(folder.join(QEMU)).filter(|file| file.is_file()));
    found.ok_or_else(|| format!("this node has no `{QEMU}`: install QEMU, and restart the agent"))
}

impl Host {
    /// Makes the disk of a VM, unless it has one, and its seed.
    pub(super) fn prepare(
        &self,
        id: VmId,
        generation: Position,
        machine: &DesiredMachine,
        fetching: &Fetching<'_>,
    ) -> Result<LaunchSpec, PrepareError> {
        let folder = folder_of(&self.folder, id);
        folder.create()?;
        let origin = match read_json::<Origin>(&folder.origin())? {
            Some(origin) => origin,
            None => self.begin(id, &folder, machine, fetching)?,
        };
        if !folder.disk().try_exists()? {
            self.make_disk(&folder, &origin, machine)?;
        }
        let seed = machine.spec.cloud_init.as_ref().map(|cloud_init| {
            let path = folder.seed();
            seed_of(id, machine, cloud_init).write(&path).map(|()| path)
        });
        Ok(LaunchSpec {
            vm: id.uuid(),
            generation: generation.get(),
            program: self.qemu.clone().unwrap_or_default(),
            accelerator: self.accelerator.accelerator,
            vcpus: machine.spec.vcpus.into(),
            memory_mib: machine.spec.memory_mb,
            disk: folder.disk(),
            base: origin.base,
            seed: seed.transpose()?,
            nic: machine.nic.as_ref().map(|nic| NicSpec {
                tap: nic.tap.clone(),
                mac: nic.mac.octets(),
                offload: false,
            }),
            user: origin.user,
            cgroup: self.cgroup.as_ref().map(|cgroup| cgroup.join(id.to_string())),
        })
    }

    /// Fetches the image and pins it, before anything depends on it.
    fn begin(
        &self,
        id: VmId,
        folder: &VmFolder,
        machine: &DesiredMachine,
        Fetching { cancel, progress }: &Fetching<'_>,
    ) -> Result<Origin, PrepareError> {
        let source: Result<ImageSource, _> = machine.image_url.as_str().parse();
        let request = PullRequest {
            source: source.map_err(|error| PrepareError::Source(error.to_string()))?,
            digest: digest(machine),
            policy: match machine.spec.pull_policy {
                vm::PullPolicy::IfNotPresent => PullPolicy::IfNotPresent,
                vm::PullPolicy::Always => PullPolicy::Always,
            },
            owner: owner(id)?,
        };
        let image = self.cache.pull(&request, cancel, progress).map_err(PrepareError::Pull)?;
        let user = self.users.lock().ok().and_then(|mut users| users.take(id)).ok_or(PrepareError::Users)?;
        let CachedImage { digest, info, path } = image;
        let format = match info.format {
            Format::Qcow2 => ImageFormat::Qcow2,
            Format::Raw => ImageFormat::Raw,
        };
        let origin =
            Origin { image: digest.to_string(), base: BaseImage { path, format }, size: info.virtual_size, user };
        write_json(&folder.origin(), &origin)?;
        Ok(origin)
    }

    fn make_disk(&self, folder: &VmFolder, origin: &Origin, machine: &DesiredMachine) -> Result<(), PrepareError> {
        let digest: Digest = origin.image.parse().map_err(|_| PrepareError::ImageGone)?;
        if self.cache.get(digest)?.is_none() {
            return Err(PrepareError::ImageGone);
        }
        let format = match origin.base.format {
            ImageFormat::Qcow2 => Format::Qcow2,
            ImageFormat::Raw => Format::Raw,
        };
        let wanted = machine.spec.disk_gib.map_or(origin.size, |size| u64::from(size) << 30);
        let base = Base { path: origin.base.path.clone(), format };
        Ok(overlay::create(&folder.disk(), &base, origin.size, wanted.next_multiple_of(SECTOR))?)
    }

    /// Gives up what a removed VM used.
    pub(super) fn forget(&self, id: VmId) -> Result<(), CacheError> {
        if let (Ok(owner), Ok(images)) = (owner(id), self.cache.list()) {
            for image in images.into_iter().filter(|image| image.pins.contains(&owner)) {
                self.cache.unpin(image.image.digest, &owner)?;
            }
        }
        if let Ok(mut users) = self.users.lock() {
            users.0.remove(&id);
        }
        Ok(())
    }
}

/// Checks that the header of a VM's disk is the one that it was made with: it names the image, and QEMU never changes
/// it. A process that a guest had taken over could have named other files of this node.
pub(super) fn check_disk(spec: &LaunchSpec) -> Result<(), String> {
    const ADVICE: &str = "restore the disk from a copy, or delete the VM";
    let header = overlay::read(&spec.disk).map_err(|error| format!("{}: {ADVICE}", Causes(&error)))?;
    let format = match header.base.format {
        Format::Qcow2 => ImageFormat::Qcow2,
        Format::Raw => ImageFormat::Raw,
    };
    if header.base.path == spec.base.path && format == spec.base.format {
        return Ok(());
    }
    let (found, image) = (header.base.path.display(), spec.base.path.display());
    Err(format!("the header of the VM's disk names `{found}`, and not its image `{image}`: {ADVICE}"))
}

pub(super) fn owner(id: VmId) -> Result<PinOwner, PrepareError> {
    id.to_string().parse().map_err(|_| PrepareError::Users)
}

fn digest(machine: &DesiredMachine) -> Option<Digest> {
    machine.spec.image_sha256.as_ref().and_then(|digest| digest.as_str().parse().ok())
}

fn seed_of(id: VmId, machine: &DesiredMachine, cloud_init: &vm::CloudInit) -> Seed {
    let vm::CloudInit { user_data, network_config, ssh_keys } = cloud_init.clone();
    let dhcp = || machine.nic.as_ref().map(|nic| dhcp_network_config(nic.mac.octets()));
    Seed {
        vm: id.uuid(),
        hostname: hostname(machine.name.as_str(), id.uuid()),
        ssh_keys,
        user_data,
        network_config: network_config.or_else(dhcp),
    }
}
