//! Decisions about VMs and their NICs, and about deleting a network in use: given / when / then.

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
use otherix_schemas::nic::NicEvent;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::value::MacAddress;
use otherix_schemas::vm::{Arch, VmCommand};
use serde_json::json;

/// Two nodes and network 1, the last event at position 3, and further events.
fn cluster(more: Vec<Event>) -> Given {
    let begin = [node_joined(1), node_joined(2), created(1, "a", managed("br0"))];
    given(begin.into_iter().chain(more))
}

fn all(events: impl IntoIterator<Item = Vec<Event>>) -> Vec<Event> {
    events.into_iter().flatten().collect()
}

#[test]
fn creates_a_vm_with_nic_and_node_or_not_at_all() {
    cluster(vec![]).when(&create_vm(1, Some(1), None)).then(vm_created(1, Some(1), 1));
    cluster(vec![]).when(&create_vm(1, None, Some(2))).then(vm_created(1, None, 2));
    cluster(vec![]).when(&create_vm(1, Some(9), None)).then_rejected(Rejection::NoSuchNetwork(network_id(9)));
    cluster(vec![]).when(&create_vm(1, Some(1), Some(9))).then_rejected(Rejection::NoSuchNode(node_id(9)));
    let deleted_network = cluster(vec![deleted(1, "a")]);
    deleted_network.when(&create_vm(1, Some(1), None)).then_rejected(Rejection::NoSuchNetwork(network_id(1)));
}

#[test]
fn a_node_tells_its_architecture_once() {
    given([]).when(&join_arch(1, Arch::Arm64)).then([node_joined(1), described(1, Arch::Arm64)]);
    given([node_joined(1)]).when(&join_arch(1, Arch::Arm64)).then([described(1, Arch::Arm64)]);
    let known = given([node_joined(1), described(1, Arch::Arm64)]);
    known.when(&join_arch(1, Arch::Arm64)).then([]);
    known.when(&join(1, "node-1")).then([]);
    known.when(&join_arch(1, Arch::Amd64)).then([described(1, Arch::Amd64)]);
}

#[test]
fn places_a_vm_on_a_node_of_its_architecture() {
    let one_is_arm64 = || cluster(vec![described(1, Arch::Arm64)]);
    // Node 2 has not told its architecture.
    one_is_arm64().when(&create_vm(1, None, None)).then(vm_created(1, None, 2));
    one_is_arm64().when(&create_vm(1, None, Some(2))).then(vm_created(1, None, 2));
    one_is_arm64().when(&create_vm(1, None, Some(1))).then_rejected(Rejection::NodeOfOtherArch {
        node: node_name("node-1"),
        node_arch: Arch::Arm64,
        arch: Arch::Amd64,
    });
    let both = || cluster(vec![described(1, Arch::Arm64), described(2, Arch::Arm64)]);
    both().when(&create_vm(1, Some(1), None)).then_rejected(Rejection::NoNodeOfArch(Arch::Amd64));
    let one_is_amd64 = cluster(vec![described(1, Arch::Amd64), described(2, Arch::Arm64), unreachable(1)]);
    one_is_amd64.when(&create_vm(1, None, None)).then_rejected(Rejection::NoNodeOfArch(Arch::Amd64));
    let none = cluster(vec![unreachable(1), unreachable(2)]);
    none.when(&create_vm(1, None, None)).then_rejected(Rejection::NoReadyNode);
}

#[test]
fn places_no_vm_on_a_cordoned_node() {
    cluster(vec![]).when(&cordon(1, true)).then([cordoned(1)]);
    let one = || cluster(vec![cordoned(1)]);
    one().when(&cordon(1, true)).then([]);
    one().when(&create_vm(1, None, None)).then(vm_created(1, None, 2));
    let refused = Rejection::NodeCordoned(node_name("node-1"));
    let error = ErrorBody::from(&refused).error;
    let text = "node `node-1` is cordoned: choose another, or run `otherix node uncordon node-1` first";
    assert_eq!((error.code, &*error.message), (ErrorCode::Conflict, text));
    one().when(&create_vm(1, None, Some(1))).then_rejected(refused);
    cluster(vec![cordoned(1), cordoned(2)]).when(&create_vm(1, None, None)).then_rejected(Rejection::NoReadyNode);
    // It is the least loaded again, and keeps the cordon while it is unreachable.
    let again = cluster(all([vec![cordoned(1)], vm_created(1, Some(1), 2)]));
    again.when(&create_vm(2, None, None)).then(vm_created(2, None, 2));
    again.when(&cordon(1, false)).then([uncordoned(1)]);
    cluster(all([vec![cordoned(1)], vm_created(1, Some(1), 2), vec![uncordoned(1)]]))
        .when(&create_vm(2, None, None))
        .then(vm_created(2, None, 1));
    let back = cluster(vec![cordoned(1), unreachable(1), reachable(1)]);
    back.when(&create_vm(1, None, None)).then(vm_created(1, None, 2));
    cluster(vec![]).when(&cordon(1, false)).then([]);
    cluster(vec![]).when(&cordon(9, true)).then_rejected(Rejection::NoSuchNode(node_id(9)));
}

