//! The nodes in a network's view: whether each is reachable, has reported, and is awaited.

use otherix_projections::query::Page;
use otherix_projections::{network, node};
use otherix_schemas::command::Command;
use otherix_schemas::id::NetworkId;
use otherix_schemas::network::{NetworkCommand, NetworkView};
use otherix_schemas::node::{NodeCommand, NodeCondition, NodeConditionKind, NodeConditionsChanged};
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_testkit::tempdir;

use super::support::{ReadSide, WriteSide, id, join, presence, rebuilt_rows, remove};

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

#[tokio::test]
async fn conditions_of_a_node_are_shown_since_they_began_until_they_are_over() {
    use NodeConditionKind::{Contradiction, DuplicateAgent, SetBack};
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    for number in [1, 2] {
        write.execute(join(number)).await;
    }
    let record = async |node: u128, present: &[(NodeConditionKind, &str)]| {
        let condition =
            |(kind, detail): &(NodeConditionKind, &str)| NodeCondition { kind: *kind, detail: (*detail).to_owned() };
        let conditions = present.iter().map(condition).collect();
        let change = NodeConditionsChanged { node_id: id(node), conditions };
        write.execute(Command::Node(NodeCommand::RecordConditions(vec![change]))).await
    };
    let shown = async || {
        read.reach(write.head()).await;
        let (db, page) = (read.db(), Page { limit: 10, after: Position::ZERO });
        let listed = node::query::list(&db, page).unwrap().views;
        let one = node::query::by_id(&db, id(1)).unwrap().unwrap();
        assert_eq!((&listed[0].conditions, &listed[0].warnings), (&one.conditions, &one.warnings));
        assert!(listed[1].conditions.is_empty());
        assert_eq!(read.rows(), rebuilt_rows(&write).await);
        one
    };
    assert!(shown().await.warnings.is_empty());
    record(1, &[(SetBack, "an older copy")]).await;
    let first = shown().await.conditions;
    assert_eq!((first.len(), first[0].kind, first[0].detail.as_str()), (1, SetBack, "an older copy"));
    record(1, &[(DuplicateAgent, "two agents"), (SetBack, "other"), (Contradiction, "another history")]).await;
    let view = shown().await;
    let kinds: Vec<_> = view.conditions.iter().map(|condition| condition.kind).collect();
    assert_eq!(kinds, [Contradiction, DuplicateAgent, SetBack], "by the names of the kinds");
    assert_eq!(view.conditions[2], first[0]);
    assert!(view.conditions[0].since > first[0].since);
    let since = first[0].since;
    assert_eq!(view.warnings[2], format!("an older copy (since {since}): {}", SetBack.hint()));
    record(1, &[(DuplicateAgent, "two agents")]).await;
    assert_eq!(shown().await.conditions, view.conditions[1..2]);
    record(1, &[]).await;
    assert!(shown().await.conditions.is_empty());
    record(2, &[(SetBack, "an older copy")]).await;
    write.execute(remove(2)).await;
    read.reach(write.head()).await;
    assert_eq!(read.sql("SELECT count(*) FROM node_conditions"), "0\n");
}
