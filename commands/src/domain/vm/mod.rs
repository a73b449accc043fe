//! VMs: their state, the decisions about them, and the reply.

mod apply;
mod label;
mod machine;
mod move_rejection;
mod moving;
mod placement;

use std::collections::BTreeMap;

use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::event::Event;
use otherix_schemas::id::{NodeId, VmId};
use otherix_schemas::nic::{GeneratedNic, NicView};
use otherix_schemas::node::Resources;
use otherix_schemas::outcome::OutcomeStatus;
use otherix_schemas::permission::Permission;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::RowScope;
use otherix_schemas::value::{ImageUrl, Metadata, UserId, VmName};
use otherix_schemas::vm::{
    Arch, NewVm, VmCommand, VmConsoleOpened, VmCreated, VmDeleted, VmEvent, VmInstructed, VmMoveCancelled,
    VmMoveStarted, VmMoved, VmOwner, VmView, moving_to, waiting_for_machine, waiting_for_node,
};
use serde::{Deserialize, Serialize};

use self::machine::RemovedMachines;
pub use self::machine::VmMachine;
pub use self::move_rejection::MoveRejection;
pub use self::moving::Moving;
use self::placement::Needs;
use super::codec::micros;
use super::name_index::NameIndex;
use super::nic::NewNic;
use super::{Decision, Rejection, Reply, State, nic};

/// A VM that is not deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    pub name: VmName,
    pub image_url: ImageUrl,
    pub arch: Arch,
    pub node_id: NodeId,
    pub owner: Option<Owner>,
    #[serde(with = "micros")]
    pub created_at: Timestamp,
    /// What people say about it.
    pub metadata: Metadata,
    /// The time and the position of its last decision.
    #[serde(with = "micros")]
    pub updated_at: Timestamp,
    pub generation: Position,
    /// What its node runs; `None` if nothing.
    #[serde(default)]
    pub machine: Option<VmMachine>,
    /// It moves to another node.
    #[serde(default)]
    pub moving: Option<Moving>,
    pub(super) version: u32,
}

/// The user that created a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub id: UserId,
    /// Its name then.
    pub name: Option<String>,
}

/// The VMs that are not deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SavedVms")]
pub struct Vms {
    pub(super) by_id: BTreeMap<VmId, Vm>,
    #[serde(skip_serializing)]
    by_name: NameIndex<VmId>,
    #[serde(default)]
    removed: RemovedMachines,
}

/// What a state snapshot holds of [`Vms`].
#[derive(Deserialize)]
struct SavedVms {
    by_id: BTreeMap<VmId, Vm>,
    #[serde(default)]
    removed: RemovedMachines,
}

impl From<SavedVms> for Vms {
    fn from(SavedVms { by_id, removed }: SavedVms) -> Self {
        let by_name = by_id.iter().map(|(id, vm)| (vm.name.key(), *id)).collect();
        Self { by_id, by_name, removed }
    }
}

impl Vm {
    fn created(header: &Header, event: &VmCreated) -> Self {
        let VmCreated { vm_id: _, name, image_url, arch, node_id, owner, machine } = event.clone();
        let name_of = |id: &UserId| header.actor.name.clone().filter(|_| header.actor.id == *id);
        let owner = owner.map(|id| Owner { name: name_of(&id), id });
        let machine = machine.map(|spec| VmMachine::new(spec, header.position));
        let (created_at, updated_at, generation) = (header.time, header.time, header.position);
        let (metadata, moving, version) = (Metadata::default(), None, header.stream_version);
        Self {
            name,
            image_url,
            arch,
            node_id,
            owner,
            created_at,
            metadata,
            updated_at,
            generation,
            machine,
            moving,
            version,
        }
    }

    /// A decision about it.
    fn decided(&mut self, header: &Header) {
        (self.version, self.updated_at, self.generation) = (header.stream_version, header.time, header.position);
    }

    /// What its machine takes of its node, whether it runs or not.
    fn resources(&self) -> Resources {
        self.machine.as_ref().map(|machine| Resources::from(&machine.spec)).unwrap_or_default()
    }
}

impl State {
    /// Returns the VMs that are not deleted.
    pub fn vms(&self) -> &BTreeMap<VmId, Vm> {
        &self.vms.by_id
    }

