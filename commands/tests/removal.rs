//! The removal of a node, and what remains of it in the state: given / when / then.

#[path = "support/builders.rs"]
mod builders;
#[path = "support/decisions.rs"]
mod decisions;

use builders::*;
use decisions::{Given, IDENTITY, given};
use otherix_commands::domain::{Rejection, answer};
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::command::Command;
use otherix_schemas::error::{ErrorBody, ErrorCode, REMOVED_NODE};
use otherix_schemas::event::Event;
use otherix_schemas::node::NodeCommand;
use otherix_schemas::outcome::Outcome;
use serde_json::json;

/// Nodes 1 and 2, of which 1 was removed.
fn without_one(more: impl IntoIterator<Item = Event>) -> Given {
    given([node_joined(1), node_joined(2), node_removed(1)].into_iter().chain(more))
}

fn removed(id: u128) -> Rejection {
    Rejection::NodeRemoved { node: node_id(id), name: node_name(&format!("node-{id}")) }
}

#[test]
fn removes_reachable_and_unreachable_nodes() {
    given([node_joined(1)]).when(&remove(1)).then([node_removed(1)]);
    given([node_joined(1), unreachable(1)]).when(&remove(1)).then([node_removed(1)]);
    given([node_joined(1)]).when(&remove(7)).then_rejected(Rejection::NoSuchNode(node_id(7)));
    without_one([]).when(&remove(1)).then_rejected(Rejection::NoSuchNode(node_id(1)));
    assert_eq!(ErrorBody::from(&Rejection::NoSuchNode(node_id(1))).error.code, ErrorCode::NotFound);
}

#[test]
fn rejects_removal_of_a_node_with_vms() {
    let on_one = |id, network| vm_created(id, network, 1);
    let begin = [node_joined(1), node_joined(2), created(1, "a", managed("br0"))];
    let mut given = given(begin.into_iter().chain(on_one(1, Some(1))).chain(on_one(2, None)));
    let in_use = Rejection::NodeInUse { name: node_name("node-1"), vms: 2 };
    given.when(&remove(1)).then_rejected(in_use.clone());
    given.when(&remove(2)).then([node_removed(2)]);
    let refusal = ErrorBody::from(&in_use).error;
    assert_eq!((refusal.code, &refusal.details["vms"]), (ErrorCode::Conflict, &json!(2)));
    assert_eq!(refusal.message, "cannot delete node node-1: blocked by 2 vms");
    given.execute(&delete_vm(2)).unwrap();
    given.when(&remove(1)).then_rejected(Rejection::NodeInUse { name: node_name("node-1"), vms: 1 });
    given.execute(&delete_vm(1)).unwrap();
    // Its tap may still exist.
    assert!(given.state.nics().get(nic_id(1)).is_some());
    given.when(&remove(1)).then([node_removed(1)]);
}

#[test]
fn the_answer_names_the_removed_node_and_the_time() {
    let mut given = given([node_joined(1)]);
    let before = given.state.clone();
    let decision = given.decision(&remove(1)).unwrap();
    given.execute(&remove(1)).unwrap();
    let envelope: Vec<EventEnvelope> = given.envelopes.last().cloned().into_iter().collect();
    let answer = answer(&before, IDENTITY, &remove(1), decision.unknown, &envelope);
    let at = envelope[0].header.time;
    let position = envelope[0].header.position;
    let data = json!({"id": node_id(1), "name": "node-1", "deleted_at": at});
    let expected = json!({"data": data, "meta": {"position": position}});
    assert_eq!(serde_json::to_value(&answer).unwrap(), expected);
}

#[test]
fn removal_frees_the_name_but_not_the_id() {
    let mut given = without_one([]);
    given.when(&join(1, "node-1")).then_rejected(removed(1));
    given.when(&join(1, "node-9")).then_rejected(removed(1));
    given.when(&join_mesh(1, 1, 51820)).then_rejected(removed(1));
    let join = Command::Node(NodeCommand::Join {
        key: "node".parse().unwrap(),
        node_id: node_id(3),
        name: node_name("NODE-1"),
        mesh: None,
        arch: None,
    });
    assert_eq!(given.execute(&join).unwrap().len(), 1);
    given.when(&self::join(4, "node-1")).then_rejected(Rejection::NodeNameTaken(node_name("node-1")));
    let refusal = ErrorBody::from(&removed(1)).error;
    assert_eq!((refusal.code, &refusal.details[REMOVED_NODE]), (ErrorCode::Conflict, &json!(node_id(1))));
    let text = "was removed from the cluster for good: a machine comes back as a new node, with an empty state folder";
    assert!(refusal.message.ends_with(text) && refusal.message.contains("`node-1`"), "{}", refusal.message);
}

