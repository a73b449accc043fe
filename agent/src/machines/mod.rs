//! The machines of VMs on this node. A task for each fetches its image, makes its disk, and supervises its
//! process, which outlives the agent.
//!
//! The main loop tells what is to be ([`MachinesHandle::set`]), and receives outcomes. `prepare` makes what a machine
//! is started from, `outcome` says what is reported, `vm` is the task of one VM.

mod access;
mod capacity;
mod console;
mod moving;
mod outcome;
mod prepare;
mod session;
mod vm;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use otherix_image::cache::{Cache, CacheSettings, PullError};
use otherix_image::fetch::FetchSettings;
use otherix_runtime::{Runtime, Task};
use otherix_schemas::error::Causes;
use otherix_schemas::id::{NicId, VmId};
use otherix_schemas::node::NodeCapacity;
use otherix_schemas::outcome::{ResourceOutcome, ResourceRef};
use otherix_vm::accelerator::{self, Choice, Facts};
use otherix_vm::launch::cgroup;
use otherix_vm::process::Launcher;
use otherix_vm::spec::Accelerator;
use tokio::sync::{mpsc, watch};

pub use self::access::MachineAccess;
pub use self::capacity::Offer;
use self::moving::OwnEnd;
use self::prepare::Users;
use self::vm::{VmInputs, VmTask};
use crate::model::desired::{DesiredMove, DesiredVm, MeshPair};

/// The folder of VMs and that of images in the state folder.
const VMS: &str = "vms";
const IMAGES: &str = "images";

/// How long a part of an image is kept that nothing was received into.
const PART_MAX_AGE: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// Where cgroups are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Options of machines.
#[derive(Clone, Debug)]
pub struct MachineOptions {
    /// QEMU; found on PATH if it is not given.
    pub qemu: Option<PathBuf>,
    /// What executes guests; found out if it is not given.
    pub accelerator: Option<Accelerator>,
    /// Bytes that images and parts of images may have in all.
    pub image_budget: u64,
    pub fetch: FetchSettings,
    pub launcher: Launcher,
    pub offer: Offer,
}

/// What all VMs need.
#[derive(Debug)]
struct Host {
    runtime: Arc<dyn Runtime>,
    /// The folder of VMs.
    folder: PathBuf,
    cache: Cache,
    /// Why the node cannot run machines.
    qemu: Result<PathBuf, String>,
    accelerator: Choice,
    /// The cgroup of all VMs; `None` if there are no limits.
    cgroup: Option<PathBuf>,
    launcher: Launcher,
    boot_id: String,
    users: Mutex<Users>,
    /// Held while a disk is taken from another node: one at a time.
    taking: Arc<tokio::sync::Mutex<()>>,
}

/// What all VMs need, once it is known; or why there is none.
type OpenedHost = Option<Result<Arc<Host>, String>>;

/// The tasks of VMs.
pub struct MachinesHandle {
    runtime: Arc<dyn Runtime>,
    /// The folder of VMs.
    folder: PathBuf,
    capacity: watch::Receiver<Option<NodeCapacity>>,
    access: MachineAccess,
    opening: Task<()>,
    /// Gives disks to other nodes, on the mesh address.
    server: Option<(Ipv4Addr, Server)>,
    tasks: BTreeMap<VmId, RunningVm>,
    outcomes: mpsc::UnboundedSender<ResourceOutcome>,
    received: mpsc::UnboundedReceiver<ResourceOutcome>,
    /// The latest outcome of each VM.
    latest: BTreeMap<VmId, ResourceOutcome>,
    /// VMs that are not decided were looked for.
    has_looked: bool,
}

impl Drop for MachinesHandle {
    fn drop(&mut self) {
        self.opening.abort();
    }
}

