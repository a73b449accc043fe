//! The assignment of mesh addresses and keys: given / when / then.

#[path = "support/builders.rs"]
mod builders;
#[path = "support/decisions.rs"]
mod decisions;

use builders::*;
use decisions::{IDENTITY, given};
use otherix_commands::config::ClusterConfig;
use otherix_commands::domain::Rejection;
use otherix_schemas::cluster::{ClusterEvent, ClusterRestored};
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::event::Event;
use otherix_schemas::node::JoinRequest;
use otherix_schemas::position::Position;
use serde_json::json;

fn config(supernet: &str) -> ClusterConfig {
    ClusterConfig { mesh: subnet(supernet), ..ClusterConfig::default() }
}

/// A new epoch that skips addresses.
fn restored(highest: Option<[u8; 4]>, left_out: u64) -> Event {
    Event::Cluster(ClusterEvent::Restored(ClusterRestored {
        cluster_id: IDENTITY.cluster,
        kept: Position::ZERO,
        highest_position: Position::ZERO,
        highest_vni: None,
        highest_mesh_address: highest.map(Into::into),
        mesh_addresses_left_out: left_out,
    }))
}

#[test]
fn assigns_an_address_at_the_join() {
    given([]).when(&join_mesh(1, 1, 51820)).then([node_joined(1), changed(1, [10, 42, 0, 1], 1, 51820)]);
    let one = [node_joined(1), changed(1, [10, 42, 0, 1], 1, 51820)];
    given(one.clone()).when(&join_mesh(2, 2, 51820)).then([node_joined(2), changed(2, [10, 42, 0, 2], 2, 51820)]);
    given(one).when(&join(2, "node-2")).then([node_joined(2)]);
}

#[test]
fn assigns_an_address_at_a_later_offer() {
    given([node_joined(1)]).when(&join_mesh(1, 1, 51820)).then([changed(1, [10, 42, 0, 1], 1, 51820)]);
    given([node_joined(1), unreachable(1)])
        .when(&join_mesh(1, 1, 51820))
        .then([reachable(1), changed(1, [10, 42, 0, 1], 1, 51820)]);
}

#[test]
fn a_changed_offer_keeps_the_address() {
    let at = |number, port| changed(1, [10, 42, 0, 1], number, port);
    let mut one = given([node_joined(1), at(1, 51820)]);
    one.when(&join_mesh(1, 1, 51820)).then([]);
    one.when(&join(1, "node-1")).then([]);
    one.when(&join_mesh(1, 1, 51821)).then([at(1, 51821)]);
    one.when(&join_mesh(1, 2, 51820)).then([at(2, 51820)]);
    one.execute(&join_mesh(1, 2, 51820)).unwrap();
    one.when(&join_mesh(1, 2, 51820)).then([]);
    // A node may return to a key that it had before.
    one.when(&join_mesh(1, 1, 51820)).then([at(1, 51820)]);
    one.when(&join_mesh(2, 7, 51820)).then([node_joined(2), changed(2, [10, 42, 0, 2], 7, 51820)]);
}

#[test]
fn rejects_a_key_that_another_node_has_or_had() {
    let mut one = given([node_joined(1), changed(1, [10, 42, 0, 1], 1, 51820)]);
    one.record(changed(1, [10, 42, 0, 1], 2, 51820));
    for number in [1, 2] {
        let taken = Rejection::MeshKeyTaken("node-1".to_owned());
        one.when(&join_mesh(2, number, 51820)).then_rejected(taken.clone());
        let refusal = ErrorBody::from(&taken).error;
        assert_eq!((refusal.code, refusal.message.contains("`node-1`")), (ErrorCode::Conflict, true));
    }
    // The name is checked before the key.
    let named = Rejection::NodeHasName { node: node_id(1), name: node_name("node-1") };
    one.when(&join(1, "node-9")).then_rejected(named);
    // The same for a node that has joined before.
    one.record(node_joined(2));
    one.when(&join_mesh(2, 1, 51820)).then_rejected(Rejection::MeshKeyTaken("node-1".to_owned()));
}

#[test]
fn assigns_each_mesh_address_once() {
    let config = config("192.0.2.0/30");
    let mut cluster = given([]).configured(config);
    for (id, last) in [(1, 1), (2, 2)] {
        let number = u8::try_from(id).unwrap();
        let events = cluster.execute(&join_mesh(id, number, 51820)).unwrap();
        assert_eq!(events.last(), Some(&changed(id, [192, 0, 2, last], number, 51820)));
    }
    let used_up = Rejection::MeshUsedUp(config.mesh);
    cluster.when(&join_mesh(3, 3, 51820)).then_rejected(used_up.clone());
    let refusal = ErrorBody::from(&used_up).error;
    assert_eq!(refusal.code, ErrorCode::Conflict);
    assert!(refusal.message.contains("`192.0.2.0/30` is used up"), "{}", refusal.message);
    // A node that has an address may still change its key, and a node without a mesh offer may join.
    cluster.when(&join_mesh(2, 9, 51820)).then([changed(2, [192, 0, 2, 2], 9, 51820)]);
    cluster.when(&join(3, "node-3")).then([node_joined(3)]);
    let higher = cluster.configured(self::config("198.51.100.0/24"));
    higher.when(&join_mesh(3, 3, 51820)).then([node_joined(3), changed(3, [198, 51, 100, 1], 3, 51820)]);
}

#[test]
fn skips_addresses_that_a_given_up_epoch_may_have_assigned() {
    let one = || [node_joined(1), changed(1, [10, 42, 0, 1], 1, 51820)];
    let next = |events: Vec<Event>, address| {
        given(events).when(&join_mesh(2, 2, 51820)).then([node_joined(2), changed(2, address, 2, 51820)]);
    };
    next(vec![restored(None, 1000)], [10, 42, 3, 233]);
    next(one().into_iter().chain([restored(Some([10, 42, 0, 9]), 0)]).collect(), [10, 42, 0, 10]);
    next(one().into_iter().chain([restored(Some([10, 42, 0, 9]), 5)]).collect(), [10, 42, 0, 15]);
    // A second restored epoch may have assigned as many again.
    let twice = [restored(None, 5), restored(None, 5)];
    next(one().into_iter().chain(twice.clone()).collect(), [10, 42, 0, 12]);
    // They are skipped once only: an address assigned afterwards is known.
    let three = [node_joined(3), changed(3, [10, 42, 0, 12], 3, 51820)];
    next(one().into_iter().chain(twice).chain(three).collect(), [10, 42, 0, 13]);
    given([restored(None, 65_534)])
        .when(&join_mesh(2, 2, 51820))
        .then_rejected(Rejection::MeshUsedUp(ClusterConfig::default().mesh));
}

#[test]
fn a_node_joins_without_a_mesh_offer() {
    let body = json!({"node_id": node_id(1), "name": "node-1"});
    let join: JoinRequest = serde_json::from_value(body.clone()).unwrap();
    assert_eq!(join.mesh, None);
    assert_eq!(serde_json::to_value(&join).unwrap(), body);
}
