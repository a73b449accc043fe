//! Promises of the writer when storing fails: what is not stored has not happened, and everybody who was promised
//! nothing is told so; what is stored has happened, whatever the error said; when nobody knows, the writer ends.

use futures::future::join_all;
use otherix_commands::store::replay;
use otherix_commands::writer::{Refusal, WriterError};
use otherix_schemas::error::{ErrorBody, ErrorCode};

use super::support::{Running, create, join, memory_store, position, with_key};
use otherix_commands::store::memory::Fault;

fn assert_nothing_happened(refusal: Refusal) {
    assert!(matches!(refusal, Refusal::Unavailable(_)), "{refusal}");
    assert_eq!(ErrorBody::from(refusal).error.code, ErrorCode::Unavailable);
}

#[tokio::test]
async fn discards_a_failed_batch_and_everything_decided_since() {
    let lab = Running::start(memory_store()).await;
    lab.execute(join("node-1")).await.unwrap();
    lab.journal.faults().hold();
    lab.journal.faults().inject(Fault::NotStored);
    let created = lab.begin(create("a"));
    lab.journal.faults().wait_appends(2).await;
    let resting = [create("a"), create("b"), with_key(create("c"), "k", "c")].map(|ask| lab.begin(ask));
    let mut last = lab.begin(join("node-1"));
    super::support::assert_unanswered(&mut last).await;

    lab.journal.faults().release();

    assert_nothing_happened(created.await.unwrap().unwrap_err());
    for answer in join_all(resting).await {
        assert_nothing_happened(answer.unwrap().unwrap_err());
    }
    assert_nothing_happened(last.await.unwrap().unwrap_err());
    assert_eq!(lab.durable.borrow().position.get(), 1);
    // All of it can be asked again, and there is no trace of the first time.
    assert_eq!(lab.execute(create("a")).await, Ok(2));
    assert_eq!(lab.execute(create("b")).await, Ok(3));
    assert_eq!(lab.execute(with_key(create("c"), "k", "c")).await, Ok(4));
    let journal = lab.stop().await;
    let state = replay(journal.as_ref()).await.unwrap().state;
    let vnis: Vec<_> =
        state.live_networks().filter_map(|(_, network)| network.spec.vni()).map(|vni| vni.get()).collect();
    assert_eq!(vnis, [1000, 1001, 1002]);
}

#[tokio::test]
async fn settles_an_unconfirmed_commit_by_the_head() {
    let mut lab = Running::start(memory_store()).await;
    lab.journal.faults().hold();
    lab.journal.faults().inject(Fault::StoredUnconfirmed);
    let keyed = lab.begin(with_key(create("a"), "k", "a"));
    lab.journal.faults().wait_appends(1).await;
    let after = lab.begin(create("b"));

    lab.journal.faults().release();

    let first = keyed.await.unwrap().unwrap();
    assert_eq!(position(&first), 1);
    assert_eq!(position(&after.await.unwrap().unwrap()), 2);
    assert_eq!(lab.asks.execute(with_key(create("a"), "k", "a")).await.unwrap(), first);
    // The relay is told of it as of any other.
    let told: Vec<u64> = [lab.stored.recv().await.unwrap(), lab.stored.recv().await.unwrap()]
        .iter()
        .flatten()
        .map(|entry| entry.position.get())
        .collect();
    assert_eq!(told, [1, 2]);
    replay(lab.stop().await.as_ref()).await.unwrap();
}

#[tokio::test]
async fn loses_no_acknowledged_event_if_batches_fail() {
    let lab = Running::start(memory_store()).await;
    for n in 0..60 {
        lab.journal.faults().inject([Fault::NotStored, Fault::None, Fault::StoredUnconfirmed][n % 3]);
    }
    let tries = join_all((0..40).map(async |n| {
        let mut times = 0;
        loop {
            times += 1;
            match lab.execute(create(&format!("net-{n}"))).await {
                Ok(position) => return (position, times),
                Err(refusal) => assert_nothing_happened(refusal),
            }
        }
    }))
    .await;
    assert!(tries.iter().any(|(_, times)| *times > 1), "no fault came");
    let mut positions: Vec<u64> = tries.into_iter().map(|(position, _)| position).collect();
    positions.sort_unstable();
    assert_eq!(positions, (1..=40).collect::<Vec<_>>());
    let state = replay(lab.stop().await.as_ref()).await.unwrap().state;
    assert_eq!(state.live_networks().count(), 40);
}

#[tokio::test]
async fn ends_if_the_outcome_stays_unknown() {
    for fault in [Fault::NotStored, Fault::StoredUnconfirmed] {
        let lab = Running::start(memory_store()).await;
        lab.execute(create("before")).await.unwrap();
        lab.journal.faults().inject(fault);
        lab.journal.faults().fail_head();

        let refusal = lab.execute(create("a")).await.unwrap_err();

        assert_eq!(refusal, Refusal::Unsettled, "nobody knows whether it happened");
        assert_eq!(ErrorBody::from(refusal).error.code, ErrorCode::Unavailable);
        let ended = lab.task.await.unwrap().unwrap_err();
        assert!(matches!(ended, WriterError::Store(_)), "{ended:?}");
        let store = lab.journal.reopen();
        let again = Running::start(store).await;
        let expected = if fault == Fault::NotStored { 1 } else { 2 };
        assert_eq!(again.durable.borrow().position.get(), expected);
    }
}

#[tokio::test]
async fn a_failed_fsync_ends_the_writer() {
    let lab = Running::start(memory_store()).await;
    lab.journal.faults().inject(Fault::NotDurable);

    assert_eq!(lab.execute(create("a")).await, Err(Refusal::Unsettled));

    let ended = lab.task.await.unwrap().unwrap_err();
    assert!(matches!(ended, WriterError::Store(_)), "{ended:?}");
    assert_nothing_happened(lab.asks.execute(create("b")).await.unwrap_err());
}
