//! Promises of lists: in the order of creation, and stable while networks come and go.

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
async fn pages_neither_skip_nor_repeat_while_networks_come_and_go() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    let db = read.db();
    let mut first = Vec::new();
    for number in 0..60 {
        first.push(write.create(&format!("net-{number}")).await);
    }
    let (mut seen, mut gone, mut after, mut pages) = (Vec::new(), Vec::new(), Position::ZERO, 0);
    loop {
        read.reach(write.head()).await;
        let page = network::query::list(&db, NetworkPage { kind: None, page: Page { limit: 7, after } }).unwrap();
        assert!(page.views.len() <= 7 && page.views.iter().all(|view| view.status.nodes.is_none()));
        seen.extend(page.views.iter().map(|view| view.id));
        pages += 1;
        // One that was seen goes, one that was not, and a new one comes.
        let doomed = [
            seen.get(pages).copied(),
            first.iter().rev().find(|id| !seen.contains(id) && !gone.contains(*id)).copied(),
        ];
        for network_id in doomed.into_iter().flatten() {
            gone.push(network_id);
            write.ask(Command::Network(NetworkCommand::Delete { network_id })).await;
        }
        if pages < 5 {
            write.create(&format!("late-{pages}")).await;
        }
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    let mut sorted = seen.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), seen.len(), "none twice");
    assert!(first.iter().filter(|id| !gone.contains(id)).all(|id| seen.contains(id)), "none left out");
    assert!(pages > 5);
}

/// What happens between two pages: a network comes, or the one that is so far along goes.
type Change = Option<usize>;

/// Walks the pages while networks come and go, and compares with what was there the whole time and what was there at
/// all.
async fn walk(limit: u32, before: usize, between: Vec<Vec<Change>>) {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    let db = read.db();
    let mut alive = Vec::new();
    for number in 0..before {
        alive.push(write.create(&format!("net-{number}")).await);
    }
    let (mut throughout, mut ever) = (alive.clone(), alive.clone());
    let (mut seen, mut after, mut between) = (Vec::new(), Position::ZERO, between.into_iter());
    loop {
        read.reach(write.head()).await;
        let page = network::query::list(&db, NetworkPage { kind: None, page: Page { limit, after } }).unwrap();
        assert!(page.views.iter().all(|view| alive.contains(&view.id)), "only what is there");
        seen.extend(page.views.iter().map(|view| view.id));
        let Some(next) = page.next else { break };
        after = next;
        for change in between.next().into_iter().flatten() {
            match change {
                Some(place) if !alive.is_empty() => {
                    let network_id = alive.remove(place % alive.len());
                    throughout.retain(|id| *id != network_id);
                    write.ask(Command::Network(NetworkCommand::Delete { network_id })).await;
                }
                Some(_) | None => {
                    let id = write.create(&format!("late-{}", ever.len())).await;
                    alive.push(id);
                    ever.push(id);
                }
            }
        }
    }
    let in_order = ever.iter().filter(|id| seen.contains(id)).copied().collect::<Vec<_>>();
    assert_eq!(seen, in_order, "in the order of creation, none twice");
    assert!(throughout.iter().all(|id| seen.contains(id)), "none left out");
}

#[test]
fn whatever_comes_and_goes_pages_are_stable() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
    let change = prop_oneof![Just(None), (0..100usize).prop_map(Some)];
    let between = prop::collection::vec(prop::collection::vec(change, 0..5), 0..12);
    let outcome = runner.run(&(1..6u32, 0..25usize, between), |(limit, before, between)| {
        runtime.block_on(walk(limit, before, between));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[tokio::test]
async fn a_list_can_be_of_one_kind_and_its_end_is_told() {
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
        (page.views.len(), page.next.map(Position::get))
    };
    assert_eq!(list(Some(NetworkKind::Overlay), 2).await, (2, None));
    assert_eq!(list(Some(NetworkKind::Overlay), 1).await, (1, Some(1)));
    assert_eq!(list(Some(NetworkKind::Bridge), 2).await, (0, None));
}
