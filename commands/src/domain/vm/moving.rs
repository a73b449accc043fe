//! VMs that move to another node: the decisions, and what follows from their nodes' reports (docs/adr/0051).

use otherix_schemas::cloudevent::Header;
use otherix_schemas::event::Event;
use otherix_schemas::id::{NodeId, VmId};
use otherix_schemas::node::Resources;
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::permission::Permission;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::RowScope;
use otherix_schemas::vm::{MachinePhase, Power, VmMoveCancelled, VmMoveStarted, VmMoveView, VmMoved};
use serde::{Deserialize, Serialize};

use super::placement::Needs;
use super::{Vm, VmMachine, check_scope};
use crate::domain::codec::micros;
use crate::domain::{Decision, MoveRejection, Rejection, ReportedStatus, State, nic};

/// The move of a VM that is on its old node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// The node that it moves to.
    pub node_id: NodeId,
    /// Position of the decision.
    pub generation: Position,
    #[serde(with = "micros")]
    pub since: Timestamp,
    /// What the node that it moves to last reported.
    pub status: Option<ReportedStatus>,
}

impl Moving {
    /// Why nothing else can be done with the VM.
    pub(super) fn rejection(&self, state: &State, vm: &Vm) -> Rejection {
        let node = state.nodes().get(&self.node_id).map(|node| node.name.clone());
        MoveRejection::Moves { vm: vm.name.clone(), node }.into()
    }

    pub(super) fn view(&self, state: &State) -> Option<VmMoveView> {
        let node_name = state.nodes().get(&self.node_id)?.name.clone();
        let status = self.status.as_ref().filter(|status| status.generation == self.generation);
        let progress = status.and_then(|status| status.outcome.error()).map(str::to_owned);
        Some(VmMoveView { node_id: self.node_id, node_name, progress, since: self.since })
    }
}

impl Vm {
    pub(super) fn move_started(&mut self, header: &Header, event: &VmMoveStarted) {
        let (generation, since) = (header.position, header.time);
        self.decided(header);
        self.moving = Some(Moving { node_id: event.node_id, generation, since, status: None });
        if let Some(machine) = &mut self.machine {
            (machine.power, machine.generation) = (event.power, generation);
        }
    }

    pub(super) fn move_cancelled(&mut self, header: &Header) -> Option<Moving> {
        self.decided(header);
        if let Some(machine) = &mut self.machine {
            machine.generation = header.position;
        }
        self.moving.take()
    }
}

impl State {
    pub(super) fn vm_move_started(&mut self, header: &Header, event: &VmMoveStarted) {
        let Some(vm) = self.vms.by_id.get_mut(&event.vm_id) else { return };
        vm.move_started(header, event);
        let taken = vm.resources();
        self.take_room(event.node_id, taken);
    }

    pub(super) fn vm_moved(&mut self, header: &Header, event: &VmMoved) {
        let VmMoved { vm_id, from_node_id, node_id } = *event;
        let Some(vm) = self.vms.by_id.get_mut(&vm_id) else { return };
        vm.decided(header);
        (vm.node_id, vm.moving) = (node_id, None);
        let mut status = None;
        if let Some(machine) = &mut vm.machine {
            machine.generation = header.position;
            status = machine.status.take();
        }
        let taken = vm.resources();
        self.vms.await_removal(header, (vm_id, from_node_id), status);
        self.give_room(from_node_id, taken);
    }

    pub(super) fn vm_move_cancelled(&mut self, header: &Header, event: &VmMoveCancelled) {
        let Some(vm) = self.vms.by_id.get_mut(&event.vm_id) else { return };
        let Some(Moving { node_id, status, .. }) = vm.move_cancelled(header) else { return };
        let taken = vm.resources();
        self.vms.await_removal(header, (event.vm_id, node_id), status);
        self.give_room(node_id, taken);
    }

    /// A VM is placed on a node, or is about to be.
    pub(super) fn take_room(&mut self, node: NodeId, taken: Resources) {
        self.nodes.change_load(node, |node| {
            node.vms += 1;
            node.allocated = node.allocated.plus(taken);
        });
    }

    pub(super) fn give_room(&mut self, node: NodeId, taken: Resources) {
        self.nodes.change_load(node, |node| {
            node.vms = node.vms.saturating_sub(1);
            node.allocated = node.allocated.minus(taken);
        });
    }

