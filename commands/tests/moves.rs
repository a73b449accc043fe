//! Decisions about VMs that move to another node: given / when / then.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

#[path = "support/builders.rs"]
mod builders;
#[path = "support/decisions.rs"]
mod decisions;

use builders::*;
use decisions::{Given, given};
use otherix_commands::domain::{MoveRejection, Rejection};
use otherix_schemas::command::Command;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::event::Event;
use otherix_schemas::node::Resources;
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::vm::{
    Arch, Instruction, MachinePhase, Power, VmCreated, VmEvent, VmInstructed, VmMoveCancelled, VmMoveStarted, VmMoved,
};

/// VM 1 with a machine and a NIC on network 1, on node 1.
fn vm() -> Vec<Event> {
    let mut events = vm_created(1, Some(1), 1);
    if let Some(Event::Vm(VmEvent::Created(event))) = events.first().cloned() {
        events[0] = VmCreated { machine: Some(machine()), ..event }.into();
    }
    events
}

/// Two nodes of the mesh, a network, and the VM at positions 6 to 8; then more, from 9 on.
fn cluster(more: impl IntoIterator<Item = Event>) -> Given {
    let nodes = [
        node_joined(1),
        changed(1, [10, 42, 0, 1], 1, 51820),
        node_joined(2),
        changed(2, [10, 42, 0, 2], 2, 51820),
        created(1, "net", managed("br0")),
    ];
    given(nodes.into_iter().chain(vm()).chain(more))
}

fn start(node: Option<u128>) -> Command {
    move_vm(1, node)
}

fn cancel() -> Command {
    cancel_move(1)
}

fn started(power: Power) -> Event {
    let Some(Event::Vm(VmEvent::Created(created))) = vm().into_iter().next() else { unreachable!("a VM") };
    let VmCreated { vm_id, name, image_url, arch, node_id: from_node_id, machine, .. } = created;
    let (machine, node_id, timeout_s) = (machine.unwrap(), node_id(2), 60);
    VmMoveStarted { vm_id, name, image_url, arch, machine, from_node_id, node_id, power, timeout_s }.into()
}

fn moved() -> [Event; 2] {
    [VmMoved { vm_id: vm_id(1), from_node_id: node_id(1), node_id: node_id(2) }.into(), bound(1, 2)]
}

fn cancelled(reason: Option<&str>) -> Event {
    VmMoveCancelled { vm_id: vm_id(1), node_id: node_id(2), reason: reason.map(str::to_owned) }.into()
}

/// What a node reports of the VM.
fn said(generation: u64, outcome: Outcome) -> ResourceOutcome {
    let phase = if outcome == Outcome::Removed { MachinePhase::Removed } else { MachinePhase::Stopped };
    machine_outcome(1, generation, phase, outcome)
}

fn name() -> otherix_schemas::value::VmName {
    "vm-1".parse().unwrap()
}

#[test]
fn a_vm_is_on_the_other_node_as_soon_as_that_has_the_disk() {
    cluster([]).when(&start(Some(2))).then([started(Power::Running)]);
    cluster([]).when(&start(None)).then([started(Power::Running)]);
    let moving = || cluster([started(Power::Running)]);
    // That its own node has shut it down, or that the other one waits, is not enough.
    for (node, outcome) in [(1, Outcome::Ready), (2, Outcome::Pending("copying".to_owned()))] {
        let result = said(9, outcome);
        moving().when(&report(node, 1, 1, [result.clone()])).then([reconciled(node, 1, 1, [result])]);
    }
    let complete = said(9, Outcome::Ready);
    let [vm_moved, nic_bound] = moved();
    let all = [reconciled(2, 1, 1, [complete.clone()]), vm_moved, nic_bound];
    moving().when(&report(2, 1, 1, [complete])).then(all.clone());
    let state = cluster([started(Power::Running)].into_iter().chain(all)).state;
    let vm = &state.vms()[&vm_id(1)];
    assert_eq!((vm.node_id, &vm.moving), (node_id(2), &None));
    let machine = vm.machine.as_ref().unwrap();
    assert_eq!((machine.power, machine.generation, &machine.status), (Power::Running, Position::new(11), &None));
    let (_, nic) = state.nics().of_vm(vm_id(1)).next().unwrap();
    assert_eq!((nic.node_id, nic.generation), (Some(node_id(2)), Position::new(12)));
    let load = [1, 2].map(|node| (state.nodes()[&node_id(node)].vms, state.nodes()[&node_id(node)].nics));
    assert_eq!(load, [(0, 0), (1, 1)]);
}