#[test]
fn never_reuses_a_removed_nodes_address_or_keys() {
    let one = || [node_joined(1), changed(1, [10, 42, 0, 1], 1, 51820), changed(1, [10, 42, 0, 1], 2, 51820)];
    let after_removal = given(one().into_iter().chain([node_removed(1)]));
    after_removal.when(&join_mesh(2, 3, 51820)).then([node_joined(2), changed(2, [10, 42, 0, 2], 3, 51820)]);
    for number in [1, 2] {
        let taken = Rejection::MeshKeyTaken("node-1".to_owned());
        after_removal.when(&join_mesh(2, number, 51820)).then_rejected(taken);
    }
}

#[test]
fn rejects_reports_of_a_removed_node() {
    let after_removal = without_one([created(1, "a", managed("br0"))]);
    after_removal.when(&report(1, 1, 1, [outcome(1, 4, Outcome::Ready)])).then_rejected(removed(1));
    after_removal.when(&report(1, 1, 1, [])).then_rejected(removed(1));
}

#[test]
fn ignores_the_presence_of_removed_nodes() {
    let after_removal = without_one([]);
    after_removal.when(&presence(&[1], &[])).then([]);
    after_removal.when(&presence(&[], &[1])).then([]);
    after_removal.when(&presence(&[1, 2], &[])).then([unreachable(2)]);
    after_removal.when(&presence(&[1, 7], &[])).then_rejected(Rejection::NoSuchNode(node_id(7)));
    let was_unreachable = given([node_joined(1), unreachable(1), node_removed(1)]);
    was_unreachable.when(&presence(&[], &[1])).then([]);
}

#[test]
fn places_no_vm_on_a_removed_node() {
    let after_removal = without_one([created(1, "a", managed("br0"))]);
    after_removal.when(&create_vm(1, Some(1), None)).then(vm_created(1, Some(1), 2));
    after_removal.when(&create_vm(1, Some(1), Some(1))).then_rejected(Rejection::NoSuchNode(node_id(1)));
    given([node_joined(1), node_removed(1)]).when(&create_vm(1, None, None)).then_rejected(Rejection::NoReadyNode);
}

#[test]
fn a_deleted_network_does_not_await_a_removed_node() {
    let deleted = || given([node_joined(1), node_joined(2), created(1, "a", managed("br0")), deleted(1, "a")]);
    let is_known = |given: &Given| given.state.network(network_id(1)).is_some();
    // Only node 1 is still awaited.
    let mut last = deleted();
    last.record(reconciled(2, 1, 1, [outcome(1, 4, Outcome::Removed)]));
    assert!(is_known(&last));
    last.execute(&remove(1)).unwrap();
    assert!(!is_known(&last));
    // Node 2 is still awaited.
    let mut first = deleted();
    first.execute(&remove(1)).unwrap();
    assert!(is_known(&first));
    first.record(reconciled(2, 1, 1, [outcome(1, 4, Outcome::Removed)]));
    assert!(!is_known(&first));
    // A later deletion does not await node 1.
    let mut later = without_one([created(2, "b", managed("br1"))]);
    later.execute(&delete(2)).unwrap();
    later.record(reconciled(2, 1, 1, [outcome(2, 5, Outcome::Removed)]));
    assert!(later.state.network(network_id(2)).is_none());
}

#[test]
fn a_detached_nic_does_not_await_a_removed_node() {
    let begin = [node_joined(1), node_joined(2), created(1, "a", managed("br0"))];
    let vm = vm_created(1, Some(1), 1).into_iter().chain(vm_deleted(1, Some(1)));
    let mut given = given(begin.into_iter().chain(vm));
    assert!(given.state.nics().get(nic_id(1)).is_some(), "node-1 has not reported the removal of its tap");
    given.execute(&remove(1)).unwrap();
    assert!(given.state.nics().get(nic_id(1)).is_none());
    // Its MAC address and tap name are free.
    assert_eq!(given.execute(&create_vm(1, Some(1), None)).unwrap(), vm_created(1, Some(1), 2));
}

#[test]
fn drops_the_statuses_of_a_removed_node() {
    let reported = [created(1, "a", managed("br0")), reconciled(1, 1, 1, [outcome(1, 3, Outcome::Ready)])];
    let mut given = given([node_joined(1), node_joined(2)].into_iter().chain(reported));
    given.execute(&remove(1)).unwrap();
    let network = given.state.network(network_id(1)).unwrap();
    assert!(network.outcomes.is_empty());
    assert_eq!(given.state.nodes().len(), 1);
}
