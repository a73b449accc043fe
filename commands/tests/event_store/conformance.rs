//! The conformance suite of event stores. Each case runs on every backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use otherix_commands::store::{
    Batch, Entry, EventStore, IdempotencyRecord, LoadError, StoreError, check_idempotency_records, replay,
};
use otherix_schemas::decision_chain::ChainDigest;
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::{Epoch, Position};
use uuid::Uuid;

use super::backends::{Backend, Memory, Sqlite};
use super::sample::{Events, batch, record, time};

macro_rules! conformance {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test] async fn $case() { super::$case(super::Sqlite::new()).await; })*
        }
        mod memory {
            $(#[tokio::test] async fn $case() { super::$case(super::Memory::new()).await; })*
        }
    };
}

conformance!(
    keeps_order_and_bytes,
    keeps_contents_when_opened_again,
    fences_appends_at_another_position,
    fences_appends_of_an_earlier_epoch,
    stores_a_batch_whole_or_not_at_all,
    settles_an_interrupted_append_by_its_head,
    keeps_idempotency_records,
    replaces_and_expires_idempotency_records,
    pages_through_idempotency_records,
    begins_epochs_and_returns_their_gaps,
    adopts_a_cluster_only_while_empty,
    reads_while_appending,
    detects_altered_events,
    keeps_the_newest_snapshot,
);

fn positions(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.position.get()).collect()
}

async fn all<S: EventStore>(store: &S) -> Vec<Entry> {
    store.read(Position::ZERO, u32::MAX).await.unwrap()
}

/// Appends events in batches of these sizes. Returns them.
async fn append<S: EventStore>(store: &S, events: &mut Events, sizes: &[usize]) -> Vec<Entry> {
    let mut appended = Vec::new();
    for size in sizes {
        let after = events.state.position();
        let entries = events.take(*size);
        store.append(after, &batch(entries.clone())).await.unwrap();
        appended.extend(entries);
    }
    appended
}

async fn keeps_order_and_bytes<B: Backend>(backend: B) {
    let store = backend.open().await;
    let mut events = Events::new(backend.cluster());
    assert_eq!(store.head().await.unwrap(), Position::ZERO);
    assert_eq!(store.identity().cluster, backend.cluster());
    assert_eq!(store.identity().epoch, Epoch::FIRST);
    // More than a store may put into one statement.
    let appended = append(&store, &mut events, &[1, 2, 300, 65]).await;
    assert_eq!(all(&store).await, appended);
    assert_eq!(store.head().await.unwrap().get(), 368);
    assert_eq!(positions(&store.read(Position::new(1), 3).await.unwrap()), [2, 3, 4]);
    assert_eq!(positions(&store.read(Position::new(366), 10).await.unwrap()), [367, 368]);
    assert_eq!(positions(&store.read(Position::new(368), 10).await.unwrap()), [0; 0]);
    store.append(Position::new(368), &Batch::default()).await.unwrap();
    assert_eq!(store.head().await.unwrap().get(), 368, "an empty batch changes nothing");
    store.check().await.unwrap();
}

async fn keeps_contents_when_opened_again<B: Backend>(backend: B) {
    let mut events = Events::new(backend.cluster());
    let store = backend.open().await;
    let appended = append(&store, &mut events, &[3]).await;
    let identity = store.identity();
    store.close().await;
    drop(store);
    let store = backend.open().await;
    assert_eq!(store.identity(), identity);
    assert_eq!(all(&store).await, appended);
    assert_eq!(replay(&store).await.unwrap().state, events.state);
}

async fn fences_appends_at_another_position<B: Backend>(backend: B) {
    let store = backend.open().await;
    let mut events = Events::new(backend.cluster());
    let appended = append(&store, &mut events, &[2]).await;
    let next = events.take(2);
    // With and without records, one event and many.
    let with_record = Batch { idempotency: vec![record("k", 1)], ..batch(next.clone()) };
    for after in [0, 1, 3] {
        for refused in [&batch(next.clone()), &with_record] {
            let error = store.append(Position::new(after), refused).await.unwrap_err();
            assert!(
                matches!(&error, StoreError::Fenced { expected, found, epoch }
                    if (expected.get(), found.get(), *epoch) == (after, 2, Epoch::FIRST)),
                "{error}"
            );
        }
    }
    assert_eq!(all(&store).await, appended);
    assert_eq!(store.idempotency_record(&"admin".parse().unwrap(), "k").await.unwrap(), None);
    store.append(Position::new(2), &with_record).await.unwrap();
    assert_eq!(store.head().await.unwrap().get(), 4, "a fenced append changes nothing");
}