    /// What is decided because of what a node reports of a VM that moves: the VM is on the other node as soon as that
    /// has the whole disk, and stays on its own if one of the two cannot do its part.
    pub(in crate::domain) fn decided_by_report(&self, node: NodeId, result: &ResourceOutcome) -> Vec<Event> {
        let ResourceRef::Vm(vm_id) = result.resource else { return Vec::new() };
        let Some(vm) = self.vms().get(&vm_id) else { return Vec::new() };
        let moving = vm.moving.as_ref().filter(|moving| moving.generation == result.generation);
        let Some(Moving { node_id, .. }) = moving.cloned() else { return Vec::new() };
        match &result.outcome {
            Outcome::Ready if node == node_id => {
                let moved = VmMoved { vm_id, from_node_id: vm.node_id, node_id };
                std::iter::once(moved.into()).chain(nic::rebind(&self.nics, vm_id, node_id)).collect()
            }
            Outcome::Failed(reason) if node == node_id || node == vm.node_id => {
                vec![VmMoveCancelled { vm_id, node_id, reason: Some(reason.clone()) }.into()]
            }
            Outcome::Ready | Outcome::Failed(_) | Outcome::Pending(_) | Outcome::Removed => Vec::new(),
        }
    }
}

pub(super) fn start(
    state: &State,
    vm_id: VmId,
    node_id: Option<NodeId>,
    timeout_s: u32,
    scope: &RowScope,
) -> Result<Decision, Rejection> {
    let vm = state.vms().get(&vm_id).ok_or(Rejection::NoSuchVm(vm_id))?;
    check_scope(vm, scope, Permission::VmMove)?;
    let name = || vm.name.clone();
    let machine = vm.machine.as_ref().ok_or_else(|| Rejection::NoMachine(name()))?;
    if let Some(moving) = &vm.moving {
        return Err(moving.rejection(state, vm));
    }
    if let Some(node) = state.vms.left_of(vm_id).find_map(|id| state.nodes().get(&id)) {
        return Err(MoveRejection::CopyLeft { vm: name(), node: node.name.clone() }.into());
    }
    if machine.power == Power::Paused {
        return Err(MoveRejection::Paused(name()).into());
    }
    check_source(state, vm)?;
    let (arch, network) = (vm.arch, state.nics.of_vm(vm_id).next().map(|(_, nic)| nic.network_id));
    let needs = Needs { arch, network, resources: Some(vm.resources()), moving_from: Some(vm.node_id) };
    let node_id = state.place(node_id, needs)?;
    let started = VmMoveStarted {
        vm_id,
        name: name(),
        image_url: vm.image_url.clone(),
        arch,
        machine: machine.spec.clone(),
        from_node_id: vm.node_id,
        node_id,
        power: power_afterwards(machine),
        timeout_s,
    };
    Ok(vec![started.into()].into())
}

/// A VM whose guest has shut down by itself is not started because it moves.
fn power_afterwards(machine: &VmMachine) -> Power {
    if machine.phase() == MachinePhase::Stopped { Power::Stopped } else { machine.power }
}

/// The node of the VM must be able to give its disk.
fn check_source(state: &State, vm: &Vm) -> Result<(), Rejection> {
    let node = state.nodes().get(&vm.node_id).ok_or(Rejection::NoSuchNode(vm.node_id))?;
    if state.roster().members.get(&vm.node_id) != Some(&true) {
        return Err(MoveRejection::SourceUnreachable { vm: vm.name.clone(), node: node.name.clone() }.into());
    }
    if node.mesh.is_none() {
        return Err(MoveRejection::NotInMesh(node.name.clone()).into());
    }
    Ok(())
}

pub(super) fn cancel(state: &State, vm_id: VmId, scope: &RowScope) -> Result<Decision, Rejection> {
    let vm = state.vms().get(&vm_id).ok_or(Rejection::NoSuchVm(vm_id))?;
    check_scope(vm, scope, Permission::VmMove)?;
    let Some(Moving { node_id, .. }) = vm.moving else {
        let node = state.nodes().get(&vm.node_id).map(|node| node.name.clone());
        return Err(MoveRejection::DoesNotMove { vm: vm.name.clone(), node }.into());
    };
    Ok(vec![VmMoveCancelled { vm_id, node_id, reason: None }.into()].into())
}