#[test]
fn both_nodes_have_room_for_it_until_it_has_moved() {
    let rooms = |given: &Given| [1, 2].map(|node| given.state.nodes()[&node_id(node)].allocated.vcpus);
    assert_eq!(rooms(&cluster([])), [1, 0]);
    assert_eq!(rooms(&cluster([started(Power::Running)])), [1, 1]);
    assert_eq!(rooms(&cluster([started(Power::Running)].into_iter().chain(moved()))), [0, 1]);
    assert_eq!(rooms(&cluster([started(Power::Running), cancelled(None)])), [1, 0]);
    let deleted = vm_deleted(1, Some(1));
    assert_eq!(rooms(&cluster([started(Power::Running)].into_iter().chain(deleted))), [0, 0]);
    // A node that a VM moves to is not removed.
    let moving = cluster([started(Power::Running)]);
    moving.when(&remove(2)).then_rejected(Rejection::NodeInUse { name: node_name("node-2"), vms: 1 });
    let full = cluster([capacity(2, 0).into()]);
    let (needed, free) = (Resources { vcpus: 1, memory_mb: 64, disk_gib: 0 }, Resources::default());
    full.when(&start(Some(2))).then_rejected(Rejection::NoRoom { node: node_name("node-2"), needed, free });
}

#[test]
fn a_failure_of_either_node_leaves_it_where_it_is() {
    for node in [1, 2] {
        let failed = said(9, Outcome::Failed("no space left".to_owned()));
        cluster([started(Power::Running)])
            .when(&report(node, 1, 1, [failed.clone()]))
            .then([reconciled(node, 1, 1, [failed]), cancelled(Some("no space left"))]);
    }
    cluster([started(Power::Running)]).when(&cancel()).then([cancelled(None)]);
    let given = cluster([started(Power::Running), cancelled(None)]);
    let vm = &given.state.vms()[&vm_id(1)];
    let machine = vm.machine.as_ref().unwrap();
    assert_eq!((vm.node_id, &vm.moving), (node_id(1), &None));
    assert_eq!((machine.power, machine.generation), (Power::Running, Position::new(10)));
    // What is said of the move that was cancelled moves nothing.
    let late = said(9, Outcome::Ready);
    given.when(&report(2, 1, 1, [late.clone()])).then([reconciled(2, 1, 1, [late])]);
    given
        .when(&cancel())
        .then_rejected(MoveRejection::DoesNotMove { vm: name(), node: Some(node_name("node-1")) }.into());
}

#[test]
fn what_is_left_on_a_node_is_awaited_before_the_next_move() {
    let here = |more: Vec<Event>| cluster([started(Power::Running)].into_iter().chain(moved()).chain(more));
    let left: Rejection = MoveRejection::CopyLeft { vm: name(), node: node_name("node-1") }.into();
    here(vec![]).when(&start(Some(1))).then_rejected(left);
    let unknown = |given: &Given, result| given.decision(&report(1, 1, 1, [result])).unwrap().unknown;
    // Not for another decision than the one by which it is elsewhere.
    assert_eq!(unknown(&here(vec![]), said(9, Outcome::Removed)), [ResourceRef::Vm(vm_id(1))]);
    let removed = said(10, Outcome::Removed);
    let event = reconciled(1, 1, 1, [removed.clone()]);
    here(vec![]).when(&report(1, 1, 1, [removed.clone()])).then([event.clone()]);
    // Instructions in between, which are those of its new node, change nothing.
    let stop = VmInstructed { vm_id: vm_id(1), instruction: Instruction::Stop, timeout_s: Some(0) };
    here(vec![stop.into()]).when(&report(1, 1, 1, [removed.clone()])).then([event.clone()]);
    let clean = here(vec![event]);
    assert_eq!(unknown(&clean, removed), [ResourceRef::Vm(vm_id(1))]);
    assert!(clean.decision(&start(Some(1))).is_ok());
    // A node that is removed from the cluster has nothing left.
    let three = [node_joined(3), changed(3, [10, 42, 0, 3], 3, 51820), node_removed(1)];
    assert!(here(three.to_vec()).decision(&start(Some(3))).is_ok());
}