    pub(super) fn evolve_vm(&mut self, header: &Header, event: &VmEvent) {
        match event {
            VmEvent::Created(event) => {
                let vm = Vm::created(header, event);
                let (node_id, taken) = (vm.node_id, vm.resources());
                self.vms.by_name.insert(vm.name.key(), event.vm_id);
                self.vms.by_id.insert(event.vm_id, vm);
                self.take_room(node_id, taken);
            }
            VmEvent::Instructed(event) => self.vms.instructed(header, event),
            VmEvent::MoveStarted(event) => self.vm_move_started(header, event),
            VmEvent::Moved(event) => self.vm_moved(header, event),
            VmEvent::MoveCancelled(event) => self.vm_move_cancelled(header, event),
            VmEvent::Labelled(event) => self.vms.labelled(header, event),
            VmEvent::ConsoleOpened(VmConsoleOpened { vm_id, session: _ }) => {
                if let Some(vm) = self.vms.by_id.get_mut(vm_id) {
                    vm.version = header.stream_version;
                }
            }
            VmEvent::Deleted(VmDeleted { vm_id, name: _ }) => {
                let Some(vm) = self.vms.by_id.remove(vm_id) else { return };
                self.vms.remove_machine(header, *vm_id, &vm);
                self.vms.by_name.remove(&vm.name.key(), *vm_id);
                self.give_room(vm.node_id, vm.resources());
                if let Some(Moving { node_id, .. }) = vm.moving {
                    self.give_room(node_id, vm.resources());
                }
            }
        }
    }
}

pub(super) fn decide(state: &State, command: &VmCommand) -> Result<Decision, Rejection> {
    match command {
        VmCommand::Create { vm_id, nic, vm, owner } => create(state, *vm_id, *nic, vm, owner),
        VmCommand::Apply { vm_id, nic, vm, owner, scope } => match apply::named(state, vm) {
            Some(existing) => apply::compare(state, existing, vm, scope),
            None => create(state, *vm_id, *nic, vm, owner),
        },
        VmCommand::Change { vm_id, if_generation, changes, scope } => {
            label::change(state, *vm_id, *if_generation, changes, scope)
        }
        VmCommand::Delete { vm_id, scope } => delete(state, *vm_id, scope),
        VmCommand::Instruct { vm_id, instruction, timeout_s, scope } => {
            machine::instruct(state, *vm_id, *instruction, *timeout_s, scope)
        }
        VmCommand::Move { vm_id, node_id, timeout_s, scope } => {
            moving::start(state, *vm_id, *node_id, *timeout_s, scope)
        }
        VmCommand::CancelMove { vm_id, scope } => moving::cancel(state, *vm_id, scope),
        VmCommand::OpenConsole { vm_id, session, scope } => machine::open_console(state, *vm_id, *session, scope),
    }
}

/// Creates a VM with its NIC and places both on a node: all of it or nothing.
fn create(
    state: &State,
    vm_id: VmId,
    generated: GeneratedNic,
    vm: &NewVm,
    owner: &UserId,
) -> Result<Decision, Rejection> {
    let NewVm { name, image_url, arch, network_id, ip, node_id, machine, metadata } = vm.clone();
    if let Some(other) = state.vms.by_name.get(&name.key()) {
        return Err(Rejection::VmNameTaken { name, other });
    }
    if let Some(network_id) = network_id {
        state.live_network(network_id).ok_or(Rejection::NoSuchNetwork(network_id))?;
    }
    let resources = machine.as_ref().map(Resources::from);
    let node_id = state.place(node_id, Needs { arch, network: network_id, resources, moving_from: None })?;
    let owner = Some(owner.clone());
    let mut events = vec![VmCreated { vm_id, name, image_url, arch, node_id, owner, machine }.into()];
    if let Some(network_id) = network_id {
        events.extend(nic::attach(state, NewNic { generated, vm_id, network_id, ip, node_id })?);
    }
    events.extend(label::labelled(vm_id, &Metadata::default(), &metadata));
    Ok(events.into())
}

fn delete(state: &State, vm_id: VmId, scope: &RowScope) -> Result<Decision, Rejection> {
    let vm = state.vms().get(&vm_id).ok_or(Rejection::NoSuchVm(vm_id))?;
    check_scope(vm, scope, Permission::VmDelete)?;
    let mut events = nic::detach(&state.nics, vm_id);
    events.push(VmDeleted { vm_id, name: vm.name.clone() }.into());
    Ok(events.into())
}

/// Whether the caller's permission is for this VM.
fn check_scope(vm: &Vm, scope: &RowScope, permission: Permission) -> Result<(), Rejection> {
    match scope {
        RowScope::Any => Ok(()),
        RowScope::Owner { id, .. } if vm.owner.as_ref().is_some_and(|owner| owner.id == *id) => Ok(()),
        RowScope::Owner { role, .. } => {
            let (name, role) = (vm.name.clone(), *role);
            Err(Rejection::NotOwner { name, role, permission })
        }
    }
}