async fn fences_appends_of_an_earlier_epoch<B: Backend>(backend: B) {
    let store = backend.open().await;
    let mut events = Events::new(backend.cluster());
    append(&store, &mut events, &[1]).await;
    backend.take_over();
    let with_record = |entries| Batch { idempotency: vec![record("k", 1)], ..batch(entries) };
    let next = events.take(1);
    for refused in [batch(next.clone()), with_record(next), with_record(Vec::new())] {
        let error = store.append(Position::new(1), &refused).await.unwrap_err();
        assert!(matches!(&error, StoreError::Fenced { epoch, .. } if epoch.get() == 2), "{error}");
    }
    assert_eq!(store.head().await.unwrap().get(), 1);
    assert_eq!(store.idempotency_record(&"admin".parse().unwrap(), "k").await.unwrap(), None);
}

async fn stores_a_batch_whole_or_not_at_all<B: Backend>(backend: B) {
    let store = backend.open().await;
    let mut events = Events::new(backend.cluster());
    let appended = append(&store, &mut events, &[2]).await;
    for size in [3, 200] {
        let mut forked = Events::new(backend.cluster());
        (forked.state, forked.digest) = (events.state.clone(), events.digest);
        let mut entries = forked.take(size);
        // The last one violates a constraint.
        entries[size - 1].event_id = appended[1].event_id;
        let broken = Batch { idempotency: vec![record("k", 1)], ..batch(entries) };
        for broken in [&broken, &batch(broken.entries.clone())] {
            let error = store.append(Position::new(2), broken).await.unwrap_err();
            assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
            assert_eq!(all(&store).await, appended);
        }
        assert_eq!(store.idempotency_record(&"admin".parse().unwrap(), "k").await.unwrap(), None);
    }
    append(&store, &mut events, &[1]).await;
    assert_eq!(store.head().await.unwrap().get(), 3);
}

async fn settles_an_interrupted_append_by_its_head<B: Backend>(backend: B) {
    let store = backend.open().await;
    let mut events = Events::new(backend.cluster());
    for _ in 0..20 {
        let (after, state, digest) = (events.state.position(), events.state.clone(), events.digest);
        let entries = events.take(50);
        {
            // Dropped after its first poll.
            let stored = batch(entries.clone());
            let mut append = std::pin::pin!(store.append(after, &stored));
            let _maybe_done = futures::poll!(append.as_mut());
        }
        // The connection that was writing may still be at it. An append that follows tells: it is fenced if the batch
        // is stored, and if it is not fenced, the batch never will be.
        let mut without = Events::new(backend.cluster());
        (without.state, without.digest) = (state, digest);
        let settled = store.append(after, &batch(without.take(1))).await;
        if let Err(StoreError::Fenced { found, .. }) = &settled {
            assert_eq!(*found, events.state.position(), "a part of a batch");
        } else {
            settled.unwrap();
            (events.state, events.digest) = (without.state, without.digest);
        }
    }
    assert_eq!(replay(&store).await.unwrap().state, events.state);
}

async fn keeps_idempotency_records<B: Backend>(backend: B) {
    let store = backend.open().await;
    let mut events = Events::new(backend.cluster());
    let stored = vec![record("a", 1), record("b", 2)];
    let entries = events.take(1);
    store.append(Position::ZERO, &Batch { entries, idempotency: stored.clone(), ..Batch::default() }).await.unwrap();
    // Without events, too.
    let alone = Batch { idempotency: vec![record("c", 3)], ..Batch::default() };
    store.append(Position::new(1), &alone).await.unwrap();
    store.close().await;
    drop(store);
    let store = backend.open().await;
    let user = "admin".parse().unwrap();
    for expected in stored.iter().chain(&alone.idempotency) {
        assert_eq!(store.idempotency_record(&user, &expected.key).await.unwrap().as_ref(), Some(expected));
    }
    assert_eq!(store.idempotency_record(&user, "d").await.unwrap(), None);
    assert_eq!(store.idempotency_record(&"other".parse().unwrap(), "a").await.unwrap(), None);
    check_idempotency_records(&store, Position::new(1)).await.unwrap();
    let error = check_idempotency_records(&store, Position::ZERO).await.unwrap_err();
    assert!(matches!(&error, LoadError::Idempotency { key, .. } if key == "a"), "{error}");
}

