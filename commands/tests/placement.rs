//! Decisions about what nodes offer to machines, and on which node there is room for one: given / when / then.

#[path = "support/builders.rs"]
mod builders;
#[path = "support/decisions.rs"]
mod decisions;

use builders::*;
use decisions::{Given, given};
use otherix_commands::domain::Rejection;
use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::command::Command;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::event::Event;
use otherix_schemas::node::{NodeCapacity, NodeCapacityReported, Resources};
use otherix_schemas::vm::{VmCommand, VmCreated, VmEvent};
use serde_json::json;

/// Two nodes with room for these numbers of machines.
fn cluster(one: u64, two: u64) -> Given {
    given([node_joined(1), node_joined(2), capacity(1, one).into(), capacity(2, two).into()])
}

/// Creates a machine of one processor, 64 MiB and a disk of this size, on a node if it is given.
fn create(id: u128, node: Option<u128>, disk_gib: Option<u32>) -> Command {
    let mut command = create_machine(id, None, 1);
    if let Command::Vm(VmCommand::Create { vm, .. }) = &mut command {
        vm.node_id = node.map(node_id);
        vm.machine.iter_mut().for_each(|machine| machine.disk_gib = disk_gib);
    }
    command
}

/// Creates a machine, and returns the number of its node.
fn placed(given: &mut Given, command: &Command) -> Result<u128, Rejection> {
    let events = given.execute(command)?;
    let Some(Event::Vm(VmEvent::Created(VmCreated { node_id: placed, .. }))) = events.first() else {
        unreachable!("{events:?}")
    };
    Ok((1..9).find(|number| node_id(*number) == *placed).unwrap_or_default())
}

fn resources(vcpus: u64, memory_mb: u64, disk_gib: u64) -> Resources {
    Resources { vcpus, memory_mb, disk_gib }
}

#[test]
fn what_a_node_offers_is_recorded_when_it_changes() {
    let joined = given([node_joined(1)]);
    joined.when(&report_capacity(capacity(1, 2))).then([capacity(1, 2).into()]);
    let known = given([node_joined(1), capacity(1, 2).into()]);
    known.when(&report_capacity(capacity(1, 2))).then([]);
    known.when(&report_capacity(capacity(1, 3))).then([capacity(1, 3).into()]);
    known.when(&report_capacity(capacity(9, 3))).then_rejected(Rejection::NoSuchNode(node_id(9)));
}

#[test]
fn a_node_that_changes_what_it_offers_without_end_is_limited() {
    let mut given = given([node_joined(1)]);
    let first = given.envelopes[0].header.clone();
    // All at the time of the first event.
    let mut report = |machines| -> Result<(), Rejection> {
        for event in given.when(&report_capacity(capacity(1, machines))).result? {
            let (position, stream_version) =
                (given.state.position().next(), given.state.next_version(event.stream_id()));
            let header = Header { position, stream_version, ..first.clone() };
            given.state.evolve(&EventEnvelope { header, event });
        }
        Ok(())
    };
    // The first, and as many changes as statuses may be revoked in a row.
    assert_eq!((1..=61).find_map(|machines| report(machines).err()), None);
    let (node, retry_after_ms) = (node_id(1), 500);
    assert_eq!(report(62), Err(Rejection::TooManyChanges { node, retry_after_ms }));
    assert_eq!(report(61), Ok(()), "what is recorded is no change");
}

#[test]
fn machines_are_placed_where_there_is_room() {
    let mut cluster = cluster(1, 2);
    // The node with fewer VMs comes first, while it has room.
    assert_eq!(placed(&mut cluster, &create(1, None, None)), Ok(1));
    assert_eq!(placed(&mut cluster, &create(2, None, None)), Ok(2));
    assert_eq!(placed(&mut cluster, &create(3, None, None)), Ok(2));
    let rejection = Rejection::NoRoomAnywhere {
        nodes: 2,
        node: node_name("node-1"),
        needed: resources(1, 64, 0),
        free: resources(0, 0, 1),
    };
    cluster.when(&create(4, None, None)).then_rejected(rejection.clone());
    let error = ErrorBody::from(&rejection).error;
    assert_eq!(error.code, ErrorCode::Conflict);
    assert_eq!(error.details.get("free"), Some(&json!({"vcpus": 0, "memory_mb": 0, "disk_gib": 1})));
    assert!(
        error.message.contains("no node has room for 1 vCPU, 64 MiB of memory, 0 GiB of disk: "),
        "{}",
        error.message
    );
    // A VM without a machine takes nothing.
    cluster.when(&create_vm(4, None, Some(1))).then(vm_created(4, None, 1));
    // Room is that of the VMs that are there, whether they run or not.
    cluster.execute(&delete_vm(2)).unwrap();
    assert_eq!(placed(&mut cluster, &create(4, None, None)), Ok(2));
}

#[test]
fn a_node_that_was_asked_for_must_have_room() {
    let mut cluster = cluster(2, 2);
    assert_eq!(placed(&mut cluster, &create(1, Some(1), Some(2))), Ok(1));
    let node = node_name("node-1");
    let (needed, free) = (resources(1, 64, 1), resources(1, 64, 0));
    cluster.when(&create(2, Some(1), Some(1))).then_rejected(Rejection::NoRoom { node, needed, free });
    assert_eq!(placed(&mut cluster, &create(2, None, Some(1))), Ok(2));
    // A disk whose size only its image determines.
    assert_eq!(placed(&mut cluster, &create(3, Some(1), None)), Ok(1));
}

#[test]
fn a_node_that_has_not_told_what_it_offers_has_room() {
    let mut cluster = given([node_joined(1)]);
    for id in 1..20 {
        assert_eq!(placed(&mut cluster, &create(id, None, Some(100))), Ok(1));
    }
    // It offers less than its machines take: they stay, and there is room for no more.
    cluster.record(capacity(1, 2).into());
    let rejection = cluster.when(&create(21, None, None)).result.unwrap_err();
    assert!(matches!(&rejection, Rejection::NoRoom { free, .. } if *free == Resources::default()), "{rejection}");
}

#[test]
fn machines_are_not_placed_on_a_node_that_runs_none() {
    let none = |id| {
        let NodeCapacityReported { node_id, capacity } = capacity(id, 9);
        let (accelerator, reason) = (None, "there is no QEMU".to_owned());
        NodeCapacityReported { node_id, capacity: NodeCapacity { accelerator, reason, ..capacity } }
    };
    let mut one = given([node_joined(1), node_joined(2), none(1).into(), capacity(2, 1).into()]);
    assert_eq!(placed(&mut one, &create(1, None, None)), Ok(2));
    let refused = Rejection::NodeRunsNoMachines { node: node_name("node-1"), reason: "there is no QEMU".to_owned() };
    one.when(&create(2, Some(1), None)).then_rejected(refused.clone());
    one.when(&create_vm(2, None, Some(1))).then(vm_created(2, None, 1));
    let all = given([node_joined(1), none(1).into()]);
    all.when(&create(2, None, None)).then_rejected(refused.clone());
    assert_eq!(refused.to_string(), "node `node-1` cannot run VMs: there is no QEMU");
}
