//! Read models after a node was removed: it is in no list and in no other resource's view, and resources whose deletion
//! awaited only that node are gone.

use otherix_projections::query::Page;
use otherix_projections::{network, node, vm};
use otherix_schemas::command::Command;
use otherix_schemas::id::{NetworkId, VmId};
use otherix_schemas::network::{NetworkCommand, NetworkView};
use otherix_schemas::node::{MeshPeerStatus, NodeCommand, NodeView};
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_schemas::vm::VmView;
use otherix_testkit::tempdir;
use otherix_testkit::wait::wait_for;
use uuid::Uuid;

use super::support::{
    DEADLINE, ReadSide, WriteSide, create_vm, delete_vm, id, join, join_mesh, presence, rebuilt_rows, remove,
};

async fn network(write: &WriteSide, read: &ReadSide, id: NetworkId) -> Option<NetworkView> {
    read.reach(write.head()).await;
    network::query::by_id(&read.db(), id).unwrap()
}

async fn node(write: &WriteSide, read: &ReadSide, number: u128) -> Option<NodeView> {
    read.reach(write.head()).await;
    node::query::by_id(&read.db(), id(number)).unwrap()
}

async fn vm(write: &WriteSide, read: &ReadSide, number: u128) -> Option<VmView> {
    read.reach(write.head()).await;
    vm::query::by_id(&read.db(), VmId::new(Uuid::from_u128(number))).unwrap()
}

/// The names of the nodes in a network's view: those that have reported, and the others.
fn nodes_in(view: &NetworkView) -> (Vec<String>, Vec<String>) {
    let reported = view.status.nodes.iter().flatten().map(|node| node.node_name.to_string());
    let unreported = view.status.unreported.iter().flatten().map(|node| node.node_name.to_string());
    (reported.collect(), unreported.collect())
}

#[tokio::test]
async fn a_removed_node_is_not_listed_and_its_name_is_free() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    for number in [1, 2, 3] {
        write.execute(join(number)).await;
    }
    write.execute(remove(2)).await;
    assert!(node(&write, &read, 2).await.is_none());
    let (db, name) = (read.db(), "NODE-2".parse().unwrap());
    assert!(node::query::by_name(&db, &name).unwrap().is_none());
    let names = async |after| {
        let page = node::query::list(&db, Page { limit: 1, after }).unwrap();
        (page.views[0].name.to_string(), page.next())
    };
    // The list continues although the last node of the previous page was removed.
    assert_eq!(names(Position::new(2)).await, ("node-3".to_owned(), None));

    let join = Command::Node(NodeCommand::Join {
        key: "node".parse().unwrap(),
        node_id: id(9),
        name: "node-2".parse().unwrap(),
        mesh: None,
        arch: None,
    });
    write.execute(join).await;
    assert_eq!(node(&write, &read, 9).await.unwrap().name.as_str(), "node-2");
    assert_eq!(node::query::by_name(&db, &name).unwrap().unwrap().id, id(9));
    assert_eq!(read.rows(), rebuilt_rows(&write).await);
}

#[tokio::test]
async fn a_networks_view_neither_contains_nor_awaits_a_removed_node() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    for number in [1, 2, 3] {
        write.execute(join(number)).await;
    }
    let created = write.create("a").await;
    write.report(2, created, write.head(), Outcome::Failed("broken".to_owned())).await;
    let before = network(&write, &read, created).await.unwrap();
    assert_eq!((before.status.expected, before.status.reported), (3, 1));
    write.execute(remove(2)).await;
    write.execute(remove(3)).await;
    let after = network(&write, &read, created).await.unwrap();
    assert_eq!((after.status.expected, after.status.reported, after.status.ready), (1, 0, 0));
    assert_eq!(nodes_in(&after), (vec![], vec!["node-1".to_owned()]));
    assert_eq!(read.sql("SELECT count(*) FROM awaited"), "1\n");
    write.execute(remove(1)).await;
    let without_nodes = network(&write, &read, created).await.unwrap();
    assert_eq!((without_nodes.status.expected, nodes_in(&without_nodes)), (0, (vec![], vec![])));
    assert_eq!(read.rows(), rebuilt_rows(&write).await);
}

#[tokio::test]
async fn deletions_that_awaited_only_a_removed_node_are_complete() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    for number in [1, 2] {
        write.execute(join(number)).await;
    }
    let (a, b) = (write.create("a").await, write.create("b").await);
    // The VM is placed on node 1, the first of two without load.
    write.execute(create_vm(1, "vm-1", Some(a))).await;
    write.execute(delete_vm(VmId::new(Uuid::from_u128(1)))).await;
    let deleted_a = write.execute(Command::Network(NetworkCommand::Delete { network_id: a })).await;
    write.report(2, a, deleted_a, Outcome::Removed).await;
    let deleted_b = write.execute(Command::Network(NetworkCommand::Delete { network_id: b })).await;
    write.execute(presence(&[1], &[])).await;
    assert!(vm(&write, &read, 1).await.unwrap().deleted_at.is_some());
    assert_eq!(network(&write, &read, a).await.unwrap().status.expected, 2);

    write.execute(remove(1)).await;
    assert!(vm(&write, &read, 1).await.is_none());
    assert!(network(&write, &read, a).await.is_none());
    assert_eq!(network(&write, &read, b).await.unwrap().status.expected, 1);
    assert_eq!(read.sql("SELECT count(*) FROM nics; SELECT count(*) FROM removals"), "0\n1\n");
    write.report(2, b, deleted_b, Outcome::Removed).await;
    assert!(network(&write, &read, b).await.is_none());
    assert_eq!(read.rows(), rebuilt_rows(&write).await);
}

#[tokio::test]
async fn a_removed_node_is_no_longer_a_peer() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    for number in [1, 2, 3] {
        write.execute(join_mesh(number, u8::try_from(number).unwrap(), 51820)).await;
    }
    let status = |number| MeshPeerStatus { node_id: id(number), last_handshake_at: None, rx_bytes: 7, tx_bytes: 9 };
    let telemetry = read.models.telemetry();
    telemetry.record(id(1), vec![status(2), status(3)], None);
    telemetry.record(id(2), vec![status(1)], None);
    let view = node(&write, &read, 2).await.unwrap();
    write.execute(remove(2)).await;

    let mut one = node(&write, &read, 1).await.unwrap();
    telemetry.fill_in(&mut one, None);
    let reported: Vec<_> = one.mesh.unwrap().peers.unwrap().iter().map(|peer| (peer.node_id, peer.rx_bytes)).collect();
    assert_eq!(reported, [(id(3), 7)]);
    // Its own report is dropped as well.
    wait_for(DEADLINE, "its report to be dropped", async || {
        let mut shown = view.clone();
        telemetry.fill_in(&mut shown, None);
        shown == view
    })
    .await;
    assert_eq!(read.rows(), rebuilt_rows(&write).await);
}
