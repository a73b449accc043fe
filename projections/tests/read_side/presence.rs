//! Promises about nodes: a network's view says of each whether it is heard of, whether it has reported, and whether
//! somebody who waits for the network waits for it.

use otherix_projections::network;
use otherix_schemas::command::Command;
use otherix_schemas::id::NetworkId;
use otherix_schemas::network::{NetworkCommand, NetworkView};
use otherix_schemas::outcome::Outcome;
use otherix_testkit::tempdir;

use super::support::{ReadSide, WriteSide, fresh_rows, join, presence};

/// A node in a view: number, whether it has reported, is reachable, is awaited.
type Seen = (u128, bool, bool, bool);

fn nodes(view: &NetworkView) -> Vec<Seen> {
    let number = |id: otherix_schemas::id::NodeId| id.uuid().as_u128();
    let reported = view.status.nodes.iter().flatten();
    let silent = view.status.unreported.iter().flatten();
    let mut all: Vec<Seen> = reported
        .map(|node| (number(node.node_id), true, node.reachable, node.awaited))
        .chain(silent.map(|node| (number(node.node_id), false, node.reachable, node.awaited)))
        .collect();
    all.sort_unstable();
    all
}

async fn view(write: &WriteSide, read: &ReadSide, id: NetworkId) -> Option<NetworkView> {
    read.reach(write.head()).await;
    network::query::by_id(&read.db(), id).unwrap()
}

#[tokio::test]
async fn those_are_waited_for_who_were_reachable_when_it_was_created() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    for node in [1, 2] {
        write.ask(join(node)).await;
    }
    let gone = write.ask(presence(&[2], &[])).await;
    let id = write.create("a").await;
    let generation = write.head();
    write.ask(join(3)).await;
    let seen = view(&write, &read, id).await.unwrap();
    assert_eq!(nodes(&seen), [(1, false, true, true), (2, false, false, false), (3, false, true, false)]);
    assert_eq!((seen.status.expected, seen.status.reported), (3, 0));
    assert_eq!(read.sql("SELECT name, reachable_position FROM nodes WHERE NOT reachable"), format!("node-2|{gone}\n"));

    // What comes later does not change whom one waits for.
    write.ask(presence(&[1], &[2])).await;
    write.report(1, id, generation, Outcome::Ready).await;
    write.ask(presence(&[1], &[])).await;
    write.report(2, id, generation, Outcome::Ready).await;
    let seen = view(&write, &read, id).await.unwrap();
    assert_eq!(nodes(&seen), [(1, true, false, true), (2, true, true, false), (3, false, true, false)]);
    assert_eq!((seen.status.expected, seen.status.reported, seen.status.ready), (3, 2, 2));
    let awaited = "SELECT substr(node_id, -1) FROM awaited WHERE network_id";
    assert_eq!(read.sql(&format!("{awaited} = '{id}'")), "1\n");
    assert_eq!(read.rows(), fresh_rows(&write).await);
}

#[tokio::test]
async fn a_removal_is_waited_for_from_every_node_that_was_there() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    for node in [1, 2] {
        write.ask(join(node)).await;
    }
    let id = write.create("a").await;
    write.report(1, id, write.head(), Outcome::Ready).await;
    write.ask(presence(&[2], &[])).await;
    let deleted = write.ask(Command::Network(NetworkCommand::Delete { network_id: id })).await;
    write.ask(join(3)).await;
    let seen = view(&write, &read, id).await.unwrap();
    // The unreachable node too: it may have the bridge still. The third never had it.
    assert_eq!(nodes(&seen), [(1, true, true, true), (2, false, false, true)]);
    assert_eq!(seen.status.expected, 2);
    write.report(1, id, deleted, Outcome::Removed).await;
    let seen = view(&write, &read, id).await.unwrap();
    assert_eq!(nodes(&seen), [(1, true, true, false), (2, false, false, true)]);
    assert_eq!(seen.status.expected, 2);
    write.report(2, id, deleted, Outcome::Removed).await;
    assert!(view(&write, &read, id).await.is_none());
    assert_eq!(read.sql("SELECT count(*) FROM awaited; SELECT count(*) FROM removals"), "0\n0\n");
    // The report was a sign of life.
    assert_eq!(read.sql("SELECT count(*) FROM nodes WHERE NOT reachable"), "0\n");
    assert_eq!(read.rows(), fresh_rows(&write).await);
}
