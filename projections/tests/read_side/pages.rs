//! Lists are in the order of creation, and paging is stable while networks are created and deleted.

use otherix_commands::store::EventStore;
use otherix_projections::network;
use otherix_projections::network::query::NetworkPage;
use otherix_projections::query::Page;
use otherix_schemas::command::Command;
use otherix_schemas::network::{NetworkCommand, NetworkKind};
use otherix_schemas::position::Position;
use otherix_testkit::tempdir;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::support::{ReadSide, WriteSide};

#[tokio::test]
async fn pages_neither_skip_nor_repeat_networks_during_changes() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    let db = read.db();
    let mut first = Vec::new();
    for number in 0..60 {
        first.push(write.create(&format!("net-{number}")).await);
    }
    let (mut seen, mut deleted, mut after, mut pages) = (Vec::new(), Vec::new(), Position::ZERO, 0);
    loop {
        read.reach(write.head()).await;
        let page = network::query::list(&db, NetworkPage { kind: None, page: Page { limit: 7, after } }).unwrap();
        assert!(page.views.len() <= 7 && page.views.iter().all(|view| view.status.nodes.is_none()));
        seen.extend(page.views.iter().map(|view| view.id));
        pages += 1;
        // Delete one that was listed and one that was not, and create a new one.
        let to_delete = [
            seen.get(pages).copied(),
            first.iter().rev().find(|id| !seen.contains(id) && !deleted.contains(*id)).copied(),
        ];
        for network_id in to_delete.into_iter().flatten() {
            deleted.push(network_id);
            write.execute(Command::Network(NetworkCommand::Delete { network_id })).await;
        }
        if pages < 5 {
            write.create(&format!("late-{pages}")).await;
        }
        match page.next() {
            Some(next) => after = next,
            None => break,
        }
    }
    let mut sorted = seen.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), seen.len(), "one is listed twice");
    assert!(first.iter().filter(|id| !deleted.contains(id)).all(|id| seen.contains(id)), "one is missing");
    assert!(pages > 5);
}

/// A change between two pages: a network is created, or that with this index is deleted.
type Change = Option<usize>;

/// Reads all pages of `limit` networks while networks are created and deleted, starting with `count`. Every network
/// that existed throughout must be listed once, and only existing ones.
async fn assert_stable_pages(limit: u32, count: usize, changes: Vec<Vec<Change>>) {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    let db = read.db();
    let mut existing = Vec::new();
    for number in 0..count {
        existing.push(write.create(&format!("net-{number}")).await);
    }
    let (mut throughout, mut ever) = (existing.clone(), existing.clone());
    let (mut seen, mut after, mut changes) = (Vec::new(), Position::ZERO, changes.into_iter());
    loop {
        read.reach(write.head()).await;
        let page = network::query::list(&db, NetworkPage { kind: None, page: Page { limit, after } }).unwrap();
        assert!(page.views.iter().all(|view| existing.contains(&view.id)), "a deleted network is listed");
        seen.extend(page.views.iter().map(|view| view.id));
        let Some(next) = page.next() else { break };
        after = next;
        for change in changes.next().into_iter().flatten() {
            match change {
                Some(index) if !existing.is_empty() => {
                    let network_id = existing.remove(index % existing.len());
                    throughout.retain(|id| *id != network_id);
                    write.execute(Command::Network(NetworkCommand::Delete { network_id })).await;
                }
                Some(_) | None => {
                    let id = write.create(&format!("late-{}", ever.len())).await;
                    existing.push(id);
                    ever.push(id);
                }
            }
        }
    }
    let in_order = ever.iter().filter(|id| seen.contains(id)).copied().collect::<Vec<_>>();
    assert_eq!(seen, in_order, "in the order of creation, each once");
    assert!(throughout.iter().all(|id| seen.contains(id)), "one is missing");
}

#[test]
fn pages_are_stable_during_any_changes() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
    let change = prop_oneof![Just(None), (0..100usize).prop_map(Some)];
    let changes = prop::collection::vec(prop::collection::vec(change, 0..5), 0..12);
    let outcome = runner.run(&(1..6u32, 0..25usize, changes), |(limit, count, changes)| {
        runtime.block_on(assert_stable_pages(limit, count, changes));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[tokio::test]
async fn a_list_is_filtered_by_type_and_its_last_page_has_no_cursor() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    for name in ["a", "b"] {
        write.create(name).await;
    }
    assert_eq!(write.journal.head().await.unwrap().get(), 2);
    read.reach(write.head()).await;
    let db = read.db();
    let list = async |kind, limit| {
        let page =
            network::query::list(&db, NetworkPage { kind, page: Page { limit, after: Position::ZERO } }).unwrap();
        (page.views.len(), page.next().map(Position::get))
    };
    assert_eq!(list(Some(NetworkKind::Overlay), 2).await, (2, None));
    assert_eq!(list(Some(NetworkKind::Overlay), 1).await, (1, Some(1)));
    assert_eq!(list(Some(NetworkKind::Bridge), 2).await, (0, None));
}
