//! Promises of idempotency keys: a success is given again byte for byte for 24 hours, also after a restart, to the same
//! user for the same request; a refusal is not remembered.

use otherix_commands::store::EventStore;
use otherix_commands::writer::{CommandRequest, Refusal};

use super::support::{Place, Running, assert_unanswered, create, join, memory_store, with_key};
use otherix_commands::store::memory::Fault;

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer() {
    let place = Place::new();
    let lab = Running::start(place.open().await).await;
    let first = lab.asks.execute(with_key(create("a"), "k", "a")).await.unwrap();
    assert_eq!(lab.asks.execute(with_key(create("a"), "k", "a")).await.unwrap(), first);
    assert_eq!(lab.execute(with_key(create("b"), "k", "b")).await, Err(Refusal::KeyReused));
    let another = CommandRequest { actor: "another".parse().unwrap(), ..with_key(create("b"), "k", "b") };
    assert_eq!(lab.execute(another).await, Ok(2), "keys are each user's own");
    let journal = lab.stop().await;
    journal.close().await;
    drop(journal);

    let again = Running::start(place.open().await).await;

    assert_eq!(again.asks.execute(with_key(create("a"), "k", "a")).await.unwrap(), first);
    assert_eq!(again.execute(with_key(create("c"), "k", "c")).await, Err(Refusal::KeyReused));
    assert_eq!(again.journal.head().await.unwrap().get(), 2);
}

#[tokio::test]
async fn a_rejection_is_not_recorded_under_a_key() {
    let place = Place::new();
    let lab = Running::start(place.open().await).await;
    lab.execute(create("a")).await.unwrap();
    lab.execute(with_key(create("a"), "k", "a")).await.unwrap_err();
    assert_eq!(lab.execute(with_key(create("b"), "k", "b")).await, Ok(2));
}

#[tokio::test]
async fn a_repeated_answer_waits_for_the_batch_it_depends_on() {
    let lab = Running::start(memory_store()).await;
    for (fault, name) in [(Fault::None, "kept"), (Fault::NotStored, "lost")] {
        let before = lab.journal.faults().appends().len();
        lab.journal.faults().hold();
        lab.journal.faults().inject(fault);
        let first = lab.begin(with_key(create(name), name, name));
        lab.journal.faults().wait_appends(before + 1).await;
        let mut again = lab.begin(with_key(create(name), name, name));
        let mut other = lab.begin(with_key(create(name), name, "other"));
        assert_unanswered(&mut again).await;
        assert_unanswered(&mut other).await;
        lab.journal.faults().release();
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
                lab.execute(with_key(create(name), name, "anything")).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_success_without_events_is_recorded_under_its_key() {
    let lab = Running::start(memory_store()).await;
    let node = join("node-1");
    lab.execute(node.clone()).await.unwrap();
    lab.journal.faults().inject(Fault::StoredUnconfirmed);
    // Joining again changes nothing; the head cannot tell whether the answer was stored.
    lab.execute(with_key(node.clone(), "k", "join")).await.unwrap_err();
    let answer = lab.asks.execute(with_key(node.clone(), "k", "join")).await.unwrap();
    lab.execute(create("a")).await.unwrap();
    assert_eq!(lab.asks.execute(with_key(node, "k", "join")).await.unwrap(), answer);
}

#[tokio::test]
async fn a_key_expires_after_24_hours() {
    let place = Place::new();
    let lab = Running::start(place.open().await).await;
    for key in ["one", "two"] {
        lab.execute(with_key(create(key), key, key)).await.unwrap();
    }
    let journal = lab.stop().await;
    journal.close().await;
    drop(journal);
    place.sql("UPDATE handled SET at = at - 25 * 3600 * 1000000");

    let lab = Running::start(place.open().await).await;

    // First a refusal, which forgets the keys in memory alone; then the keys themselves.
    lab.execute(with_key(create("one"), "one", "one")).await.unwrap_err();
    assert_eq!(lab.execute(with_key(create("three"), "one", "three")).await, Ok(3));
    assert_eq!(lab.execute(with_key(create("four"), "two", "four")).await, Ok(4));
    assert_eq!(place.sql("SELECT count(*) FROM handled"), "2\n");
}
