//! Promises of lists: in the order of creation, and stable while networks come and go.

use otherix_commands::journal::Journal;
use otherix_projections::query::{self, Page};
use otherix_schemas::command::Command;
use otherix_schemas::network::NetworkKind;
use otherix_schemas::position::Position;
use otherix_testkit::tempdir;

use super::support::{ReadSide, WriteSide};

#[tokio::test]
async fn pages_neither_skip_nor_repeat_while_networks_come_and_go() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    let pool = read.pool().await;
    let mut first = Vec::new();
    for number in 0..60 {
        first.push(write.create(&format!("net-{number}")).await);
    }
    let (mut seen, mut gone, mut after, mut pages) = (Vec::new(), Vec::new(), Position::ZERO, 0);
    loop {
        read.reach(write.head()).await;
        let page = query::list(&pool, Page { kind: None, limit: 7, after }).await.unwrap();
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
            write.ask(Command::DeleteNetwork { network_id }).await;
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

#[tokio::test]
async fn a_list_can_be_of_one_kind_and_its_end_is_told() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    for name in ["a", "b"] {
        write.create(name).await;
    }
    assert_eq!(write.journal.head().await.unwrap().get(), 2);
    read.reach(write.head()).await;
    let pool = read.pool().await;
    let list = async |kind, limit| {
        let page = query::list(&pool, Page { kind, limit, after: Position::ZERO }).await.unwrap();
        (page.views.len(), page.next.map(Position::get))
    };
    assert_eq!(list(Some(NetworkKind::Overlay), 2).await, (2, None));
    assert_eq!(list(Some(NetworkKind::Overlay), 1).await, (1, Some(1)));
    assert_eq!(list(Some(NetworkKind::Bridge), 2).await, (0, None));
}
