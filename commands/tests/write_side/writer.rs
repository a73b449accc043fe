//! Promises of the writer: commands share a batch; every answer waits for what it rests on; time never runs backwards;
//! a journal that somebody else wrote to ends it.

use futures::future::join_all;
use otherix_commands::domain::Rejection;
use otherix_commands::store::{Batch, Digest, Entry, EventStore, StoreError, replay};
use otherix_commands::writer::{Refusal, WriterError};
use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::event::Event;
use otherix_schemas::id::{CorrelationId, EventId, NodeId};
use otherix_schemas::node::{NodeEvent, NodeJoined};
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use uuid::Uuid;

use super::support::{Place, Running, assert_unanswered, create, join, memory_store};

#[tokio::test]
async fn concurrent_commands_share_batches_and_get_consecutive_positions() {
    const COMMANDS: usize = 2_500;
    let lab = Running::start(memory_store()).await;

    let answers = join_all((0..COMMANDS).map(|n| lab.execute(create(&format!("net-{n}"))))).await;

    let mut positions: Vec<u64> = answers.into_iter().map(Result::unwrap).collect();
    positions.sort_unstable();
    assert_eq!(positions, (1..=COMMANDS as u64).collect::<Vec<_>>());
    let batches = lab.journal.faults().appends();
    assert!(batches.len() <= COMMANDS / 50, "{} batches", batches.len());
    assert!(batches.iter().all(|(_, batch)| batch.entries.len() <= 1000));
    assert_eq!(lab.durable.borrow().position.get(), COMMANDS as u64);
    let journal = lab.stop().await;
    let state = replay(journal.as_ref()).await.unwrap().state;
    let vnis: std::collections::BTreeSet<_> = state.live_networks().map(|(_, network)| network.spec.vni()).collect();
    assert_eq!(vnis.len(), COMMANDS, "no VNI twice");
}

#[tokio::test]
async fn decides_the_next_batch_while_one_is_stored() {
    let lab = Running::start(memory_store()).await;
    lab.journal.faults().hold();
    let first = lab.begin(create("first"));
    lab.journal.faults().wait_appends(1).await;
    let mut more: Vec<_> = (0..50).map(|n| lab.begin(create(&format!("more-{n}")))).collect();
    assert_unanswered(more.last_mut().unwrap()).await;
    assert_eq!(lab.journal.faults().appends().len(), 1, "one batch at a time");

    lab.journal.faults().release();

    first.await.unwrap().unwrap();
    for (_, answer) in (0..).zip(join_all(more).await) {
        answer.unwrap().unwrap();
    }
    let sizes: Vec<_> =
        lab.journal.faults().appends().iter().map(|(after, batch)| (after.get(), batch.entries.len())).collect();
    assert_eq!(sizes, [(0, 1), (1, 50)]);
}

#[tokio::test]
async fn a_rejection_waits_for_the_batch_it_depends_on() {
    let lab = Running::start(memory_store()).await;
    lab.journal.faults().hold();
    let created = lab.begin(create("a"));
    lab.journal.faults().wait_appends(1).await;
    let mut again = lab.begin(create("A"));
    assert_unanswered(&mut again).await;

    lab.journal.faults().release();

    created.await.unwrap().unwrap();
    let refusal = again.await.unwrap().unwrap_err();
    assert!(matches!(refusal, Refusal::Rejected(Rejection::NameTaken { .. })), "{refusal}");
    // It rests on what is durable already, so it needs no batch.
    lab.execute(create("a")).await.unwrap_err();
    assert_eq!(lab.journal.faults().appends().len(), 1);
}

#[tokio::test]
async fn a_command_is_carried_out_after_its_caller_is_dropped() {
    let lab = Running::start(memory_store()).await;
    lab.journal.faults().hold();
    let gone = lab.begin(create("gone"));
    lab.journal.faults().wait_appends(1).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    lab.journal.faults().release();

    let refusal = lab.execute(create("gone")).await.unwrap_err();

    assert!(matches!(refusal, Refusal::Rejected(Rejection::NameTaken { .. })), "{refusal}");
}

#[tokio::test]
async fn stores_and_answers_queued_commands_before_it_ends() {
    let lab = Running::start(memory_store()).await;
    lab.journal.faults().hold();
    let asked: Vec<_> = (0..20).map(|n| lab.begin(create(&format!("net-{n}")))).collect();
    lab.journal.faults().wait_appends(1).await;
    let journal = std::sync::Arc::clone(&lab.journal);
    let (stopped, ()) = tokio::join!(lab.stop(), async { journal.faults().release() });
    for answer in join_all(asked).await {
        answer.unwrap().unwrap();
    }
    assert_eq!(stopped.head().await.unwrap().get(), 20);
}

/// An event that another machine's clock, far ahead, recorded.
fn from_the_future(journal: &impl EventStore, time: Timestamp) -> Entry {
    let identity = journal.identity();
    let header = Header {
        cluster: identity.cluster,
        id: EventId::new(Uuid::now_v7()),
        position: Position::new(1),
        decision_prev: Position::ZERO,
        epoch: identity.epoch,
        stream_version: 1,
        time,
        actor: "node".parse().unwrap(),
        correlation_id: CorrelationId::new(Uuid::now_v7()),
        causation_id: None,
        traceparent: None,
    };
    let node_id = NodeId::new(Uuid::now_v7());
    let event = Event::Node(NodeEvent::Joined(NodeJoined { node_id, name: "early".parse().unwrap() }));
    let body = EventEnvelope { header: header.clone(), event }.encode().unwrap();
    Entry {
        position: header.position,
        stream_id: format!("node/{node_id}"),
        stream_version: 1,
        event_id: header.id,
        type_name: "dev.otherix.node.joined.v1".to_owned(),
        digest: Digest::GENESIS.chain(&body),
        body: body.into(),
        recorded_at: time,
    }
}

#[tokio::test]
async fn event_times_never_decrease() {
    let place = Place::new();
    let journal = place.open().await;
    let future: Timestamp = "2199-01-01T00:00:00Z".parse().unwrap();
    let batch = Batch { entries: vec![from_the_future(&journal, future)], ..Batch::default() };
    journal.append(Position::ZERO, &batch).await.unwrap();
    let lab = Running::start(journal).await;

    lab.execute(create("later")).await.unwrap();

    let entries = lab.journal.read(Position::new(1), 10).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.recorded_at).collect::<Vec<_>>(), [future]);
    replay(lab.stop().await.as_ref()).await.unwrap();
}

#[tokio::test]
async fn a_later_epoch_fences_the_writer() {
    let place = Place::new();
    let lab = Running::start(place.open().await).await;
    lab.execute(create("a")).await.unwrap();
    place.sql("UPDATE meta SET epoch = epoch + 1");

    let refusal = lab.execute(join("node-1")).await.unwrap_err();

    assert_eq!(refusal, Refusal::Unsettled);
    let ended = lab.task.await.unwrap().unwrap_err();
    assert!(matches!(ended, WriterError::Store(StoreError::Fenced { .. })), "{ended:?}");
    assert_eq!(place.sql("SELECT count(*) FROM events"), "1\n");
}