/// Returns the VM that the events create, change or delete, as it is after them.
pub(super) fn reply(before: &State, command: Option<&VmCommand>, envelopes: &[EventEnvelope]) -> Reply {
    match command {
        Some(VmCommand::Apply { vm, .. }) => return apply::applied(before, vm, envelopes),
        Some(VmCommand::Change { vm_id, .. }) => {
            let applied = label::applied(before, *vm_id, envelopes).map(Box::new);
            return applied.map_or(Reply::Nothing, Reply::AppliedVm);
        }
        Some(
            VmCommand::Create { .. }
            | VmCommand::Delete { .. }
            | VmCommand::Instruct { .. }
            | VmCommand::OpenConsole { .. }
            | VmCommand::Move { .. }
            | VmCommand::CancelMove { .. },
        )
        | None => {}
    }
    let nic = nic::view(before, envelopes);
    let view = envelopes.iter().find_map(|EventEnvelope { header, event }| match event {
        Event::Vm(
            event @ (VmEvent::Instructed(VmInstructed { vm_id, .. })
            | VmEvent::MoveStarted(VmMoveStarted { vm_id, .. })
            | VmEvent::Moved(VmMoved { vm_id, .. })
            | VmEvent::MoveCancelled(VmMoveCancelled { vm_id, .. })
            | VmEvent::ConsoleOpened(VmConsoleOpened { vm_id, .. })),
        ) => view(before, header, event, nic::current_view(before, *vm_id)),
        Event::Vm(event @ (VmEvent::Created(_) | VmEvent::Deleted(_))) => view(before, header, event, nic.clone()),
        Event::Vm(VmEvent::Labelled(_))
        | Event::Network(_)
        | Event::Nic(_)
        | Event::Node(_)
        | Event::User(_)
        | Event::Enrollment(_)
        | Event::Cluster(_) => None,
    });
    let Some(mut view) = view else { return Reply::Nothing };
    if let Some(EventEnvelope { header, event: Event::Vm(VmEvent::Labelled(event)) }) = envelopes.last() {
        (view.description, view.labels) = (event.description.clone(), event.labels.clone());
        (view.generation, view.updated_at) = (header.position, header.time);
    }
    let waits_for_machine = view.machine.as_ref().map(|machine| waiting_for_machine(&view, machine.power));
    let moves = view.moving.as_ref().map(|moving| moving_to(&moving.node_name, moving.progress.as_deref()));
    view.error = moves.or_else(|| nic.map(|nic| waiting_for_node(&view, &nic.tap))).or(waits_for_machine);
    Reply::Vm(Box::new(view))
}

fn view(before: &State, header: &Header, event: &VmEvent, nic: Option<NicView>) -> Option<VmView> {
    let (id, vm, deleted_at) = match event {
        VmEvent::Created(event) => (event.vm_id, Vm::created(header, event), None),
        VmEvent::Instructed(event) => (event.vm_id, before.vms.after(header, event)?, None),
        VmEvent::MoveStarted(event) => {
            let mut vm = before.vms().get(&event.vm_id)?.clone();
            vm.move_started(header, event);
            (event.vm_id, vm, None)
        }
        VmEvent::MoveCancelled(event) => {
            let mut vm = before.vms().get(&event.vm_id)?.clone();
            vm.move_cancelled(header);
            (event.vm_id, vm, None)
        }
        // Not decided by a request about VMs.
        VmEvent::Moved(_) => return None,
        VmEvent::ConsoleOpened(event) => (event.vm_id, before.vms().get(&event.vm_id)?.clone(), None),
        VmEvent::Labelled(event) => (event.vm_id, before.vms().get(&event.vm_id)?.clone(), None),
        VmEvent::Deleted(VmDeleted { vm_id, name: _ }) => (*vm_id, before.vms().get(vm_id)?.clone(), Some(header.time)),
    };
    let status = match (nic.is_some() || vm.machine.is_some(), deleted_at) {
        (true, _) => OutcomeStatus::Pending,
        (false, None) => OutcomeStatus::Ready,
        (false, Some(_)) => OutcomeStatus::Removed,
    };
    let (generation, updated_at) = (header.position, header.time);
    Some(VmView { status, generation, updated_at, deleted_at, ..placed_view(before, id, vm, nic)? })
}

/// The view of a VM that is not deleted, as if it were ready.
fn placed_view(before: &State, id: VmId, vm: Vm, nic: Option<NicView>) -> Option<VmView> {
    let Vm { name, image_url, arch, node_id, owner, created_at, updated_at, generation, machine, moving, .. } = vm;
    let Metadata { description, labels } = vm.metadata;
    Some(VmView {
        id,
        name,
        image_url,
        arch,
        owner: owner.map(|Owner { id, name }| VmOwner { id, name }),
        description,
        labels,
        node_id,
        node_name: before.nodes().get(&node_id)?.name.clone(),
        node_reachable: before.roster().members.get(&node_id).copied().unwrap_or_default(),
        nic,
        machine: machine.as_ref().map(VmMachine::view),
        moving: moving.and_then(|moving| moving.view(before)),
        status: OutcomeStatus::Ready,
        error: None,
        warnings: Vec::new(),
        generation,
        created_at,
        updated_at,
        deleted_at: None,
    })
}
