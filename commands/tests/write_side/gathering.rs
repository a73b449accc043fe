//! What nodes say of the same network is stored together, and nobody waits for long.

use std::collections::BTreeSet;

use otherix_schemas::cloudevent::Recorded;
use otherix_schemas::command::Command;
use otherix_schemas::event::Event;
use otherix_schemas::id::NodeId;
use otherix_schemas::outcome::Outcome;

use super::faulty::FaultyJournal;
use super::support::{Place, Running, ask};
use super::things::{create, join, managed, node_id, outcome, presence, report};

/// How often it is tried: a machine that is busy may let the time for gathering pass between two lines.
const ATTEMPTS: u64 = 100;

type Lab = Running<FaultyJournal>;

/// Three nodes.
async fn cluster(place: &Place) -> Lab {
    let lab = Running::start(FaultyJournal::new(place.open().await)).await;
    for node in 1..=3 {
        lab.ask(ask(join(node, &format!("node-{node}")))).await.unwrap();
    }
    lab
}

/// Lets everybody go on who can go on at once.
async fn go_on() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// To make a network on a bridge of its own.
fn bridge_network(number: u64) -> Command {
    create(number.into(), &format!("net-{number}"), managed(&format!("br{number}")))
}

/// Makes one, and gives its generation.
async fn create_one(lab: &Lab, number: u64) -> u64 {
    lab.ask(ask(bridge_network(number))).await.unwrap()
}

fn ready(node: u128, network: u64, generation: u64) -> Command {
    report(node, 1, network, [outcome(network.into(), generation, Outcome::Ready)])
}

/// Whose words are in the last batch.
fn last_batch(lab: &Lab) -> BTreeSet<NodeId> {
    let (_, batch) = lab.journal.batches().pop().unwrap();
    let events = batch.entries.iter().map(|entry| Recorded::decode(&entry.body).unwrap().event);
    events
        .filter_map(|event| if let Event::NodeReconciled(event) = event { Some(event.node_id) } else { None })
        .collect()
}

#[tokio::test]
async fn the_first_word_waits_for_the_last() {
    let place = Place::new();
    let lab = cluster(&place).await;
    for attempt in 1..=ATTEMPTS {
        let generation = create_one(&lab, attempt).await;
        let before = lab.journal.batches().len();
        let mut words = Vec::new();
        let mut stored_early = false;
        for node in 1..=3 {
            stored_early |= lab.journal.batches().len() > before;
            words.push(lab.begin(ask(ready(node, attempt, generation))));
            go_on().await;
        }
        let stored_at_once = lab.journal.batches().len() == before + 1;
        for word in words {
            word.await.unwrap().unwrap();
        }
        if !stored_early && stored_at_once {
            assert_eq!(last_batch(&lab), [1, 2, 3].map(node_id).into());
            return;
        }
    }
    panic!("{ATTEMPTS} times the words were stored one by one, or long after the last had come");
}

#[tokio::test]
async fn a_word_that_stays_alone_is_stored_all_the_same() {
    let place = Place::new();
    let lab = cluster(&place).await;
    let generation = create_one(&lab, 1).await;

    lab.ask(ask(ready(2, 1, generation))).await.unwrap();

    assert_eq!(last_batch(&lab), [node_id(2)].into());
}

#[tokio::test]
async fn a_command_does_not_wait_for_words() {
    let place = Place::new();
    let lab = cluster(&place).await;
    for attempt in 1..=ATTEMPTS {
        let generation = create_one(&lab, attempt).await;
        let before = lab.journal.batches().len();
        let word = lab.begin(ask(ready(1, attempt, generation)));
        go_on().await;
        let was_held = lab.journal.batches().len() == before;
        let command = lab.begin(ask(bridge_network(ATTEMPTS + attempt)));
        go_on().await;
        let is_stored = lab.journal.batches().len() > before;
        word.await.unwrap().unwrap();
        command.await.unwrap().unwrap();
        if was_held && is_stored {
            return;
        }
    }
    panic!("{ATTEMPTS} times the command was not stored at once, or the word was");
}

#[tokio::test]
async fn nobody_waits_for_a_node_that_is_unreachable() {
    let place = Place::new();
    let lab = cluster(&place).await;
    lab.ask(ask(presence(&[2, 3], &[]))).await.unwrap();
    for attempt in 1..=ATTEMPTS {
        let generation = create_one(&lab, attempt).await;
        let before = lab.journal.batches().len();
        let word = lab.begin(ask(ready(1, attempt, generation)));
        go_on().await;
        let is_stored = lab.journal.batches().len() > before;
        word.await.unwrap().unwrap();
        if is_stored {
            return;
        }
    }
    panic!("{ATTEMPTS} times the word was not stored at once");
}
