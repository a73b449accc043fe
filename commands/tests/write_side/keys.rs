//! Idempotency keys: a repeated request of the same user gets the first answer, byte for byte, for 24 hours and also
//! after a restart; a refusal is not recorded.

use otherix_commands::store::EventStore;
use otherix_commands::writer::{CommandRequest, Refusal};

use super::support::{JournalFolder, RunningWriter, assert_unanswered, create, join, memory_store, with_key};
use otherix_commands::store::memory::Fault;

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer() {
    let folder = JournalFolder::new();
    let writer = RunningWriter::start(folder.open().await).await;
    let first = writer.handle.execute(with_key(create("a"), "k", "a")).await.unwrap();
    assert_eq!(writer.handle.execute(with_key(create("a"), "k", "a")).await.unwrap(), first);
    assert_eq!(writer.execute(with_key(create("b"), "k", "b")).await, Err(Refusal::KeyReused));
    let another = CommandRequest { actor: "another".parse().unwrap(), ..with_key(create("b"), "k", "b") };
    assert_eq!(writer.execute(another).await, Ok(2), "each user has separate keys");
    let journal = writer.stop().await;
    journal.close().await;
    drop(journal);

    let restarted = RunningWriter::start(folder.open().await).await;

    assert_eq!(restarted.handle.execute(with_key(create("a"), "k", "a")).await.unwrap(), first);
    assert_eq!(restarted.execute(with_key(create("c"), "k", "c")).await, Err(Refusal::KeyReused));
    assert_eq!(restarted.journal.head().await.unwrap().get(), 2);
}

#[tokio::test]
async fn a_command_that_is_tried_out_has_no_effect() {
    let folder = JournalFolder::new();
    let writer = RunningWriter::start(folder.open().await).await;
    writer.execute(create("a")).await.unwrap();
    let rejected = writer.handle.execute(create("A")).await.unwrap_err();
    let tried = writer.handle.try_out(create("A")).await.unwrap_err();
    assert_eq!(tried, rejected);
    for _ in 0..2 {
        let answer = writer.handle.try_out(with_key(create("b"), "k", "b")).await.unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!((&answer["data"]["name"], &answer["meta"]["position"]), (&"b".into(), &1.into()));
    }
    assert_eq!(writer.journal.head().await.unwrap().get(), 1);
    assert_eq!(folder.sql("SELECT count(*) FROM handled"), "0\n");
    assert_eq!(writer.execute(with_key(create("c"), "k", "c")).await, Ok(2), "the key is not in use");
}

#[tokio::test]
async fn a_rejection_is_not_recorded_under_a_key() {
    let folder = JournalFolder::new();
    let writer = RunningWriter::start(folder.open().await).await;
    writer.execute(create("a")).await.unwrap();
    writer.execute(with_key(create("a"), "k", "a")).await.unwrap_err();
    assert_eq!(writer.execute(with_key(create("b"), "k", "b")).await, Ok(2));
}

#[tokio::test]
async fn a_repeated_answer_waits_for_the_batch_it_depends_on() {
    let writer = RunningWriter::start(memory_store()).await;
    for (fault, name) in [(Fault::None, "kept"), (Fault::NotStored, "lost")] {
        let before = writer.journal.faults().appends().len();
        writer.journal.faults().hold();
        writer.journal.faults().inject(fault);
        let first = writer.begin(with_key(create(name), name, name));
        writer.journal.faults().wait_appends(before + 1).await;
        let mut again = writer.begin(with_key(create(name), name, name));
        let mut other = writer.begin(with_key(create(name), name, "other"));
        assert_unanswered(&mut again).await;
        assert_unanswered(&mut other).await;
        writer.journal.faults().release();
        let (first, again, other) = (first.await.unwrap(), again.await.unwrap(), other.await.unwrap());
        match fault {
            Fault::None => {
                assert_eq!(again.unwrap(), first.unwrap());
                assert_eq!(other.unwrap_err(), Refusal::KeyReused);
            }
            Fault::NotStored | Fault::StoredUnconfirmed | Fault::NotDurable => {
                for answer in [first, again, other] {
                    assert!(matches!(answer, Err(Refusal::Unavailable(_))), "{answer:?}");
                }
                writer.execute(with_key(create(name), name, "anything")).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_success_without_events_is_recorded_under_its_key() {
    let writer = RunningWriter::start(memory_store()).await;
    let node = join("node-1");
    writer.execute(node.clone()).await.unwrap();
    writer.journal.faults().inject(Fault::StoredUnconfirmed);
    // Joining again changes nothing; the head does not show whether the answer was stored.
    writer.execute(with_key(node.clone(), "k", "join")).await.unwrap_err();
    let answer = writer.handle.execute(with_key(node.clone(), "k", "join")).await.unwrap();
    writer.execute(create("a")).await.unwrap();
    assert_eq!(writer.handle.execute(with_key(node, "k", "join")).await.unwrap(), answer);
}

#[tokio::test]
async fn a_key_expires_after_24_hours() {
    let folder = JournalFolder::new();
    let writer = RunningWriter::start(folder.open().await).await;
    for key in ["one", "two"] {
        writer.execute(with_key(create(key), key, key)).await.unwrap();
    }
    let journal = writer.stop().await;
    journal.close().await;
    drop(journal);
    folder.sql("UPDATE handled SET at = at - 25 * 3600 * 1000000");

    let writer = RunningWriter::start(folder.open().await).await;

    // A refusal leaves the expired record in place; a success replaces it.
    writer.execute(with_key(create("one"), "one", "one")).await.unwrap_err();
    assert_eq!(writer.execute(with_key(create("three"), "one", "three")).await, Ok(3));
    assert_eq!(writer.execute(with_key(create("four"), "two", "four")).await, Ok(4));
    assert_eq!(folder.sql("SELECT count(*) FROM handled"), "2\n");
}