#[test]
fn rejects_duplicate_vm_names() {
    let taken = Rejection::VmNameTaken { name: "VM-1".parse().unwrap(), other: vm_id(1) };
    let mut again = create_vm(2, None, None);
    if let Command::Vm(VmCommand::Create { vm, .. }) = &mut again {
        vm.name = "VM-1".parse().unwrap();
    }
    cluster(vm_created(1, None, 1)).when(&again).then_rejected(taken);
    let free = cluster(all([vm_created(1, None, 1), vm_deleted(1, None)]));
    assert_eq!(free.decision(&again).unwrap().events.len(), 1);
    // A network may have the name of a VM.
    cluster(vm_created(1, None, 1)).when(&create(2, "vm-1", managed("br1"))).then([created(2, "vm-1", managed("br1"))]);
}

#[test]
fn places_a_vm_on_the_least_loaded_node() {
    cluster(vm_created(1, Some(1), 1)).when(&create_vm(2, Some(1), None)).then(vm_created(2, Some(1), 2));
    let even = all([vm_created(1, Some(1), 1), vm_created(2, Some(1), 2), vm_created(3, None, 1)]);
    cluster(even).when(&create_vm(4, Some(1), None)).then(vm_created(4, Some(1), 2));
    let freed = all([vm_created(1, Some(1), 1), vm_deleted(1, Some(1))]);
    cluster(freed).when(&create_vm(2, Some(1), None)).then(vm_created(2, Some(1), 1));
}

#[test]
fn places_a_vm_on_a_reachable_node_unless_one_is_requested() {
    let one_unreachable = |more: Vec<Event>| cluster(all([vec![unreachable(1)], more]));
    one_unreachable(vec![]).when(&create_vm(1, Some(1), None)).then(vm_created(1, Some(1), 2));
    one_unreachable(vec![]).when(&create_vm(1, Some(1), Some(1))).then(vm_created(1, Some(1), 1));
    one_unreachable(vec![unreachable(2)]).when(&create_vm(1, Some(1), None)).then_rejected(Rejection::NoReadyNode);
    let failed = |node, at| reconciled(node, 1, 1, [outcome(1, at, Outcome::Failed("name conflict".to_owned()))]);
    cluster(vec![failed(1, 3)]).when(&create_vm(1, Some(1), None)).then(vm_created(1, Some(1), 2));
    cluster(vec![failed(1, 3)]).when(&create_vm(1, None, None)).then(vm_created(1, None, 1));
    cluster(vec![failed(1, 3), failed(2, 3)]).when(&create_vm(1, Some(1), None)).then_rejected(Rejection::NoReadyNode);
    given([]).when(&create_vm(1, None, None)).then_rejected(Rejection::NoReadyNode);
}

#[test]
fn assigns_each_mac_once() {
    let mut second = create_vm(2, Some(1), Some(1));
    if let Command::Vm(VmCommand::Create { nic, .. }) = &mut second {
        nic.mac = 1;
    }
    let mut events = vm_created(2, Some(1), 1);
    events[1] = attached(2, 1, 2);
    cluster(vm_created(1, Some(1), 1)).when(&second).then(events);
    // After the last address comes the first.
    let last = 0x00ff_ffff;
    let mut taken = vm_created(1, Some(1), 1);
    taken[1] = attached(1, 1, last);
    if let Command::Vm(VmCommand::Create { nic, .. }) = &mut second {
        nic.mac = last;
    }
    let mut events = vm_created(2, Some(1), 1);
    events[1] = attached(2, 1, 0);
    cluster(taken).when(&second).then(events);
}

#[test]
fn frees_a_mac_when_the_tap_is_removed() {
    let mut second = create_vm(2, Some(1), Some(2));
    if let Command::Vm(VmCommand::Create { nic, .. }) = &mut second {
        nic.mac = 1;
    }
    let mac_of = |given: &Given| {
        let events = given.decision(&second).unwrap().events;
        let Event::Nic(NicEvent::Attached(attached)) = &events[1] else { panic!("{events:?}") };
        attached.mac
    };
    let deleted_vm = all([vm_created(1, Some(1), 1), vm_deleted(1, Some(1))]);
    assert_eq!(mac_of(&cluster(deleted_vm.clone())), MacAddress::assigned(2), "a guest may still send from the first");
    // A report of another node does not count.
    let elsewhere = reconciled(2, 1, 1, [nic_outcome(1, 7, Outcome::Removed)]);
    assert_eq!(mac_of(&cluster(all([deleted_vm.clone(), vec![elsewhere]]))), MacAddress::assigned(2));
    let removed = reconciled(1, 1, 1, [nic_outcome(1, 7, Outcome::Removed)]);
    assert_eq!(mac_of(&cluster(all([deleted_vm, vec![removed]]))), MacAddress::assigned(1));
}

