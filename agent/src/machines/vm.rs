//! The task of one VM.

mod moves;

use std::sync::Arc;
use std::time::Duration;

use otherix_image::fetch::Cancel;
use otherix_runtime::Backoff;
use otherix_schemas::id::VmId;
use otherix_schemas::outcome::{Outcome, ResourceOutcome};
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::vm::{MachinePhase, Power};
use otherix_vm::console::Console;
use otherix_vm::folder::VmFolder;
use otherix_vm::launch::cgroup;
use otherix_vm::machine::{self, VmOrders, VmSetup, VmStatus};
use otherix_vm::process::{self, Found};
use otherix_vm::spec::LaunchSpec;
use otherix_vm::supervisor::{self, Desired};
use tokio::sync::{mpsc, watch};

use super::access::Downloads;
use super::console::VmConsole;
use super::moving::Gifts;
use super::outcome::FetchReports;
use super::prepare::{Fetching, PrepareError, check_disk, folder_of};
use super::{Host, MachineAccess, outcome};
use crate::model::desired::{DesiredMachine, DesiredMove, DesiredVm, Restart};

/// Between attempts to prepare a VM, or to remove one.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// How long the process of a VM that is removed may take to end once it is killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);

/// What a VM is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VmInputs {
    pub(super) vm: DesiredVm,
    /// The tap of its NIC is there; `true` without a NIC.
    pub(super) is_nic_ready: bool,
}

pub(super) struct VmTask {
    id: VmId,
    host: Arc<Host>,
    folder: VmFolder,
    console: Arc<VmConsole>,
    downloads: Downloads,
    gifts: Gifts,
    /// Held by whoever works in its folder while it is copied from another node.
    copying: Arc<tokio::sync::Mutex<()>>,
    inputs: watch::Receiver<VmInputs>,
    outcomes: mpsc::UnboundedSender<ResourceOutcome>,
    backoff: Backoff,
}

/// What to do after something was done, or has failed.
enum Next {
    /// Look at the inputs again at once.
    Now,
    /// When they change.
    OnChange,
    /// When they change, or after a pause.
    Later(Duration),
}

/// Reports that the VM cannot be run, as often as something else is to be.
pub(super) async fn refuse(
    id: VmId,
    error: &str,
    mut inputs: watch::Receiver<VmInputs>,
    outcomes: mpsc::UnboundedSender<ResourceOutcome>,
) {
    loop {
        let generation = inputs.borrow_and_update().vm.generation;
        // Nobody receives it when the agent ends.
        let _ended = outcomes.send(outcome::failed(id, generation, error.to_owned()));
        if inputs.changed().await.is_err() {
            return;
        }
    }
}

impl VmTask {
    pub(super) fn new(
        id: VmId,
        host: Arc<Host>,
        access: MachineAccess,
        (inputs, outcomes): (watch::Receiver<VmInputs>, mpsc::UnboundedSender<ResourceOutcome>),
    ) -> Self {
        let folder = folder_of(&host.folder, id);
        let backoff = Backoff::new(RETRY_MIN, RETRY_MAX, host.runtime.as_ref());
        let (console, downloads, gifts) = (access.add_console(id, &folder), access.downloads(), access.gifts());
        let copying = Arc::default();
        Self { id, host, folder, console, downloads, gifts, copying, inputs, outcomes, backoff }
    }

