//! A VM that moves: on the node that it leaves, and on the one that it comes to.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use otherix_image::fetch::Progress;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::vm::MachinePhase;
use otherix_vm::folder::{VmLock, read_json};
use otherix_vm::machine;
use otherix_vm::process::{self, Found};

use super::super::moving::{Abort, Incoming, OwnEnd, TakeError, Taking, take};
use super::super::outcome::{self, FetchReports};
use super::super::prepare::Origin;
use super::{KILL_TIMEOUT, Next, VmInputs, VmTask};
use crate::model::desired::{DesiredMachine, MeshPair};

/// Between attempts to take a disk.
const TAKE_RETRY: Duration = Duration::from_secs(1);

/// While the process of a VM begins or ends.
const CHANGE_INTERVAL: Duration = Duration::from_millis(10);

const NOT_IN_MESH: &str =
    "its node, or the one that it would move to, is not part of the mesh, through which disks are copied";

/// With the task, the copy ends.
struct AbortOnDrop(Abort);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl VmTask {
    /// Shuts the VM down, and gives its disk until the move has ended.
    pub(super) async fn give(&mut self, inputs: &VmInputs, pair: MeshPair) -> Next {
        let generation = inputs.vm.generation;
        let Some(to) = pair.other.filter(|_| pair.own.is_some()) else {
            self.report(outcome::failed(self.id, generation, NOT_IN_MESH.to_owned()));
            return Next::OnChange;
        };
        let found = process::find(&self.folder);
        match found {
            Ok(Found::Running(_)) => match self.folder.running_spec() {
                Ok(Some(spec)) => self.supervise(spec).await,
                Ok(None) => Next::Later(CHANGE_INTERVAL),
                Err(error) => self.gives_later(inputs, &error),
            },
            Ok(Found::Changing) => Next::Later(CHANGE_INTERVAL),
            Ok(Found::Free(lock)) => self.hold(inputs, Some(lock), to).await,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.hold(inputs, None, to).await,
            Err(error) => self.gives_later(inputs, &error),
        }
    }

    fn gives_later(&mut self, inputs: &VmInputs, error: &io::Error) -> Next {
        let text = format!("its disk cannot be given yet: {error}");
        self.report(outcome::waits(self.id, inputs.vm.generation, MachinePhase::Pending, text));
        Next::Later(self.backoff.next_delay())
    }

    /// Gives the disk while `lock` is held.
    async fn hold(&mut self, inputs: &VmInputs, lock: Option<VmLock>, to: Ipv4Addr) -> Next {
        let generation = inputs.vm.generation;
        if let Some(Err(error)) = lock.as_ref().map(VmLock::clean) {
            return self.gives_later(inputs, &error);
        }
        // A VM that has never been started has no disk. One whose disk cannot be told is not taken for such a one.
        let origin = match read_json::<Origin>(&self.folder.origin()) {
            Ok(None) if self.folder.disk().exists() => Err("nobody knows which image it is over".to_owned()),
            Ok(origin) => Ok(origin),
            Err(error) => Err(error.to_string()),
        };
        let origin = match origin {
            Ok(origin) => origin,
            Err(error) => {
                self.report(outcome::failed(self.id, generation, format!("its disk cannot be given: {error}")));
                return Next::OnChange;
            }
        };
        let _giving = self.gifts.give(self.id, generation.get(), to, lock.map(|lock| (lock, origin)));
        let status = outcome::at_rest(MachinePhase::Stopped);
        self.report(outcome::of(self.id, generation, Outcome::Ready, status));
        self.until_other(inputs).await
    }

    /// Waits until something else is to be done with the VM.
    async fn until_other(&mut self, inputs: &VmInputs) -> Next {
        loop {
            if self.inputs.changed().await.is_err() {
                return Next::OnChange;
            }
            if self.inputs.borrow().vm != inputs.vm {
                return Next::Now;
            }
        }
    }

