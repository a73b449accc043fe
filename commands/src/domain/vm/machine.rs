//! The machines of VMs: whether they are to run, and what their nodes report of them.

use std::collections::BTreeMap;

use otherix_schemas::cloudevent::Header;
use otherix_schemas::id::{NodeId, VmId};
use otherix_schemas::outcome::Outcome;
use otherix_schemas::permission::Permission;
use otherix_schemas::position::Position;
use otherix_schemas::user::RowScope;
use otherix_schemas::value::VmName;
use otherix_schemas::vm::{Instruction, Machine, MachinePhase, MachineView, Power, VmConsoleOpened, VmInstructed};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::moving::Moving;
use super::{Vm, Vms, check_scope};
use crate::domain::node::Known;
use crate::domain::{Decision, Rejection, ReportedStatus, State};

/// What the node of a VM runs, and what it last reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmMachine {
    pub spec: Machine,
    pub power: Power,
    /// Position of the last decision about it.
    pub generation: Position,
    /// What the VM's node last reported.
    pub status: Option<ReportedStatus>,
}

/// What a node still has of a VM that was deleted or is on another node, kept until it has reported that it is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RemovedMachine {
    pub(super) generation: Position,
    pub(super) status: Option<ReportedStatus>,
}

impl VmMachine {
    pub(super) fn new(spec: Machine, generation: Position) -> Self {
        Self { spec, power: Power::Running, generation, status: None }
    }

    /// What it does, as its node reported it of the last decision.
    pub(super) fn phase(&self) -> MachinePhase {
        let status = self.status.as_ref().filter(|status| status.generation == self.generation);
        status.and_then(|status| status.machine.as_ref()).map_or(MachinePhase::Pending, |machine| machine.phase)
    }

    /// Why it cannot be instructed so.
    fn refuses(&self, name: &VmName, instruction: Instruction) -> Option<Rejection> {
        let (power, phase, vm) = (self.power, self.phase(), name.clone());
        let is_possible = match instruction {
            // One that has failed, or whose guest has shut down by itself, is to run and does not.
            Instruction::Start => {
                power == Power::Stopped || matches!(phase, MachinePhase::Failed | MachinePhase::Stopped)
            }
            Instruction::Stop => power != Power::Stopped || phase != MachinePhase::Stopped,
            Instruction::Reboot | Instruction::Reset | Instruction::Pause => power == Power::Running,
            Instruction::Resume => power == Power::Paused,
        };
        (!is_possible).then_some(Rejection::NotPossible { vm, power, instruction })
    }

    /// The view; right after a decision its node has not reported on it.
    pub(super) fn view(&self) -> MachineView {
        let Machine { vcpus, memory_mb, disk_gib, image_sha256, pull_policy, cloud_init } = self.spec.clone();
        MachineView {
            vcpus,
            memory_mb,
            disk_gib,
            image_sha256,
            pull_policy,
            has_cloud_init: cloud_init.is_some(),
            power: self.power,
            phase: self.phase(),
            started_at: None,
            last_line: None,
            generation: self.generation,
        }
    }
}

impl Vm {
    fn instructed(&mut self, header: &Header, event: &VmInstructed) {
        self.decided(header);
        if let Some(machine) = &mut self.machine {
            machine.power = event.instruction.leads_to();
            machine.generation = header.position;
        }
    }
}

