//! Decisions about the machines of VMs, and what their nodes report of them: given / when / then.

#[path = "support/builders.rs"]
mod builders;
#[path = "support/decisions.rs"]
mod decisions;

use builders::*;
use decisions::{Given, given};
use otherix_commands::domain::Rejection;
use otherix_schemas::command::Command;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::event::Event;
use otherix_schemas::node::NodeReconciled;
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::permission::{Permission, Role};
use otherix_schemas::user::RowScope;
use otherix_schemas::vm::{Instruction, MachinePhase, Power, VmCommand, VmCreated, VmEvent, VmInstructed};

const ALL: [Instruction; 6] = [
    Instruction::Start,
    Instruction::Stop,
    Instruction::Reboot,
    Instruction::Reset,
    Instruction::Pause,
    Instruction::Resume,
];

fn with_machine(id: u128, node: u128) -> Event {
    let Some(Event::Vm(VmEvent::Created(event))) = vm_created(id, None, node).pop() else {
        unreachable!("a VM without a NIC is one event")
    };
    VmCreated { machine: Some(machine()), ..event }.into()
}

fn instructed(id: u128, instruction: Instruction) -> Event {
    VmInstructed { vm_id: vm_id(id), instruction, timeout_s: None }.into()
}

fn reported(sequence: u64, results: Vec<ResourceOutcome>) -> Event {
    NodeReconciled { node_id: node_id(1), incarnation: 1, sequence, results }.into()
}

/// A node, and VM 1 with a machine at position 2, and further events.
fn cluster(more: impl IntoIterator<Item = Event>) -> Given {
    given([node_joined(1), with_machine(1, 1)].into_iter().chain(more))
}

#[test]
fn a_vm_is_created_with_a_machine_that_is_to_run() {
    given([node_joined(1)]).when(&create_machine(1, None, 1)).then([with_machine(1, 1)]);
    let given = cluster([]);
    let machine = given.state.vms()[&vm_id(1)].machine.clone().unwrap();
    assert_eq!((machine.power, machine.generation.get(), machine.spec), (Power::Running, 2, builders::machine()));
}

/// What each instruction leads to, and which are possible before and after.
#[test]
fn instructions_depend_on_whether_it_is_to_run() {
    let possible = |given: &Given| -> Vec<Instruction> {
        ALL.into_iter().filter(|order| given.decision(&instruct(1, *order)).is_ok()).collect()
    };
    let running = [Instruction::Stop, Instruction::Reboot, Instruction::Reset, Instruction::Pause];
    assert_eq!(possible(&cluster([])), running);
    for (order, then) in [
        (Instruction::Reboot, running.to_vec()),
        (Instruction::Reset, running.to_vec()),
        (Instruction::Pause, vec![Instruction::Stop, Instruction::Resume]),
        // Again, as it may not have shut down yet.
        (Instruction::Stop, vec![Instruction::Start, Instruction::Stop]),
    ] {
        cluster([]).when(&instruct(1, order)).then([instructed(1, order)]);
        assert_eq!(possible(&cluster([instructed(1, order)])), then, "after {order:?}");
    }
    let stopped = machine_outcome(1, 3, MachinePhase::Stopped, Outcome::Ready);
    let stopped = cluster([instructed(1, Instruction::Stop), reported(1, vec![stopped])]);
    assert_eq!(possible(&stopped), [Instruction::Start]);
    stopped.when(&instruct(1, Instruction::Stop)).then_rejected(Rejection::NotPossible {
        vm: "vm-1".parse().unwrap(),
        power: Power::Stopped,
        instruction: Instruction::Stop,
    });
    let text = |instruction, power| {
        let vm = "vm-1".parse().unwrap();
        ErrorBody::from(&Rejection::NotPossible { vm, power, instruction }).error
    };
    let error = text(Instruction::Start, Power::Running);
    assert_eq!(
        (error.code, &*error.message),
        (ErrorCode::Conflict, "cannot start VM `vm-1`: it is running, or starting")
    );
    let error = text(Instruction::Reset, Power::Paused);
    assert_eq!(error.message, "cannot reset VM `vm-1`: it is paused; `otherix vm resume` lets it go on");
}