/// Ends when it is dropped.
struct Server(Task<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct RunningVm {
    inputs: watch::Sender<VmInputs>,
    task: Task<()>,
}

impl Drop for RunningVm {
    /// The process of the VM goes on.
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl MachinesHandle {
    /// Begins to find out what VMs need, which may take long where KVM does not work. Nothing is started.
    pub fn start(options: MachineOptions, state: &Path, runtime: Arc<dyn Runtime>) -> Self {
        let (outcomes, received) = mpsc::unbounded_channel();
        let (sender, host) = watch::channel(None);
        let (capacity_sender, capacity) = watch::channel(None);
        let (state, own) = (state.to_owned(), Arc::clone(&runtime));
        let (offer, budget) = (options.offer, options.image_budget);
        let folder = state.join(VMS);
        let opening = async move {
            let blocking = Arc::clone(&own);
            let work = move || {
                let opened = Host::open(options, &state, blocking);
                let opened = opened.map(Arc::new).map_err(|error| Causes(&error).to_string());
                let runs = opened.as_ref().map_err(String::as_str).and_then(|host| host.runs());
                capacity_sender.send_replace(Some(capacity::gather(offer, &state, budget, runs)));
                opened
            };
            let opened = own.run_blocking("machines", work).await;
            let opened = opened.unwrap_or_else(|error| Err(Causes(&error).to_string()));
            match &opened {
                Ok(host) => {
                    let Choice { accelerator, reason } = &host.accelerator;
                    tracing::info!(?accelerator, reason, qemu = ?host.qemu, limits = host.cgroup.is_some(), "machines");
                }
                Err(error) => tracing::error!(error, "this node runs no VMs until its agent is restarted"),
            }
            sender.send_replace(Some(opened));
        };
        let opening = runtime.spawn("machines", opening);
        let (tasks, latest) = (BTreeMap::new(), BTreeMap::new());
        let access = MachineAccess::new(host, Arc::clone(&runtime));
        let (server, has_looked) = (None, false);
        Self { runtime, folder, capacity, access, opening, server, tasks, outcomes, received, latest, has_looked }
    }

    /// What the node offers to machines, once it is known.
    pub fn capacity(&self) -> watch::Receiver<Option<NodeCapacity>> {
        self.capacity.clone()
    }

    /// What others than the main loop may ask.
    pub fn access(&self) -> MachineAccess {
        self.access.clone()
    }

    /// The next outcome.
    pub async fn outcome(&mut self) -> ResourceOutcome {
        // The handle holds a sender.
        let Some(outcome) = self.received.recv().await else { return std::future::pending().await };
        if let ResourceRef::Vm(id) = outcome.resource {
            self.latest.insert(id, outcome.clone());
        }
        outcome
    }

    /// The latest outcome of each VM.
    pub fn latest(&self) -> impl Iterator<Item = &ResourceOutcome> {
        self.latest.values()
    }

    /// Sets what is to be. `ready` are the NICs whose taps are as they are to be.
    ///
    /// VMs that are not decided, of another epoch or cluster, are left alone: their disks are all that there is of
    /// them.
    pub fn set(&mut self, vms: &BTreeMap<VmId, DesiredVm>, ready: &BTreeSet<NicId>) {
        if !std::mem::replace(&mut self.has_looked, true) {
            for id in prepare::folders(&self.folder).into_iter().filter(|id| !vms.contains_key(id)) {
                tracing::warn!(vm = %id, folder = %self.folder.display(), "a VM that the cluster does not know");
            }
        }
        self.tasks.retain(|id, _| vms.contains_key(id));
        self.latest.retain(|id, _| vms.contains_key(id));
        self.access.retain_consoles(|id| vms.contains_key(&id));
        self.serve(vms);
        for (id, vm) in vms {
            let nic = vm.machine.as_ref().and_then(|machine| machine.nic.as_ref());
            let inputs = VmInputs { vm: vm.clone(), is_nic_ready: nic.is_none_or(|nic| ready.contains(&nic.id)) };
            match self.tasks.get(id) {
                Some(running) => {
                    running.inputs.send_if_modified(|current| {
                        let is_changed = *current != inputs;
                        *current = inputs;
                        is_changed
                    });
                }
                None => self.begin(*id, inputs),
            }
        }
    }

    /// The port is open only while a VM moves away.
    fn serve(&mut self, vms: &BTreeMap<VmId, DesiredVm>) {
        let own = vms.values().find_map(|vm| match vm.moving {
            Some(DesiredMove::Give(MeshPair { own, .. })) => own,
            Some(DesiredMove::Take(_)) | None => None,
        });
        if self.server.as_ref().map(|(own, _)| *own) != own {
            let serve = |own| (own, Server(moving::serve(&self.runtime, OwnEnd::mesh(own), self.access.gifts())));
            self.server = None;
            self.server = own.map(serve);
        }
    }

    fn begin(&mut self, id: VmId, inputs: VmInputs) {
        let (inputs, receiver) = watch::channel(inputs);
        let (access, outcomes) = (self.access.clone(), self.outcomes.clone());
        let mut opened = access.host.clone();
        // Its log can be read before anything else is known.
        access.add_console(id, &prepare::folder_of(&self.folder, id));
        let task = async move {
            let Ok(opened) = opened.wait_for(Option::is_some).await.map(|opened| opened.clone()) else { return };
            match opened {
                Some(Ok(host)) => VmTask::new(id, host, access, (receiver, outcomes)).run().await,
                Some(Err(error)) => {
                    vm::refuse(id, &format!("this node runs no VMs: {error}"), receiver, outcomes).await
                }
                None => {}
            }
        };
        let task = self.runtime.spawn("vm", task);
        self.tasks.insert(id, RunningVm { inputs, task });
    }
}

impl Host {
    /// What executes guests, or why nothing does.
    fn runs(&self) -> Result<&Choice, &str> {
        self.qemu.as_ref().map(|_| &self.accelerator).map_err(String::as_str)
    }

    fn open(options: MachineOptions, state: &Path, runtime: Arc<dyn Runtime>) -> Result<Self, HostError> {
        let MachineOptions { qemu, accelerator, image_budget, fetch, launcher, offer: _ } = options;
        let folder = state.join(VMS);
        otherix_runtime::files::create_private_folder(&folder).map_err(HostError::Folder)?;
        let images = CacheSettings {
            folder: state.join(IMAGES),
            budget: image_budget,
            max_virtual_size: otherix_image::overlay::DISK_MAX,
            part_max_age: PART_MAX_AGE,
        };
        let cache = Cache::open(images, fetch)?;
        let qemu = prepare::find_qemu(qemu);
        let trial = || {
            let (qemu, kernel) = (qemu.as_ref().ok()?, accelerator::kernel()?);
            Some(accelerator::try_boot(qemu, &kernel, Accelerator::Kvm, accelerator::TRIAL_TIMEOUT))
        };
        let accelerator = accelerator::choose(accelerator, &Facts::gather(), trial);
        let cgroup = match cgroup::prepare(Path::new(CGROUPS)) {
            Ok(folder) => Some(folder),
            Err(error) => {
                tracing::warn!(error = %Causes(&error), "the machines of VMs have no limits of memory and processors");
                None
            }
        };
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(HostError::Boot)?;
        let users = Mutex::new(Users::read(&folder));
        let boot_id = boot_id.trim().to_owned();
        let taking = Arc::default();
        Ok(Self { runtime, folder, cache, qemu, accelerator, cgroup, launcher, boot_id, users, taking })
    }
}

/// Why a node runs no VMs.
#[derive(Debug, thiserror::Error)]
enum HostError {
    #[error("cannot create the folder of VMs")]
    Folder(#[source] io::Error),
    #[error("cannot use the cache of images")]
    Images(#[from] PullError),
    #[error("cannot read the id of this machine's start")]
    Boot(#[source] io::Error),
}