impl Vms {
    /// What is known of the machine of a VM that the node has, or has to remove.
    pub(in crate::domain) fn known_machine(&self, id: VmId, node: NodeId) -> Option<Known<'_>> {
        if let Some(RemovedMachine { generation, status }) = self.removed.get(&(id, node)) {
            return Some(Known { generation: *generation, is_wanted: false, status: status.as_ref() });
        }
        let vm = self.by_id.get(&id)?;
        let VmMachine { generation, status, .. } = vm.machine.as_ref()?;
        let known = |status| Known { generation: *generation, is_wanted: true, status };
        if vm.node_id == node {
            return Some(known(status.as_ref()));
        }
        let moving = vm.moving.as_ref().filter(|moving| moving.node_id == node)?;
        Some(known(moving.status.as_ref()))
    }

    /// Records a reported status. Returns the previous one.
    pub(in crate::domain) fn report(
        &mut self,
        id: VmId,
        node: NodeId,
        status: ReportedStatus,
    ) -> Option<ReportedStatus> {
        let is_removed = status.outcome == Outcome::Removed;
        if let Some(removed) = self.removed.get_mut(&(id, node)) {
            let is_current = status.generation == removed.generation;
            let previous = removed.status.replace(status);
            if is_removed && is_current {
                self.removed.remove(&(id, node));
            }
            return previous;
        }
        let vm = self.by_id.get_mut(&id)?;
        if vm.node_id == node {
            return vm.machine.as_mut()?.status.replace(status);
        }
        vm.moving.as_mut().filter(|moving| moving.node_id == node)?.status.replace(status)
    }

    /// Drops what a node that was removed would have had to remove.
    pub(in crate::domain) fn node_removed(&mut self, node: NodeId) {
        self.removed.retain(|(_, of), _| *of != node);
    }

    pub(super) fn remove_machine(&mut self, header: &Header, id: VmId, vm: &Vm) {
        if let Some(VmMachine { status, .. }) = vm.machine.clone() {
            self.await_removal(header, (id, vm.node_id), status);
        }
        if let Some(Moving { node_id, status, .. }) = vm.moving.clone() {
            self.await_removal(header, (id, node_id), status);
        }
    }

    /// A node is to remove what it has of a VM.
    pub(super) fn await_removal(&mut self, header: &Header, of: (VmId, NodeId), status: Option<ReportedStatus>) {
        self.removed.insert(of, RemovedMachine { generation: header.position, status });
    }

    /// The nodes that have yet to remove what they have of a VM.
    pub(super) fn left_of(&self, id: VmId) -> impl Iterator<Item = NodeId> + '_ {
        self.removed.keys().filter(move |(vm, _)| *vm == id).map(|(_, node)| *node)
    }

    pub(super) fn instructed(&mut self, header: &Header, event: &VmInstructed) {
        if let Some(vm) = self.by_id.get_mut(&event.vm_id) {
            vm.instructed(header, event);
        }
    }

    /// The VM as it is after the instruction.
    pub(super) fn after(&self, header: &Header, event: &VmInstructed) -> Option<Vm> {
        let mut vm = self.by_id.get(&event.vm_id)?.clone();
        vm.instructed(header, event);
        Some(vm)
    }
}

/// What nodes have to remove of VMs that are not on them.
pub(super) type RemovedMachines = BTreeMap<(VmId, NodeId), RemovedMachine>;

pub(super) fn instruct(
    state: &State,
    vm_id: VmId,
    instruction: Instruction,
    timeout_s: Option<u32>,
    scope: &RowScope,
) -> Result<Decision, Rejection> {
    let vm = state.vms().get(&vm_id).ok_or(Rejection::NoSuchVm(vm_id))?;
    check_scope(vm, scope, Permission::VmLifecycle)?;
    let machine = vm.machine.as_ref().ok_or_else(|| Rejection::NoMachine(vm.name.clone()))?;
    if let Some(moving) = &vm.moving {
        return Err(moving.rejection(state, vm));
    }
    match machine.refuses(&vm.name, instruction) {
        Some(rejection) => Err(rejection),
        None => Ok(vec![VmInstructed { vm_id, instruction, timeout_s }.into()].into()),
    }
}

/// Whether the caller may use the console of a VM: that it begins to type there is recorded by the event.
pub(super) fn open_console(state: &State, vm_id: VmId, session: Uuid, scope: &RowScope) -> Result<Decision, Rejection> {
    let vm = state.vms().get(&vm_id).ok_or(Rejection::NoSuchVm(vm_id))?;
    check_scope(vm, scope, Permission::VmConsole)?;
    if vm.machine.is_none() {
        return Err(Rejection::NoMachine(vm.name.clone()));
    }
    Ok(vec![VmConsoleOpened { vm_id, session }.into()].into())
}