    /// Runs until the task is aborted, or nobody sets inputs any more.
    pub(super) async fn run(mut self) {
        loop {
            let inputs = self.inputs.borrow_and_update().clone();
            let next = match (&inputs.vm.machine, inputs.vm.moving) {
                (None, _) => self.remove(&inputs).await,
                (Some(machine), None) => self.keep(&inputs, machine).await,
                (Some(_), Some(DesiredMove::Give(pair))) => self.give(&inputs, pair).await,
                (Some(machine), Some(DesiredMove::Take(pair))) => self.take(&inputs, machine, pair).await,
            };
            let changed = match next {
                Next::Now => continue,
                Next::OnChange => self.inputs.changed().await,
                Next::Later(pause) => tokio::select! {
                    changed = self.inputs.changed() => changed,
                    () = tokio::time::sleep(pause) => Ok(()),
                },
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn report(&self, outcome: ResourceOutcome) {
        if let Some(machine) = &outcome.machine {
            self.console.set_phase(machine.phase);
        }
        // Nobody receives it when the agent ends.
        let _ended = self.outcomes.send(outcome);
    }

    /// Removes the VM's process and files.
    async fn remove(&mut self, inputs: &VmInputs) -> Next {
        let (generation, folder, host, id) =
            (inputs.vm.generation, self.folder.clone(), Arc::clone(&self.host), self.id);
        let _turn = Arc::clone(&self.copying).lock_owned().await;
        let removed = match machine::remove(&folder, KILL_TIMEOUT).await {
            Ok(()) => {
                let work = move || {
                    let cgroup = host.cgroup.as_ref().map(|cgroup| cgroup.join(id.to_string()));
                    let cgroup = cgroup.map_or(Ok(()), |path| cgroup::remove(&path));
                    cgroup.map_err(|error| error.to_string())?;
                    host.forget(id).map_err(|error| error.to_string())
                };
                let done = self.host.runtime.run_blocking("removal of a VM", work).await;
                done.unwrap_or_else(|error| Err(error.to_string()))
            }
            Err(error) => Err(error.to_string()),
        };
        match removed {
            Ok(()) => {
                let status = outcome::at_rest(MachinePhase::Removed);
                self.report(outcome::of(self.id, generation, Outcome::Removed, status));
                Next::OnChange
            }
            Err(error) => {
                self.report(outcome::failed(self.id, generation, format!("it cannot be removed: {error}")));
                Next::Later(self.backoff.next_delay())
            }
        }
    }

    /// Keeps the VM as it is to be.
    async fn keep(&mut self, inputs: &VmInputs, machine: &DesiredMachine) -> Next {
        let generation = inputs.vm.generation;
        let has_process = matches!(process::find(&self.folder), Ok(Found::Running(_) | Found::Changing));
        if machine.power == Power::Stopped && !has_process {
            self.report(outcome::of(self.id, generation, Outcome::Ready, outcome::at_rest(MachinePhase::Stopped)));
            return Next::OnChange;
        }
        if let Err(error) = &self.host.qemu {
            self.report(outcome::failed(self.id, generation, error.clone()));
            return Next::OnChange;
        }
        let spec = match self.prepare(machine, generation).await {
            Ok(Some(spec)) => spec,
            // Other inputs.
            Ok(None) => return Next::Now,
            Err(error) if error.is_transient() => {
                let pause = self.backoff.next_delay();
                let text = format!("{error}; trying again in {} s", pause.as_secs());
                self.report(outcome::waits(self.id, generation, MachinePhase::Fetching, text));
                return Next::Later(pause);
            }
            Err(error) => {
                self.report(outcome::failed(self.id, generation, error.to_string()));
                return Next::OnChange;
            }
        };
        self.backoff = Backoff::new(RETRY_MIN, RETRY_MAX, self.host.runtime.as_ref());
        if !inputs.is_nic_ready && !has_process {
            let text = "waiting for its NIC".to_owned();
            self.report(outcome::waits(self.id, generation, MachinePhase::Pending, text));
            return Next::OnChange;
        }
        self.supervise(spec).await
    }

    /// Prepares the VM; `None` if other inputs come meanwhile.
    async fn prepare(
        &mut self,
        machine: &DesiredMachine,
        generation: Position,
    ) -> Result<Option<LaunchSpec>, PrepareError> {
        let (host, id, machine, cancel) = (Arc::clone(&self.host), self.id, machine.clone(), Cancel::default());
        let (own, outcomes) = (cancel.clone(), self.outcomes.clone());
        let (downloads, url) = (self.downloads.clone(), machine.image_url.to_string());
        self.console.set_phase(MachinePhase::Fetching);
        let work = move || {
            let reports = FetchReports::default();
            let progress = |progress| {
                downloads.note(id, &url, progress);
                if let Some(text) = reports.next(&progress, tokio::time::Instant::now()) {
                    let _ended = outcomes.send(outcome::waits(id, generation, MachinePhase::Fetching, text));
                }
            };
            let prepared = host.prepare(id, generation, &machine, &Fetching { cancel: &own, progress: &progress });
            downloads.ended(id);
            prepared
        };
        let mut preparing = self.host.runtime.run_blocking("preparation of a VM", work);
        let prepared = tokio::select! {
            prepared = &mut preparing => prepared,
            _changed = self.inputs.changed() => {
                cancel.cancel();
                let _of_before = preparing.await;
                return Ok(None);
            }
        };
        prepared.map_err(|error| PrepareError::Folder(std::io::Error::other(error)))?.map(Some)
    }

    /// Supervises the VM's process until the VM is deleted.
    async fn supervise(&mut self, spec: LaunchSpec) -> Next {
        let setup = VmSetup {
            runtime: Arc::clone(&self.host.runtime),
            folder: self.folder.clone(),
            launcher: self.host.launcher.clone(),
            boot_id: self.host.boot_id.clone(),
            check_disk,
        };
        // QEMU stops a guest whose console nobody reads, and the log of it is to stay short.
        let console = Console::start(&self.host.runtime, self.folder.clone(), Arc::clone(&self.console.log));
        let _relayed = Relayed::begin(&self.console, console);
        let moving = self.inputs.borrow().vm.moving;
        let Some(desired) = self.desired() else { return Next::Now };
        let (orders, receiver) = watch::channel(VmOrders { desired, spec: spec.clone() });
        let (sender, mut statuses) = watch::channel(None);
        let supervising = machine::supervise(setup, receiver, sender);
        let mut supervising = std::pin::pin!(supervising);
        loop {
            tokio::select! {
                ended = &mut supervising => {
                    let text = ended.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
                    let generation = self.inputs.borrow().vm.generation;
                    let text = format!("it cannot be supervised: {text}");
                    self.report(outcome::failed(self.id, generation, text));
                    return Next::Later(self.backoff.next_delay());
                }
                Ok(()) = statuses.changed() => {
                    let status = statuses.borrow_and_update().clone();
                    status.iter().for_each(|status| self.report_status(status));
                    if moving.is_some() && status.is_some_and(|status| self.has_stopped(&status)) {
                        return Next::Now;
                    }
                }
                changed = self.inputs.changed() => match (changed, self.desired()) {
                    (Ok(()), Some(desired)) if self.inputs.borrow().vm.moving == moving => {
                        orders.send_modify(|orders| orders.desired = desired);
                    }
                    (Err(_), _) | (Ok(()), _) => return Next::Now,
                },
            }
        }
    }

    /// Whether its process has ended for what is wanted now.
    fn has_stopped(&self, status: &VmStatus) -> bool {
        let is_current = status.request == self.inputs.borrow().vm.generation.get();
        is_current && status.phase == supervisor::Phase::Stopped
    }

    fn report_status(&self, status: &VmStatus) {
        let inputs = self.inputs.borrow();
        let generation = inputs.vm.generation;
        // It may be of an earlier decision.
        let Some(machine) = inputs.vm.machine.as_ref().filter(|_| status.request == generation.get()) else { return };
        let began_at = self.folder.began_at().and_then(|at| {
            let micros = at.duration_since(std::time::UNIX_EPOCH).ok()?.as_micros();
            Timestamp::from_unix_micros(i64::try_from(micros).ok()?).ok()
        });
        self.report(outcome::supervised(self.id, generation, machine.power, status, began_at));
    }

    /// What the supervisor is told; `None` if the VM is deleted.
    fn desired(&mut self) -> Option<Desired> {
        let inputs = self.inputs.borrow_and_update();
        let machine = inputs.vm.machine.as_ref()?;
        Some(Desired {
            power: match machine.power {
                Power::Running => supervisor::Power::Running,
                Power::Paused => supervisor::Power::Paused,
                Power::Stopped => supervisor::Power::Stopped,
            },
            request: inputs.vm.generation.get(),
            restart: machine.restart.map(|restart| match restart {
                Restart::Reboot => supervisor::Restart::Reboot,
                Restart::Reset => supervisor::Restart::Reset,
            }),
            stop_timeout: Duration::from_secs(machine.shutdown_s.into()),
        })
    }
}

/// Relays the console until it is dropped.
struct Relayed(Arc<VmConsole>);

impl Relayed {
    fn begin(console: &Arc<VmConsole>, relay: Console) -> Self {
        console.set_relay(Some(Arc::new(relay)));
        Self(Arc::clone(console))
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        self.0.set_relay(None);
    }
}
