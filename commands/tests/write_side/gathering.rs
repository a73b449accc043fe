//! Nodes' reports on the same network are stored in one batch, and none of them is delayed for long.

use std::collections::BTreeSet;

use otherix_commands::store::MemoryStore;
use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::command::Command;
use otherix_schemas::event::Event;
use otherix_schemas::id::NodeId;
use otherix_schemas::node::NodeEvent;
use otherix_schemas::outcome::Outcome;

use super::builders::{create, create_vm, join, managed, nic_outcome, node_id, outcome, presence, report};
use super::support::{DEADLINE, RunningWriter, memory_store, request};

/// Attempts to observe that a report is held back: on a busy machine, the wait may be over before the next statement.
const ATTEMPTS: u64 = 100;

/// Checks that a report is not held back: on a busy machine, a single one could pass by chance.
const TIMES: u64 = 10;

/// A writer with three nodes.
async fn cluster() -> RunningWriter<MemoryStore> {
    let writer = RunningWriter::start(memory_store()).await;
    for node in 1..=3 {
        writer.execute(request(join(node, &format!("node-{node}")))).await.unwrap();
    }
    writer
}

/// Lets the other tasks run until they have to wait.
async fn yield_to_others() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn append_count(writer: &RunningWriter<MemoryStore>) -> usize {
    writer.journal.faults().append_count()
}

/// Creates a network on a bridge of its own.
fn bridge_network(number: u64) -> Command {
    create(number.into(), &format!("net-{number}"), managed(&format!("br{number}")))
}

/// Creates a network. Returns its generation.
async fn create_network(writer: &RunningWriter<MemoryStore>, number: u64) -> u64 {
    writer.execute(request(bridge_network(number))).await.unwrap()
}

fn ready(node: u128, network: u64, generation: u64) -> Command {
    report(node, 1, network, [outcome(network.into(), generation, Outcome::Ready)])
}

/// The nodes whose reports are in the last batch.
fn last_batch(writer: &RunningWriter<MemoryStore>) -> BTreeSet<NodeId> {
    let (_, batch) = writer.journal.faults().appends().pop().unwrap();
    let events = batch.entries.iter().map(|entry| EventEnvelope::decode(&entry.body).unwrap().event);
    events
        .filter_map(
            |event| if let Event::Node(NodeEvent::Reconciled(event)) = event { Some(event.node_id) } else { None },
        )
        .collect()
}

#[tokio::test]
async fn the_first_report_waits_for_the_last() {
    let writer = cluster().await;
    for attempt in 1..=ATTEMPTS {
        let generation = create_network(&writer, attempt).await;
        let before = append_count(&writer);
        let mut answers = Vec::new();
        let mut stored_early = false;
        for node in 1..=3 {
            stored_early |= append_count(&writer) > before;
            answers.push(writer.begin(request(ready(node, attempt, generation))));
            yield_to_others().await;
        }
        let stored_at_once = append_count(&writer) == before + 1;
        for answer in answers {
            answer.await.unwrap().unwrap();
        }
        if !stored_early && stored_at_once {
            assert_eq!(last_batch(&writer), [1, 2, 3].map(node_id).into());
            return;
        }
    }
    panic!("in {ATTEMPTS} attempts the reports never shared a batch that was stored right after the last one");
}

#[tokio::test]
async fn a_single_report_is_stored_after_the_wait() {
    let writer = cluster().await;
    let generation = create_network(&writer, 1).await;

    let answer = tokio::time::timeout(DEADLINE, writer.execute(request(ready(2, 1, generation)))).await;

    answer.expect("a report that is not followed by others is stored").unwrap();
    assert_eq!(last_batch(&writer), [node_id(2)].into());
}

/// Submits node 1's report on a new network, and then a command, which may be rejected. Returns whether the report was
/// held back before the command, and whether it was stored after it without further wait.
async fn report_and(writer: &RunningWriter<MemoryStore>, number: u64, then: Option<Command>) -> (bool, bool) {
    let generation = create_network(writer, number).await;
    let before = append_count(writer);
    let reported = writer.begin(request(ready(1, number, generation)));
    yield_to_others().await;
    let was_held = append_count(writer) == before;
    let then = then.map(|command| writer.begin(request(command)));
    yield_to_others().await;
    let is_stored = append_count(writer) > before;
    reported.await.unwrap().unwrap();
    if let Some(answer) = then {
        let _maybe_rejected = answer.await.unwrap();
    }
    (was_held, is_stored)
}

/// Asserts that a report which is held back is stored as soon as another command arrives: `then` returns it for an
/// attempt.
async fn assert_ends_the_wait(then: impl Fn(u64) -> Command) {
    let writer = cluster().await;
    let mut held = 0;
    for attempt in 1..=ATTEMPTS {
        let (was_held, is_stored) = report_and(&writer, attempt, Some(then(attempt))).await;
        assert!(is_stored, "attempt {attempt}");
        held += u64::from(was_held);
        if held == TIMES {
            return;
        }
    }
    panic!("only {held} of {ATTEMPTS} reports were held back");
}

#[tokio::test]
async fn a_command_ends_the_wait_for_reports() {
    assert_ends_the_wait(|attempt| bridge_network(ATTEMPTS + attempt)).await;
}

#[tokio::test]
async fn a_rejected_command_ends_the_wait_for_reports() {
    // The network exists already.
    assert_ends_the_wait(bridge_network).await;
}

#[tokio::test]
async fn reports_of_unreachable_nodes_are_not_awaited() {
    let writer = cluster().await;
    writer.execute(request(presence(&[2, 3], &[]))).await.unwrap();
    for time in 1..=TIMES {
        let (_, is_stored) = report_and(&writer, time, None).await;
        assert!(is_stored, "time {time}");
    }
}

#[tokio::test]
async fn a_report_on_a_nic_is_not_held_back() {
    let writer = cluster().await;
    let network = create_network(&writer, 1).await;
    for node in 1..=3 {
        // No further reports on this network are awaited.
        writer.begin(request(report(node, 1, 1, [outcome(1, network, Outcome::Ready)])));
    }
    for time in 1..=TIMES {
        let other = create_network(&writer, 1 + time).await;
        let attached = writer.execute(request(create_vm(time.into(), Some(1), Some(1)))).await.unwrap();
        let before = append_count(&writer);
        let results =
            [outcome((1 + time).into(), other, Outcome::Ready), nic_outcome(time.into(), attached, Outcome::Ready)];
        let answer = writer.begin(request(report(1, 1, 1 + time, results)));
        yield_to_others().await;
        assert!(append_count(&writer) > before, "time {time}");
        answer.await.unwrap().unwrap();
    }
}
