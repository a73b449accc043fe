//! The nodes in a network's view: whether each is reachable, has reported, and is awaited.

use otherix_projections::network;
use otherix_schemas::command::Command;
use otherix_schemas::id::NetworkId;
use otherix_schemas::network::{NetworkCommand, NetworkView};
use otherix_schemas::outcome::Outcome;
use otherix_testkit::tempdir;

use super::support::{ReadSide, WriteSide, join, presence, rebuilt_rows};

/// A node in a view: number, whether it has reported, is reachable, is awaited.
type NodeInView = (u128, bool, bool, bool);

fn nodes(view: &NetworkView) -> Vec<NodeInView> {
    let number = |id: otherix_schemas::id::NodeId| id.uuid().as_u128();
    let reported = view.status.nodes.iter().flatten();
    let unreported = view.status.unreported.iter().flatten();
    let mut all: Vec<NodeInView> = reported
        .map(|node| (number(node.node_id), true, node.reachable, node.awaited))
        .chain(unreported.map(|node| (number(node.node_id), false, node.reachable, node.awaited)))
        .collect();
    all.sort_unstable();
    all
}

async fn view(write: &WriteSide, read: &ReadSide, id: NetworkId) -> Option<NetworkView> {
    read.reach(write.head()).await;
    network::query::by_id(&read.db(), id).unwrap()
}

#[tokio::test]
async fn a_new_network_awaits_the_nodes_that_were_reachable_at_its_creation() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    for node in [1, 2] {
        write.execute(join(node)).await;
    }
    let unreachable_at = write.execute(presence(&[2], &[])).await;
    let id = write.create("a").await;
    let generation = write.head();
    write.execute(join(3)).await;
    let seen = view(&write, &read, id).await.unwrap();
    assert_eq!(nodes(&seen), [(1, false, true, true), (2, false, false, false), (3, false, true, false)]);
    assert_eq!((seen.status.expected, seen.status.reported), (3, 0));
    assert_eq!(
        read.sql("SELECT name, reachable_position FROM nodes WHERE NOT reachable"),
        format!("node-2|{unreachable_at}\n")
    );

    // Later changes of presence do not change which nodes are awaited.
    write.execute(presence(&[1], &[2])).await;
    write.report(1, id, generation, Outcome::Ready).await;
    write.execute(presence(&[1], &[])).await;
    write.report(2, id, generation, Outcome::Ready).await;
    let seen = view(&write, &read, id).await.unwrap();
    assert_eq!(nodes(&seen), [(1, true, false, true), (2, true, true, false), (3, false, true, false)]);
    assert_eq!((seen.status.expected, seen.status.reported, seen.status.ready), (3, 2, 2));
    let awaited = "SELECT substr(node_id, -1) FROM awaited WHERE network_id";
    assert_eq!(read.sql(&format!("{awaited} = '{id}'")), "1\n");
    assert_eq!(read.rows(), rebuilt_rows(&write).await);
}

#[tokio::test]
async fn a_deleted_network_awaits_every_node_that_was_a_member() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    for node in [1, 2] {
        write.execute(join(node)).await;
    }
    let id = write.create("a").await;
    write.report(1, id, write.head(), Outcome::Ready).await;
    write.execute(presence(&[2], &[])).await;
    let deleted = write.execute(Command::Network(NetworkCommand::Delete { network_id: id })).await;
    write.execute(join(3)).await;
    let seen = view(&write, &read, id).await.unwrap();
    // Including the unreachable node, which may still have the bridge. Node 3 never had it.
    assert_eq!(nodes(&seen), [(1, true, true, true), (2, false, false, true)]);
    assert_eq!(seen.status.expected, 2);
    write.report(1, id, deleted, Outcome::Removed).await;
    let seen = view(&write, &read, id).await.unwrap();
    assert_eq!(nodes(&seen), [(1, true, true, false), (2, false, false, true)]);
    assert_eq!(seen.status.expected, 2);
    write.report(2, id, deleted, Outcome::Removed).await;
    assert!(view(&write, &read, id).await.is_none());
    assert_eq!(read.sql("SELECT count(*) FROM awaited; SELECT count(*) FROM removals"), "0\n0\n");
    // A report makes its node reachable.
    assert_eq!(read.sql("SELECT count(*) FROM nodes WHERE NOT reachable"), "0\n");
    assert_eq!(read.rows(), rebuilt_rows(&write).await);
}