#[test]
fn what_has_failed_may_be_started_again() {
    let failed = machine_outcome(1, 2, MachinePhase::Failed, Outcome::Failed("no image".to_owned()));
    let failed = cluster([reported(1, vec![failed])]);
    failed.when(&instruct(1, Instruction::Start)).then([instructed(1, Instruction::Start)]);
    // The failure is not one of the new order.
    let again = cluster([
        reported(1, vec![machine_outcome(1, 2, MachinePhase::Failed, Outcome::Failed("no image".to_owned()))]),
        instructed(1, Instruction::Start),
    ]);
    assert!(again.decision(&instruct(1, Instruction::Start)).is_err());
}

#[test]
fn only_vms_with_machines_are_instructed() {
    let plain = given([node_joined(1)].into_iter().chain(vm_created(1, None, 1)));
    for order in ALL {
        plain.when(&instruct(1, order)).then_rejected(Rejection::NoMachine("vm-1".parse().unwrap()));
        cluster([]).when(&instruct(2, order)).then_rejected(Rejection::NoSuchVm(vm_id(2)));
    }
    let error = ErrorBody::from(&Rejection::NoMachine("vm-1".parse().unwrap())).error;
    assert_eq!(error.code, ErrorCode::Conflict);
}

#[test]
fn a_role_may_be_limited_to_its_own_vms() {
    let of = |id: &str| {
        let scope = RowScope::Owner { id: id.parse().unwrap(), role: Role::Developer };
        let (vm_id, instruction, timeout_s) = (vm_id(1), Instruction::Stop, Some(0));
        Command::Vm(VmCommand::Instruct { vm_id, instruction, timeout_s, scope })
    };
    let own = VmInstructed { vm_id: vm_id(1), instruction: Instruction::Stop, timeout_s: Some(0) };
    cluster([]).when(&of(&owner().to_string())).then([own.into()]);
    cluster([]).when(&of("0198e8c4-0000-7000-8000-0000000000ff")).then_rejected(Rejection::NotOwner {
        name: "vm-1".parse().unwrap(),
        role: Role::Developer,
        permission: Permission::VmLifecycle,
    });
}

#[test]
fn only_the_vms_node_reports_on_its_machine() {
    let running = || machine_outcome(1, 2, MachinePhase::Running, Outcome::Ready);
    let event = reported(1, vec![running()]);
    cluster([]).when(&report(1, 1, 1, vec![running()])).then([event.clone()]);
    // The same again is no news.
    cluster([event.clone()]).when(&report(1, 1, 2, vec![running()])).then([]);
    // The outcome is the same, what it does is not.
    let paused = machine_outcome(1, 2, MachinePhase::Paused, Outcome::Ready);
    cluster([event]).when(&report(1, 1, 2, vec![paused.clone()])).then([reported(2, vec![paused])]);
    let unknown = |given: Given, node: u128, result: ResourceOutcome| {
        let decision = given.decision(&report(node, 1, 1, vec![result.clone()])).unwrap();
        assert_eq!((decision.events.len(), decision.unknown), (0, vec![result.resource]), "{result:?}");
    };
    unknown(cluster([node_joined(2)]), 2, running());
    unknown(cluster([]), 1, machine_outcome(2, 2, MachinePhase::Running, Outcome::Ready));
    // Not before it is deleted, and not for a later decision than there is.
    unknown(cluster([]), 1, machine_outcome(1, 2, MachinePhase::Removed, Outcome::Removed));
    unknown(cluster([]), 1, machine_outcome(1, 3, MachinePhase::Running, Outcome::Ready));
    // What a machine does is said of machines, and of nothing else.
    unknown(cluster([]), 1, ResourceOutcome { machine: None, ..running() });
    let network = ResourceOutcome { resource: ResourceRef::Network(network_id(1)), ..running() };
    unknown(cluster([created(1, "a", managed("br0"))]), 1, network);
}

#[test]
fn the_machine_of_a_deleted_vm_is_awaited() {
    let deleted = || cluster(vm_deleted(1, None));
    let removed = machine_outcome(1, 3, MachinePhase::Removed, Outcome::Removed);
    let event = reported(1, vec![removed.clone()]);
    deleted().when(&report(1, 1, 1, vec![removed.clone()])).then([event.clone()]);
    let unknown = |given: Given| given.decision(&report(1, 1, 2, vec![removed.clone()])).unwrap().unknown;
    assert_eq!(unknown(cluster(vm_deleted(1, None).into_iter().chain([event]))), [ResourceRef::Vm(vm_id(1))]);
    assert!(deleted().decision(&instruct(1, Instruction::Start)).is_err());
}
