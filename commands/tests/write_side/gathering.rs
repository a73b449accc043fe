//! What nodes say of the same network is stored together, and nobody waits for long.

use std::collections::BTreeSet;

use otherix_commands::store::MemoryStore;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::command::Command;
use otherix_schemas::event::Event;
use otherix_schemas::id::NodeId;
use otherix_schemas::node::NodeEvent;
use otherix_schemas::outcome::Outcome;

use super::support::{DEADLINE, Running, ask, memory_store};
use super::things::{create, create_vm, join, managed, nic_outcome, node_id, outcome, presence, report};

/// How often it is tried whether something is held: a machine that is busy may let the time for that pass between two
/// lines.
const ATTEMPTS: u64 = 100;

/// How often something that is not to be held must not be: here the same machine may let it look so.
const TIMES: u64 = 10;

type Lab = Running<MemoryStore>;

/// Three nodes.
async fn cluster() -> Lab {
    let lab = Running::start(memory_store()).await;
    for node in 1..=3 {
        lab.execute(ask(join(node, &format!("node-{node}")))).await.unwrap();
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
    lab.execute(ask(bridge_network(number))).await.unwrap()
}

fn ready(node: u128, network: u64, generation: u64) -> Command {
    report(node, 1, network, [outcome(network.into(), generation, Outcome::Ready)])
}

/// Whose words are in the last batch.
fn last_batch(lab: &Lab) -> BTreeSet<NodeId> {
    let (_, batch) = lab.journal.faults().appends().pop().unwrap();
    let events = batch.entries.iter().map(|entry| EventEnvelope::decode(&entry.body).unwrap().event);
    events
        .filter_map(
            |event| if let Event::Node(NodeEvent::Reconciled(event)) = event { Some(event.node_id) } else { None },
        )
        .collect()
}

#[tokio::test]
async fn the_first_report_waits_for_the_last() {
    let lab = cluster().await;
    for attempt in 1..=ATTEMPTS {
        let generation = create_one(&lab, attempt).await;
        let before = lab.journal.faults().appends().len();
        let mut words = Vec::new();
        let mut stored_early = false;
        for node in 1..=3 {
            stored_early |= lab.journal.faults().appends().len() > before;
            words.push(lab.begin(ask(ready(node, attempt, generation))));
            go_on().await;
        }
        let stored_at_once = lab.journal.faults().appends().len() == before + 1;
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
async fn a_single_report_is_stored_after_the_wait() {
    let lab = cluster().await;
    let generation = create_one(&lab, 1).await;

    let word = tokio::time::timeout(DEADLINE, lab.execute(ask(ready(2, 1, generation)))).await;

    word.expect("nobody else says anything").unwrap();
    assert_eq!(last_batch(&lab), [node_id(2)].into());
}

/// Says node 1's word on a network, and then this, which may be refused. Gives whether the word was held, and whether
/// it was stored at once then.
async fn word_and(lab: &Lab, number: u64, then: Option<Command>) -> (bool, bool) {
    let generation = create_one(lab, number).await;
    let before = lab.journal.faults().appends().len();
    let word = lab.begin(ask(ready(1, number, generation)));
    go_on().await;
    let was_held = lab.journal.faults().appends().len() == before;
    let then = then.map(|command| lab.begin(ask(command)));
    go_on().await;
    let is_stored = lab.journal.faults().appends().len() > before;
    word.await.unwrap().unwrap();
    if let Some(answer) = then {
        let _maybe_refused = answer.await.unwrap();
    }
    (was_held, is_stored)
}

/// What comes behind a word that is held has it stored at once. `then` gives it for an attempt.
async fn ends_the_waiting(then: impl Fn(u64) -> Command) {
    let lab = cluster().await;
    let mut held = 0;
    for attempt in 1..=ATTEMPTS {
        let (was_held, is_stored) = word_and(&lab, attempt, Some(then(attempt))).await;
        assert!(is_stored, "attempt {attempt}");
        held += u64::from(was_held);
        if held == TIMES {
            return;
        }
    }
    panic!("only {held} of {ATTEMPTS} words were held");
}

#[tokio::test]
async fn a_command_ends_the_wait_for_reports() {
    ends_the_waiting(|attempt| bridge_network(ATTEMPTS + attempt)).await;
}

#[tokio::test]
async fn a_rejected_command_ends_the_wait_for_reports() {
    // There is such a network.
    ends_the_waiting(bridge_network).await;
}

#[tokio::test]
async fn reports_of_unreachable_nodes_are_not_awaited() {
    let lab = cluster().await;
    lab.execute(ask(presence(&[2, 3], &[]))).await.unwrap();
    for time in 1..=TIMES {
        let (_, is_stored) = word_and(&lab, time, None).await;
        assert!(is_stored, "time {time}");
    }
}

#[tokio::test]
async fn a_report_on_a_nic_is_not_held_back() {
    let lab = cluster().await;
    let network = create_one(&lab, 1).await;
    for node in 1..=3 {
        // Nothing more is to be said of the network.
        let word = report(node, 1, 1, [outcome(1, network, Outcome::Ready)]);
        lab.begin(ask(word));
    }
    for time in 1..=TIMES {
        let other = create_one(&lab, 1 + time).await;
        let attached = lab.execute(ask(create_vm(time.into(), Some(1), Some(1)))).await.unwrap();
        let before = lab.journal.faults().appends().len();
        let results =
            [outcome((1 + time).into(), other, Outcome::Ready), nic_outcome(time.into(), attached, Outcome::Ready)];
        let word = lab.begin(ask(report(1, 1, 1 + time, results)));
        go_on().await;
        assert!(lab.journal.faults().appends().len() > before, "time {time}");
        word.await.unwrap().unwrap();
    }
}