async fn replaces_and_expires_idempotency_records<B: Backend>(backend: B) {
    let store = backend.open().await;
    let user = "admin".parse().unwrap();
    let records = |range: std::ops::Range<i64>| range.map(|second| record(&second.to_string(), second)).collect();
    let put = async |idempotency: Vec<IdempotencyRecord>, expire_before| {
        let stored = Batch { idempotency, expire_before, ..Batch::default() };
        store.append(Position::ZERO, &stored).await.unwrap();
    };
    put(records(0..200), None).await;
    let replacement = IdempotencyRecord { reply: "new".into(), at: time(300), ..record("7", 300) };
    put(vec![replacement.clone()], None).await;
    assert_eq!(store.idempotency_record(&user, "7").await.unwrap(), Some(replacement));
    // Each append deletes some of those that may be deleted, and none of the others.
    for second in 300..400 {
        put(vec![record("new", second)], Some(time(100))).await;
    }
    let left = store.idempotency_records(None, u32::MAX).await.unwrap();
    let mut keys: Vec<&str> = left.iter().map(|record| record.key.as_str()).collect();
    keys.sort_unstable();
    let mut expected: Vec<String> = (100..200).map(|second| second.to_string()).collect();
    expected.extend(["7".to_owned(), "new".to_owned()]);
    expected.sort_unstable();
    assert_eq!(keys, expected);
}

async fn pages_through_idempotency_records<B: Backend>(backend: B) {
    let store = backend.open().await;
    // Several at the same time.
    let stored: Vec<_> = (0..50).map(|number| record(&format!("{number:02}"), number / 7)).collect();
    store.append(Position::ZERO, &Batch { idempotency: stored.clone(), ..Batch::default() }).await.unwrap();
    for limit in [1, 3, 7, 50, 100] {
        let mut pages: Vec<IdempotencyRecord> = Vec::new();
        loop {
            let page = store.idempotency_records(pages.last(), limit).await.unwrap();
            assert!(page.len() <= limit as usize);
            if page.is_empty() {
                break;
            }
            pages.extend(page);
        }
        assert_eq!(pages, stored, "limit {limit}");
        let mut keys = Vec::new();
        loop {
            let last = keys.last().cloned();
            let after = last.as_ref().map(|(user, key): &(_, String)| (user, key.as_str()));
            let page = store.idempotency_keys(after, limit).await.unwrap();
            if page.is_empty() {
                break;
            }
            keys.extend(page);
        }
        let expected: Vec<_> = stored.iter().map(|record| (record.user.clone(), record.key.clone())).collect();
        assert_eq!(keys, expected, "limit {limit}");
    }
}

