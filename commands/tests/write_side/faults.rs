//! The writer when storing fails: commands that were not stored have no effect, and their callers receive an error;
//! commands that were stored succeed, whatever the error was; if the outcome is unknown, the writer ends.

use futures::future::join_all;
use otherix_commands::store::replay;
use otherix_commands::writer::{Refusal, WriterError};
use otherix_schemas::error::{ErrorBody, ErrorCode};

use super::support::{RunningWriter, create, join, memory_store, position, with_key};
use otherix_commands::store::memory::Fault;

fn assert_without_effect(refusal: Refusal) {
    assert!(matches!(refusal, Refusal::Unavailable(_)), "{refusal}");
    assert_eq!(ErrorBody::from(refusal).error.code, ErrorCode::Unavailable);
}

#[tokio::test]
async fn discards_a_failed_batch_and_everything_decided_since() {
    let writer = RunningWriter::start(memory_store()).await;
    writer.execute(join("node-1")).await.unwrap();
    writer.journal.faults().hold();
    writer.journal.faults().inject(Fault::NotStored);
    let created = writer.begin(create("a"));
    writer.journal.faults().wait_appends(2).await;
    let dependent = [create("a"), create("b"), with_key(create("c"), "k", "c")].map(|request| writer.begin(request));
    let mut last = writer.begin(join("node-1"));
    super::support::assert_unanswered(&mut last).await;

    writer.journal.faults().release();

    assert_without_effect(created.await.unwrap().unwrap_err());
    for answer in join_all(dependent).await {
        assert_without_effect(answer.unwrap().unwrap_err());
    }
    assert_without_effect(last.await.unwrap().unwrap_err());
    assert_eq!(writer.durable.borrow().position.get(), 1);
    // All requests can be repeated, and the first attempt left no trace.
    assert_eq!(writer.execute(create("a")).await, Ok(2));
    assert_eq!(writer.execute(create("b")).await, Ok(3));
    assert_eq!(writer.execute(with_key(create("c"), "k", "c")).await, Ok(4));
    let journal = writer.stop().await;
    let state = replay(journal.as_ref()).await.unwrap().state;
    let vnis: Vec<_> =
        state.live_networks().filter_map(|(_, network)| network.spec.vni()).map(|vni| vni.get()).collect();
    assert_eq!(vnis, [1000, 1001, 1002]);
}

#[tokio::test]
async fn settles_an_unconfirmed_commit_by_the_head() {
    let mut writer = RunningWriter::start(memory_store()).await;
    writer.journal.faults().hold();
    writer.journal.faults().inject(Fault::StoredUnconfirmed);
    let keyed = writer.begin(with_key(create("a"), "k", "a"));
    writer.journal.faults().wait_appends(1).await;
    let after = writer.begin(create("b"));

    writer.journal.faults().release();

    let first = keyed.await.unwrap().unwrap();
    assert_eq!(position(&first), 1);
    assert_eq!(position(&after.await.unwrap().unwrap()), 2);
    assert_eq!(writer.handle.execute(with_key(create("a"), "k", "a")).await.unwrap(), first);
    // The relay receives it like any other.
    let relayed: Vec<u64> = [writer.stored.recv().await.unwrap(), writer.stored.recv().await.unwrap()]
        .iter()
        .flat_map(|batch| &batch.entries)
        .map(|entry| entry.position.get())
        .collect();
    assert_eq!(relayed, [1, 2]);
    replay(writer.stop().await.as_ref()).await.unwrap();
}

#[tokio::test]
async fn loses_no_acknowledged_event_if_batches_fail() {
    let writer = RunningWriter::start(memory_store()).await;
    for n in 0..60 {
        writer.journal.faults().inject([Fault::NotStored, Fault::None, Fault::StoredUnconfirmed][n % 3]);
    }
    let results = join_all((0..40).map(async |n| {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match writer.execute(create(&format!("net-{n}"))).await {
                Ok(position) => return (position, attempts),
                Err(refusal) => assert_without_effect(refusal),
            }
        }
    }))
    .await;
    assert!(results.iter().any(|(_, attempts)| *attempts > 1), "no fault occurred");
    let mut positions: Vec<u64> = results.into_iter().map(|(position, _)| position).collect();
    positions.sort_unstable();
    assert_eq!(positions, (1..=40).collect::<Vec<_>>());
    let state = replay(writer.stop().await.as_ref()).await.unwrap().state;
    assert_eq!(state.live_networks().count(), 40);
}

#[tokio::test]
async fn ends_if_the_outcome_stays_unknown() {
    for fault in [Fault::NotStored, Fault::StoredUnconfirmed] {
        let writer = RunningWriter::start(memory_store()).await;
        writer.execute(create("before")).await.unwrap();
        writer.journal.faults().inject(fault);
        writer.journal.faults().fail_head();

        let refusal = writer.execute(create("a")).await.unwrap_err();

        assert_eq!(refusal, Refusal::Unsettled, "the outcome is unknown");
        assert_eq!(ErrorBody::from(refusal).error.code, ErrorCode::Unavailable);
        let ended = writer.task.await.unwrap().unwrap_err();
        assert!(matches!(ended, WriterError::Store(_)), "{ended:?}");
        let store = writer.journal.reopen();
        let restarted = RunningWriter::start(store).await;
        let expected = if fault == Fault::NotStored { 1 } else { 2 };
        assert_eq!(restarted.durable.borrow().position.get(), expected);
    }
}

#[tokio::test]
async fn a_failed_fsync_ends_the_writer() {
    let writer = RunningWriter::start(memory_store()).await;
    writer.journal.faults().inject(Fault::NotDurable);

    assert_eq!(writer.execute(create("a")).await, Err(Refusal::Unsettled));

    let ended = writer.task.await.unwrap().unwrap_err();
    assert!(matches!(ended, WriterError::Store(_)), "{ended:?}");
    assert_without_effect(writer.handle.execute(create("b")).await.unwrap_err());
}
