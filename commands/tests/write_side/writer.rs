//! The writer: concurrent commands share batches, every answer waits for the batch it depends on, event times never
//! decrease, and another writer's append fences it.

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

use super::support::{JournalFolder, RunningWriter, assert_unanswered, create, join, memory_store};

#[tokio::test]
async fn concurrent_commands_share_batches_and_get_consecutive_positions() {
    const COMMANDS: usize = 2_500;
    let writer = RunningWriter::start(memory_store()).await;

    let answers = join_all((0..COMMANDS).map(|n| writer.execute(create(&format!("net-{n}"))))).await;

    let mut positions: Vec<u64> = answers.into_iter().map(Result::unwrap).collect();
    positions.sort_unstable();
    assert_eq!(positions, (1..=COMMANDS as u64).collect::<Vec<_>>());
    let batches = writer.journal.faults().appends();
    assert!(batches.len() <= COMMANDS / 50, "{} batches", batches.len());
    assert!(batches.iter().all(|(_, batch)| batch.entries.len() <= 1000));
    assert_eq!(writer.durable.borrow().position.get(), COMMANDS as u64);
    let journal = writer.stop().await;
    let state = replay(journal.as_ref()).await.unwrap().state;
    let vnis: std::collections::BTreeSet<_> = state.live_networks().map(|(_, network)| network.spec.vni()).collect();
    assert_eq!(vnis.len(), COMMANDS, "no VNI twice");
}

#[tokio::test]
async fn decides_the_next_batch_while_one_is_stored() {
    let writer = RunningWriter::start(memory_store()).await;
    writer.journal.faults().hold();
    let first = writer.begin(create("first"));
    writer.journal.faults().wait_appends(1).await;
    let mut more: Vec<_> = (0..50).map(|n| writer.begin(create(&format!("more-{n}")))).collect();
    assert_unanswered(more.last_mut().unwrap()).await;
    assert_eq!(writer.journal.faults().appends().len(), 1, "one batch at a time");

    writer.journal.faults().release();

    first.await.unwrap().unwrap();
    for (_, answer) in (0..).zip(join_all(more).await) {
        answer.unwrap().unwrap();
    }
    let sizes: Vec<_> =
        writer.journal.faults().appends().iter().map(|(after, batch)| (after.get(), batch.entries.len())).collect();
    assert_eq!(sizes, [(0, 1), (1, 50)]);
}

#[tokio::test]
async fn a_rejection_waits_for_the_batch_it_depends_on() {
    let writer = RunningWriter::start(memory_store()).await;
    writer.journal.faults().hold();
    let created = writer.begin(create("a"));
    writer.journal.faults().wait_appends(1).await;
    let mut again = writer.begin(create("A"));
    assert_unanswered(&mut again).await;

    writer.journal.faults().release();

    created.await.unwrap().unwrap();
    let refusal = again.await.unwrap().unwrap_err();
    assert!(matches!(refusal, Refusal::Rejected(Rejection::NameTaken { .. })), "{refusal}");
    // It depends only on what is durable already, so it needs no batch.
    writer.execute(create("a")).await.unwrap_err();
    assert_eq!(writer.journal.faults().appends().len(), 1);
}

#[tokio::test]
async fn a_command_is_carried_out_after_its_caller_is_dropped() {
    let writer = RunningWriter::start(memory_store()).await;
    writer.journal.faults().hold();
    let dropped = writer.begin(create("a"));
    writer.journal.faults().wait_appends(1).await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    writer.journal.faults().release();

    let refusal = writer.execute(create("a")).await.unwrap_err();

    assert!(matches!(refusal, Refusal::Rejected(Rejection::NameTaken { .. })), "{refusal}");
}

#[tokio::test]
async fn stores_and_answers_queued_commands_before_it_ends() {
    let writer = RunningWriter::start(memory_store()).await;
    writer.journal.faults().hold();
    let queued: Vec<_> = (0..20).map(|n| writer.begin(create(&format!("net-{n}")))).collect();
    writer.journal.faults().wait_appends(1).await;
    let journal = std::sync::Arc::clone(&writer.journal);
    let (stopped, ()) = tokio::join!(writer.stop(), async { journal.faults().release() });
    for answer in join_all(queued).await {
        answer.unwrap().unwrap();
    }
    assert_eq!(stopped.head().await.unwrap().get(), 20);
}

/// An event recorded with a clock that was far ahead.
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
    let folder = JournalFolder::new();
    let journal = folder.open().await;
    let future: Timestamp = "2199-01-01T00:00:00Z".parse().unwrap();
    let batch = Batch { entries: vec![from_the_future(&journal, future)], ..Batch::default() };
    journal.append(Position::ZERO, &batch).await.unwrap();
    let writer = RunningWriter::start(journal).await;

    writer.execute(create("later")).await.unwrap();

    let entries = writer.journal.read(Position::new(1), 10).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.recorded_at).collect::<Vec<_>>(), [future]);
    replay(writer.stop().await.as_ref()).await.unwrap();
}

#[tokio::test]
async fn a_later_epoch_fences_the_writer() {
    let folder = JournalFolder::new();
    let writer = RunningWriter::start(folder.open().await).await;
    writer.execute(create("a")).await.unwrap();
    folder.sql("UPDATE meta SET epoch = epoch + 1");

    let refusal = writer.execute(join("node-1")).await.unwrap_err();

    assert_eq!(refusal, Refusal::Unsettled);
    let ended = writer.task.await.unwrap().unwrap_err();
    assert!(matches!(ended, WriterError::Store(StoreError::Fenced { .. })), "{ended:?}");
    assert_eq!(folder.sql("SELECT count(*) FROM events"), "1\n");
}