async fn begins_epochs_and_returns_their_gaps<B: Backend>(backend: B) {
    let mut store = backend.open().await;
    let mut events = Events::new(backend.cluster());
    let mut appended = append(&store, &mut events, &[3]).await;
    assert_eq!(store.gaps().await.unwrap(), []);
    let first = events.next_epoch(10);
    let error = store.begin_epoch(Position::new(2), &first, Epoch::new(2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
    assert_eq!(store.identity().epoch, Epoch::FIRST);
    store.begin_epoch(Position::new(3), &first, Epoch::new(2)).await.unwrap();
    assert_eq!((first.position.get(), store.identity().epoch), (14, Epoch::new(2)));
    appended.push(first);
    appended.extend(append(&store, &mut events, &[2]).await);
    store.close().await;
    drop(store);
    let store = backend.open().await;
    assert_eq!(store.identity().epoch, Epoch::new(2));
    assert_eq!(all(&store).await, appended);
    let gaps = store.gaps().await.unwrap();
    let found: Vec<_> = gaps.iter().map(|gap| (gap.kept.get(), gap.next.get(), gap.positions())).collect();
    assert_eq!(found, [(3, 14, 10)]);
    assert_eq!(positions(&store.read(Position::new(3), 2).await.unwrap()), [14, 15]);
    assert_eq!(replay(&store).await.unwrap().state, events.state);
}

async fn adopts_a_cluster_only_while_empty<B: Backend>(backend: B) {
    let mut store = backend.open().await;
    let (own, other) = (ClusterId::new(Uuid::now_v7()), ClusterId::new(Uuid::now_v7()));
    store.adopt_cluster(own).await.unwrap();
    assert_eq!(store.identity().cluster, own);
    append(&store, &mut Events::new(own), &[1]).await;
    store.adopt_cluster(other).await.unwrap();
    assert_eq!(store.identity().cluster, own);
    store.close().await;
    drop(store);
    assert_eq!(backend.open().await.identity().cluster, own);
}

async fn reads_while_appending<B: Backend>(backend: B)
where
    B::Store: 'static,
{
    const SIZE: u64 = 40;
    let store = Arc::new(backend.open().await);
    let mut events = Events::new(backend.cluster());
    let ended = Arc::new(AtomicBool::new(false));
    let reader = {
        let (store, ended) = (Arc::clone(&store), Arc::clone(&ended));
        async move {
            let mut reads = 0u32;
            let mut last = 0;
            while !ended.load(Ordering::SeqCst) || last == 0 {
                let read = all(store.as_ref()).await;
                let count = read.len() as u64;
                assert_eq!(positions(&read), (1..=count).collect::<Vec<_>>());
                assert_eq!(count % SIZE, 0, "a part of a batch");
                assert!(count >= last, "events disappeared");
                last = count;
                reads += 1;
                tokio::task::yield_now().await;
            }
            reads
        }
    };
    let writer = async {
        for _ in 0..30 {
            append(store.as_ref(), &mut events, &[usize::try_from(SIZE).unwrap()]).await;
            tokio::task::yield_now().await;
        }
        ended.store(true, Ordering::SeqCst);
    };
    let (reads, ()) = tokio::join!(reader, writer);
    assert!(reads > 3, "{reads} concurrent reads are too few");
}

async fn detects_altered_events<B: Backend>(backend: B) {
    let store = backend.open().await;
    let mut events = Events::new(backend.cluster());
    append(&store, &mut events, &[6]).await;
    store.close().await;
    drop(store);
    backend.alter(3, "10.7.0.0", "10.8.0.0");
    let store = backend.open().await;
    let error = replay(&store).await.unwrap_err();
    assert!(matches!(&error, LoadError::Altered { position, column: "digest" } if position.get() == 3), "{error}");
    store.close().await;
    drop(store);
    backend.truncate(2);
    assert_eq!(backend.open().await.head().await.unwrap().get(), 2);
}

async fn keeps_the_newest_snapshot<B: Backend>(backend: B) {
    let mut store = backend.open().await;
    let mut events = Events::new(backend.cluster());
    assert_eq!(store.snapshot().await.unwrap(), None);
    for size in [0, 1, 300_000, 70_000] {
        let entries = append(&store, &mut events, &[2]).await;
        let mut saved = otherix_commands::store::StoredSnapshot::new(
            store.identity(),
            &events.state,
            ChainDigest::START,
            &entries[1],
        )
        .unwrap();
        // Snapshots of any size.
        saved.bytes = (0..size).map(|byte: u32| byte.to_le_bytes()[0]).collect::<Vec<u8>>().into();
        store.save_snapshot(&saved).await.unwrap();
        assert_eq!(store.snapshot().await.unwrap().as_ref(), Some(&saved));
        store.save_snapshot(&saved).await.unwrap();
        store.close().await;
        drop(store);
        store = backend.open().await;
        assert_eq!(store.snapshot().await.unwrap(), Some(saved));
    }
    store.discard_snapshots().await.unwrap();
    assert_eq!(store.snapshot().await.unwrap(), None);
    let entries = append(&store, &mut events, &[1]).await;
    let saved =
        otherix_commands::store::StoredSnapshot::new(store.identity(), &events.state, ChainDigest::START, &entries[0])
            .unwrap();
    store.save_snapshot(&saved).await.unwrap();
    let (after, first) = (events.state.position(), events.next_epoch(1));
    store.begin_epoch(after, &first, Epoch::new(2)).await.unwrap();
    assert_eq!(store.snapshot().await.unwrap(), None, "the snapshot was of the earlier epoch");
}