#[test]
fn keeps_a_tap_name_until_the_tap_is_removed() {
    let mut same_tap = create_vm(2, Some(1), Some(1));
    if let Command::Vm(VmCommand::Create { nic, .. }) = &mut same_tap {
        nic.nic_id = nic_id(1);
    }
    let deleted_vm = all([vm_created(1, Some(1), 1), vm_deleted(1, Some(1))]);
    cluster(deleted_vm.clone()).when(&same_tap).then_rejected(Rejection::TapTaken);
    let removed = reconciled(1, 1, 1, [nic_outcome(1, 7, Outcome::Removed)]);
    let free = cluster(all([deleted_vm, vec![removed]]));
    assert!(free.decision(&same_tap).is_ok());
}

#[test]
fn rejects_deletion_of_a_network_with_nics() {
    let refused = |vm_nics| Rejection::NetworkInUse { name: name("a"), vm_nics };
    let one = vm_created(1, Some(1), 1);
    cluster(one.clone()).when(&delete(1)).then_rejected(refused(1));
    cluster(all([one.clone(), vm_created(2, Some(1), 2), vm_created(3, None, 2)]))
        .when(&delete(1))
        .then_rejected(refused(2));
    cluster(all([one, vm_deleted(1, Some(1))])).when(&delete(1)).then([deleted(1, "a")]);
    let body = ErrorBody::from(&refused(2));
    assert_eq!(body.error.code, ErrorCode::Conflict);
    assert_eq!(body.error.message, "cannot delete network a: blocked by 2 vm_nics");
    assert_eq!(json!(body.error.details), json!({"vm_nics": 2}));
}

#[test]
fn deletes_a_vm_with_its_nic() {
    cluster(vm_created(1, Some(1), 1)).when(&delete_vm(1)).then(vm_deleted(1, Some(1)));
    cluster(vm_created(1, None, 1)).when(&delete_vm(1)).then(vm_deleted(1, None));
    cluster(vec![]).when(&delete_vm(1)).then_rejected(Rejection::NoSuchVm(vm_id(1)));
    let twice = all([vm_created(1, None, 1), vm_deleted(1, None)]);
    cluster(twice).when(&delete_vm(1)).then_rejected(Rejection::NoSuchVm(vm_id(1)));
}

#[test]
fn records_changed_statuses_of_a_nic() {
    // vm 4, attached 5, bound 6
    let attached = cluster(vm_created(1, Some(1), 1));
    let ready = || nic_outcome(1, 6, Outcome::Ready);
    attached.when(&report(1, 1, 1, [ready()])).then([reconciled(1, 1, 1, [ready()])]);
    let reported = cluster(all([vm_created(1, Some(1), 1), vec![reconciled(1, 1, 1, [ready()])]]));
    reported.when(&report(1, 1, 2, [ready()])).then([]);
    let mut warned = ready();
    warned.warnings = vec!["a foreign firewall".to_owned()];
    reported.when(&report(1, 1, 2, [warned.clone()])).then([reconciled(1, 1, 2, [warned])]);
    // An impossible outcome, an impossible generation, and an unknown NIC.
    for result in
        [nic_outcome(1, 6, Outcome::Removed), nic_outcome(1, 9, Outcome::Ready), nic_outcome(2, 6, Outcome::Ready)]
    {
        let decision = reported.decision(&report(1, 1, 2, [result.clone()])).unwrap();
        assert_eq!((decision.events, decision.unknown), (vec![], vec![result.resource]));
    }
    let elsewhere = reported.decision(&report(2, 1, 1, [ready()])).unwrap();
    assert_eq!(elsewhere.unknown, vec![ready().resource], "the NIC is on node 1");
}

#[test]
fn keeps_a_detached_nic_until_its_tap_is_removed() {
    let mut given = cluster(all([vm_created(1, Some(1), 1), vm_deleted(1, Some(1))]));
    let removed = || nic_outcome(1, 7, Outcome::Removed);
    given.when(&report(1, 1, 1, [removed()])).then([reconciled(1, 1, 1, [removed()])]);
    given.record(reconciled(1, 1, 1, [removed()]));
    assert!(given.state.nics().get(nic_id(1)).is_none());
    let again = given.decision(&report(1, 1, 2, [removed()])).unwrap();
    assert_eq!((again.events, again.unknown), (vec![], vec![removed().resource]));
}
