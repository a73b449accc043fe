//! Following the event store: from the beginning and from a checkpoint; the views of deleted networks; which files are
//! refused.

use std::path::Path;

use futures::future::join_all;
use otherix_projections::network::query::NetworkPage;
use otherix_projections::query::Page;
use otherix_projections::read_models::{self, OpenError};
use otherix_projections::{READ_MODELS, network};
use otherix_runtime::SystemRuntime;
use otherix_schemas::command::Command;
use otherix_schemas::id::ClusterId;
use otherix_schemas::network::NetworkCommand;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_testkit::tempdir;
use uuid::Uuid;

use super::support::{ReadSide, WriteSide, join, rebuilt_rows, sqlite3};

#[tokio::test]
async fn a_query_that_waits_for_a_position_sees_the_network_created_at_it() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    let db = read.db();
    join_all((0..2_000).map(async |number| {
        let id = write.create(&format!("net-{number}")).await;
        read.reach(write.head()).await;
        assert_eq!(network::query::by_id(&db, id).unwrap().unwrap().name.as_str(), format!("net-{number}"));
    }))
    .await;
    assert_eq!(read.error(), None);
    assert_eq!(read.rows(), rebuilt_rows(&write).await);
}

#[tokio::test]
async fn continues_from_its_checkpoint_after_a_stop_at_any_position() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    write.execute(join(1)).await;
    for round in 0..8 {
        let read = ReadSide::start(&write, folder.path()).await;
        let before = read.models.applied();
        join_all((0..50).map(|number| {
            let name = format!("net-{round}-{number}");
            let write = &write;
            async move { write.create(&name).await }
        }))
        .await;
        // It is stopped before it has applied all events.
        read.reach(before.next()).await;
        assert!(read.models.applied() >= before);
        read.stop().await;
    }
    let read = ReadSide::start(&write, folder.path()).await;
    read.reach(write.head()).await;
    assert_eq!(write.head().get(), 401);
    assert_eq!(read.rows(), rebuilt_rows(&write).await);
}

#[tokio::test]
async fn a_deleted_network_is_found_until_every_node_has_confirmed_its_removal() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    let db = read.db();
    for node in [1, 2] {
        write.execute(join(node)).await;
    }
    let id = write.create("a").await;
    write.report(1, id, write.head(), Outcome::Ready).await;
    let deleted = write.execute(Command::Network(NetworkCommand::Delete { network_id: id })).await;
    read.reach(write.head()).await;
    let (name, all) = ("a".parse().unwrap(), Page { limit: 9, after: Position::ZERO });
    let listed = || -> Vec<_> {
        let networks = network::query::list(&db, NetworkPage { kind: None, page: all }).unwrap().views;
        networks.into_iter().map(|view| (view.id, view.deleted_at.is_some())).collect()
    };
    assert!(network::query::by_name(&db, &name).unwrap().unwrap().deleted_at.is_some());
    assert_eq!(listed(), [(id, true)]);
    // The name is free at once.
    let second = write.create("A").await;
    write.execute(join(3)).await;
    read.reach(write.head()).await;
    assert_eq!(network::query::by_name(&db, &name).unwrap().unwrap().id, second);
    assert_eq!(listed(), [(id, true), (second, false)]);
    for node in [2, 1] {
        read.reach(write.head()).await;
        let view = network::query::by_id(&db, id).unwrap().unwrap();
        assert!(view.deleted_at.is_some());
        assert_eq!(view.generation, deleted);
        write.report(node, id, deleted, Outcome::Removed).await;
    }
    read.reach(write.head()).await;
    assert!(network::query::by_id(&db, id).unwrap().is_none(), "the third node never had it");
    assert_eq!(listed(), [(second, false)]);
    assert_eq!(read.sql("SELECT count(*) FROM outcomes; SELECT count(*) FROM removals"), "0\n0\n");
}

#[tokio::test]
async fn read_models_of_another_cluster_or_ahead_of_the_journal_are_refused() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    write.create("a").await;
    let read = ReadSide::start(&write, folder.path()).await;
    read.reach(write.head()).await;
    read.stop().await;
    let path = folder.path().join("read-models.db");
    let other =
        read_models::open(&path, ClusterId::new(Uuid::nil()), write.head(), SystemRuntime::shared()).err().unwrap();
    assert!(matches!(other, OpenError::OtherCluster(_)), "{other}");
    let ahead = read_models::open(&path, write.cluster(), Position::ZERO, SystemRuntime::shared()).err().unwrap();
    assert!(matches!(ahead, OpenError::Ahead { .. }), "{ahead}");
}

#[tokio::test]
async fn tables_are_those_of_the_schema_files() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    let schemas = READ_MODELS.iter().map(|projection| projection.schema());
    let schemas = std::iter::once(include_str!("../../src/checkpoints.sql")).chain(schemas);
    let expected = sqlite3(Path::new(":memory:"), &format!("{}\n.schema", schemas.collect::<String>()));
    let sorted = |schema: &str| {
        let mut statements: Vec<_> = schema.split(';').map(|statement| statement.trim().to_owned()).collect();
        statements.sort();
        statements
    };
    assert_eq!(sorted(&read.sql(".schema")), sorted(&expected));
}