    /// Takes the disk, and runs nothing.
    pub(super) async fn take(&mut self, inputs: &VmInputs, machine: &DesiredMachine, pair: MeshPair) -> Next {
        let generation = inputs.vm.generation;
        let (Some(own), Some(other)) = (pair.own, pair.other) else {
            self.report(outcome::failed(self.id, generation, NOT_IN_MESH.to_owned()));
            return Next::OnChange;
        };
        if let Err(error) = &self.host.qemu {
            self.report(outcome::failed(self.id, generation, error.clone()));
            return Next::OnChange;
        }
        if let Err(error) = self.make_way(inputs).await {
            let text = format!("what is left of an earlier copy cannot be removed yet: {error}");
            self.report(outcome::waits(self.id, generation, MachinePhase::Pending, text));
            return Next::Later(self.backoff.next_delay());
        }
        let taken = tokio::select! {
            taken = self.copy(inputs, machine, (own, other)) => taken,
            next = Self::other_inputs(self.inputs.clone(), inputs) => return next,
        };
        let report = match taken {
            Ok(()) => outcome::of(self.id, generation, Outcome::Ready, outcome::at_rest(MachinePhase::Stopped)),
            Err(TakeError::Never(text)) => outcome::failed(self.id, generation, text),
            Err(TakeError::Cancelled) => return Next::Now,
            Err(TakeError::Later(text)) => {
                self.report(outcome::waits(self.id, generation, MachinePhase::Pending, text));
                return Next::Later(TAKE_RETRY);
            }
        };
        self.report(report);
        self.until_other(inputs).await
    }

    /// As [`Self::until_other`], beside something that uses the task.
    async fn other_inputs(mut changes: tokio::sync::watch::Receiver<VmInputs>, inputs: &VmInputs) -> Next {
        loop {
            if changes.changed().await.is_err() {
                return Next::OnChange;
            }
            if changes.borrow().vm != inputs.vm {
                return Next::Now;
            }
        }
    }

    /// Removes what is in the VM's folder, unless it is of this move.
    async fn make_way(&self, inputs: &VmInputs) -> io::Result<()> {
        let generation = inputs.vm.generation;
        let (host, id, folder) = (Arc::clone(&self.host), self.id, self.folder.clone());
        if Incoming::read(&folder).ok().flatten().is_some_and(|incoming| incoming.generation == generation.get()) {
            return Ok(());
        }
        let _turn = Arc::clone(&self.copying).lock_owned().await;
        machine::remove(&folder, KILL_TIMEOUT).await?;
        let work = move || {
            host.forget(id).map_err(io::Error::other)?;
            Incoming::begin(&folder, generation)
        };
        let begun = self.host.runtime.run_blocking("begin of a copy", work).await;
        begun.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    async fn copy(
        &self,
        inputs: &VmInputs,
        machine: &DesiredMachine,
        (own, other): (Ipv4Addr, Ipv4Addr),
    ) -> Result<(), TakeError> {
        let turn = Arc::clone(&self.host.taking).lock_owned().await;
        let own_turn = Arc::clone(&self.copying).lock_owned().await;
        let (host, outcomes) = (Arc::clone(&self.host), self.outcomes.clone());
        let (id, generation) = (self.id, inputs.vm.generation);
        let size = machine.spec.disk_gib.map(|size| u64::from(size) << 30);
        let [low, high, ..] = host.runtime.random_u64().to_be_bytes();
        let first_port = u16::from_be_bytes([low, high]);
        let on_drop = AbortOnDrop(Abort::default());
        let abort = on_drop.0.clone();
        let work = move || {
            // Until it has ended, which may be later than this task's interest in it.
            let _turns = (turn, own_turn);
            let reports = FetchReports::default();
            let progress = |progress: Progress| {
                if reports.is_due(&progress, tokio::time::Instant::now()) {
                    let text = outcome::copying(&progress);
                    // Nobody receives it when the agent ends.
                    let _ended = outcomes.send(outcome::waits(id, generation, MachinePhase::Fetching, text));
                }
            };
            let (own_end, abort, progress) = (OwnEnd::mesh(own), &abort, &progress);
            take(&host, &Taking { id, generation, size, own_end, other, first_port, abort, progress })
        };
        let taken = self.host.runtime.run_blocking("copy of a disk", work).await;
        drop(on_drop);
        taken.unwrap_or_else(|error| Err(TakeError::Later(error.to_string())))
    }
}