#[test]
fn both_nodes_remove_a_vm_that_is_deleted_while_it_moves() {
    let deleted = || cluster([started(Power::Running)].into_iter().chain(vm_deleted(1, Some(1))));
    for node in [1, 2] {
        let removed = said(11, Outcome::Removed);
        deleted().when(&report(node, 1, 1, [removed.clone()])).then([reconciled(node, 1, 1, [removed])]);
    }
}

#[test]
fn nothing_else_happens_to_a_vm_that_moves() {
    let moving = cluster([started(Power::Running)]);
    let rejection: Rejection = MoveRejection::Moves { vm: name(), node: Some(node_name("node-2")) }.into();
    moving.when(&start(Some(2))).then_rejected(rejection.clone());
    for order in [Instruction::Start, Instruction::Stop, Instruction::Reset] {
        moving.when(&instruct(1, order)).then_rejected(rejection.clone());
    }
    assert_eq!(ErrorBody::from(&rejection).error.code, ErrorCode::Conflict);
    assert!(rejection.to_string().contains("otherix vm move vm-1 --cancel"), "{rejection}");
    assert!(moving.decision(&delete_vm(1)).is_ok());
}

#[test]
fn a_guest_that_has_shut_down_is_not_started_by_a_move() {
    let off = reconciled(1, 1, 1, [said(6, Outcome::Ready)]);
    cluster([off]).when(&start(Some(2))).then([started(Power::Stopped)]);
    let stop = VmInstructed { vm_id: vm_id(1), instruction: Instruction::Stop, timeout_s: Some(0) };
    cluster([stop.into()]).when(&start(Some(2))).then([started(Power::Stopped)]);
    let pause = VmInstructed { vm_id: vm_id(1), instruction: Instruction::Pause, timeout_s: None };
    cluster([pause.into()]).when(&start(Some(2))).then_rejected(MoveRejection::Paused(name()).into());
}

#[test]
fn a_vm_moves_only_to_a_node_that_can_have_it() {
    let node = |number: u128| node_name(&format!("node-{number}"));
    cluster([]).when(&start(Some(1))).then_rejected(MoveRejection::IsThere(node(1)).into());
    cluster([]).when(&start(Some(9))).then_rejected(Rejection::NoSuchNode(node_id(9)));
    cluster([cordoned(2)]).when(&start(Some(2))).then_rejected(Rejection::NodeCordoned(node(2)));
    cluster([cordoned(2)]).when(&start(None)).then_rejected(MoveRejection::NoOtherNode.into());
    cluster([unreachable(2)]).when(&start(Some(2))).then_rejected(MoveRejection::Unreachable(node(2)).into());
    let away = MoveRejection::SourceUnreachable { vm: name(), node: node(1) }.into();
    cluster([unreachable(1)]).when(&start(Some(2))).then_rejected(away);
    cluster([node_joined(3)]).when(&start(Some(3))).then_rejected(MoveRejection::NotInMesh(node(3)).into());
    cluster([node_joined(3), cordoned(2)]).when(&start(None)).then_rejected(MoveRejection::NoOtherNode.into());
    let other = Rejection::NodeOfOtherArch { node: node(2), node_arch: Arch::Arm64, arch: Arch::Amd64 };
    cluster([described(2, Arch::Arm64)]).when(&start(Some(2))).then_rejected(other);
    let failed = reconciled(2, 1, 1, [outcome(1, 5, Outcome::Failed("a bridge of somebody else".to_owned()))]);
    let network = MoveRejection::NetworkFailed { network: builders::name("net"), node: node(2) }.into();
    cluster([failed.clone()]).when(&start(Some(2))).then_rejected(network);
    cluster([failed]).when(&start(None)).then_rejected(MoveRejection::NoOtherNode.into());
    // Out of the mesh: its disk cannot be read.
    let outside = given([node_joined(1), node_joined(2), created(1, "net", managed("br0"))].into_iter().chain(vm()));
    outside.when(&start(Some(2))).then_rejected(MoveRejection::NotInMesh(node(1)).into());
    let plain = given([node_joined(1)].into_iter().chain(vm_created(1, None, 1)));
    plain.when(&start(Some(2))).then_rejected(Rejection::NoMachine(name()));
    given([node_joined(1)]).when(&start(Some(2))).then_rejected(Rejection::NoSuchVm(vm_id(1)));
}
