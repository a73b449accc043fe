use otherix_schemas::cloudevent::Header;
use otherix_schemas::id::{CorrelationId, EventId, NodeId};
use otherix_schemas::node::{NodeJoined, NodeReachable, NodeUnreachable};
use otherix_schemas::position::Epoch;
use otherix_schemas::timestamp::Timestamp;
use otherix_testkit::{TempDir, tempdir};
use uuid::Uuid;

use super::*;

const CLUSTER: ClusterId = ClusterId::new(Uuid::from_u128(1));
const NODE: NodeId = NodeId::new(Uuid::from_u128(2));

fn store() -> (TempDir, HistoryStore) {
    let folder = tempdir().unwrap();
    let store = HistoryStore::open(&folder.path().join("history/history.db"), CLUSTER, Position::ZERO);
    assert!(store.is_err(), "its folder is missing");
    std::fs::create_dir(folder.path().join("history")).unwrap();
    let store = HistoryStore::open(&folder.path().join("history/history.db"), CLUSTER, Position::ZERO).unwrap();
    (folder, store)
}

fn envelope(position: u64, event: impl Into<Event>) -> EventEnvelope {
    let header = Header {
        cluster: CLUSTER,
        id: EventId::new(Uuid::from_u128(position.into())),
        position: Position::new(position),
        decision_prev: Position::new(position - 1),
        epoch: Epoch::FIRST,
        stream_version: 1,
        time: Timestamp::from_unix_micros(1_700_000_000_000_000).unwrap(),
        actor: "admin".parse().unwrap(),
        correlation_id: CorrelationId::new(Uuid::from_u128(position.into())),
        causation_id: None,
        traceparent: None,
    };
    EventEnvelope { header, event: event.into() }
}

/// A node joins at position 1, and is unreachable and reachable by turns from then on.
fn events(last: u64) -> Vec<EventEnvelope> {
    let event = |position| match position {
        1 => envelope(1, NodeJoined { node_id: NODE, name: "node-1".parse().unwrap() }),
        even if even % 2 == 0 => envelope(even, NodeUnreachable { node_id: NODE, last_heard_at: None }),
        odd => envelope(odd, NodeReachable { node_id: NODE }),
    };
    (1..=last).map(event).collect()
}

fn versions(store: &HistoryStore) -> Vec<(i64, i64)> {
    let sql = "SELECT valid_from, valid_to FROM network_nodes_versions ORDER BY valid_from";
    let mut statement = store.db.prepare(sql).unwrap();
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap()
}

fn apply(store: &mut HistoryStore, after: u64, events: &[EventEnvelope]) -> u64 {
    let (position, error) = store.apply(Position::new(after), events).unwrap();
    assert!(error.is_none(), "{error:?}");
    position.get()
}

#[test]
fn events_that_a_dropped_caller_has_applied_are_not_applied_again() {
    let (_folder, mut store) = store();
    let events = events(5);
    assert_eq!(apply(&mut store, 0, &events[..3]), 3);
    // The caller has not learnt of that.
    assert_eq!(apply(&mut store, 0, &events), 5);
    assert_eq!(apply(&mut store, 3, &events[3..]), 5);
    let now = i64::MAX;
    assert_eq!(versions(&store), [(1, 2), (2, 3), (3, 4), (4, 5), (5, now)]);
}

#[test]
fn no_event_is_skipped_if_the_history_is_further_back_than_its_caller_knows() {
    let (_folder, mut store) = store();
    let events = events(5);
    assert_eq!(apply(&mut store, 0, &events[..3]), 3);
    store.reset().unwrap();
    assert_eq!(apply(&mut store, 3, &events[3..]), 0);
    assert_eq!(apply(&mut store, 0, &events), 5);
}

#[test]
fn a_reset_that_has_failed_can_be_tried_again() {
    let (folder, mut store) = store();
    let path = folder.path().join("history");
    std::fs::rename(&path, folder.path().join("elsewhere")).unwrap();
    store.reset().unwrap_err();
    std::fs::create_dir(&path).unwrap();
    store.reset().unwrap();
    assert_eq!(apply(&mut store, 0, &events(3)), 3);
    assert_eq!(versions(&store), [(1, 2), (2, 3), (3, i64::MAX)]);
    drop(store);
    let store = HistoryStore::open(&path.join("history.db"), CLUSTER, Position::new(3)).unwrap();
    assert_eq!(store.position().unwrap(), Position::new(3), "it is continued");
}

#[test]
fn a_look_at_a_network_reads_its_versions_of_about_that_position() {
    let (_folder, store) = store();
    prepare_to_read(&store.db).unwrap();
    for (condition, searched) in [
        ("network_id = 'x'", "(network_id=? AND valid_to>?)"),
        ("network_id = 'x' AND status = 'ready'", "(network_id=? AND valid_to>?)"),
        ("network_id = 'x' AND node_id = 'y'", "(network_id=? AND node_id=? AND valid_to>?)"),
        ("node_id = 'y'", "(node_id=? AND valid_to>?)"),
    ] {
        let plan = format!("EXPLAIN QUERY PLAN SELECT COUNT(*) FROM outcomes WHERE {condition}");
        let mut statement = store.db.prepare(&plan).unwrap();
        let steps = statement.query_map([], |row| row.get::<_, String>("detail")).unwrap();
        let steps: Vec<String> = steps.collect::<Result<_, _>>().unwrap();
        assert!(steps.iter().any(|step| step.contains(searched)), "{condition}: {steps:?}");
    }
}
