//! Tests of the program with an epoch or a cluster that differs from its ledger:
//! - in a new epoch deletions are held, listed and counted, until `otherix-agent release`, which takes effect without a
//!   restart, is idempotent, and is persistent; creations and repairs continue meanwhile;
//! - the same if the epoch changed while the agent was not running, if the control plane has fewer decisions than the
//!   node, and for another cluster: the bridges of the former one are removed only after the release;
//! - a stream that is created again with the same events, or a gap in live events, holds no deletion and loses nothing.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use otherix_schemas::id::ClusterId;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::{Epoch, Position};
use otherix_testkit::nats::NatsServer;
use otherix_testkit::netns::{enter_new, ip_json, link, sh};
use otherix_testkit::wait::wait_for;
use rustix::process::Signal;
use support::Control;
use support::decisions::{created, deleted, network};
use support::program::Program;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(30);

async fn expect(control: &Control, number: u16, outcome: Outcome) {
    wait_for(DEADLINE, "the outcome", async || match control.outcome(network(number)) {
        Some((_, reported)) if reported == outcome => Ok(()),
        other => Err(other),
    })
    .await;
}

fn bridges() -> BTreeSet<String> {
    let links = ip_json(&["link", "show", "type", "bridge"]);
    links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
}

async fn expect_bridges(expected: &[&str]) {
    let expected: BTreeSet<_> = expected.iter().map(ToString::to_string).collect();
    wait_for(DEADLINE, "the bridges", async || {
        let existing = bridges();
        if existing == expected { Ok(()) } else { Err(existing) }
    })
    .await;
}

/// Returns the names of the devices with held deletions, from `held.json`.
fn held(program: &Program) -> Option<Vec<String>> {
    let text = fs::read_to_string(program.state().join("held.json")).ok()?;
    let held: serde_json::Value = serde_json::from_str(&text).unwrap();
    Some(held["devices"].as_array().unwrap().iter().map(|device| device["name"].as_str().unwrap().to_owned()).collect())
}

async fn expect_held(program: &Program, names: &[&str]) {
    wait_for(DEADLINE, "the held deletions", async || {
        let current = held(program);
        if current.as_ref().is_some_and(|current| current == names) { Ok(()) } else { Err(current) }
    })
    .await;
}

fn release(program: &Program) -> String {
    let output = program.release();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Starts a node with networks 1 to 3, created at positions 1 to 3.
async fn start_with_three_networks(server: &NatsServer) -> (Control, Program) {
    let control = Control::start(&server.url()).await;
    let program = Program::start(server.url());
    let networks = (1..=3).map(|number| created(network(number), &format!("br-{number}"), None));
    control.decide_all(networks.collect()).await;
    expect(&control, 3, Outcome::Ready).await;
    (control, program)
}

#[tokio::test]
async fn in_a_new_epoch_deletions_are_held_until_the_release() {
    enter_new();
    let server = NatsServer::start();
    let (control, mut program) = start_with_three_networks(&server).await;
    let pid = program.pid();
    assert_eq!(release(&program), format!("epoch 1 of cluster {} is already released\n", control.cluster()));

    // Network 3 is lost by the restore, network 1 is deleted in the new epoch.
    control.restore(2, 10).await;
    control.decide(deleted(network(1))).await;
    control.decide(created(network(4), "br-4", None)).await;
    expect(&control, 4, Outcome::Ready).await;
    expect_held(&program, &["br-1", "br-3"]).await;
    assert!(program.log().contains("count=2 devices=\"br-1, br-3\""), "the log lists them");
    wait_for(DEADLINE, "the pending deletion", async || match control.outcome(network(1)) {
        Some((_, Outcome::Pending(text))) if text.contains("held back") => Ok(()),
        other => Err(other),
    })
    .await;
    sh("ip link set br-2 mtu 1300");
    wait_for(DEADLINE, "a repair", async || link("br-2").unwrap()["mtu"] == 1400).await;
    assert_eq!(bridges().len(), 4);

    // A restart keeps the deletions held.
    program.stop(Signal::KILL);
    program.spawn();
    assert_ne!(program.pid(), pid);
    control.decide(created(network(5), "br-5", None)).await;
    expect(&control, 5, Outcome::Ready).await;
    expect_held(&program, &["br-1", "br-3"]).await;
    expect_bridges(&["br-1", "br-2", "br-3", "br-4", "br-5"]).await;

    let pid = program.pid();
    let output = release(&program);
    assert!(output.contains("epoch 2") && output.contains("br-1") && output.contains("br-3"), "{output}");
    expect_bridges(&["br-2", "br-4", "br-5"]).await;
    expect(&control, 1, Outcome::Removed).await;
    assert_eq!(release(&program), format!("epoch 2 of cluster {} is already released\n", control.cluster()));
    assert!(program.is_running() && program.pid() == pid && held(&program).is_none());
    // Later decisions of the released epoch need no release, not even after a restart.
    program.stop(Signal::KILL);
    program.spawn();
    control.decide(deleted(network(4))).await;
    expect_bridges(&["br-2", "br-5"]).await;
}

#[tokio::test]
async fn deletions_are_held_if_the_epoch_began_while_the_agent_was_not_running() {
    enter_new();
    let mut server = NatsServer::start();
    let (control, mut program) = start_with_three_networks(&server).await;
    assert!(program.stop(Signal::TERM).success());
    control.restore(2, 10).await;
    program.spawn();
    expect_held(&program, &["br-3"]).await;

    // The release is given while the agent does not run, and takes effect at its start.
    assert!(program.stop(Signal::TERM).success());
    assert!(release(&program).contains("br-3"));
    server.kill9();
    program.spawn();
    wait_for(DEADLINE, "the start", async || program.log_count("starting with the ledger") == 2).await;
    assert_eq!(bridges().len(), 3, "the current decisions are not known");
    server.restart();
    expect_bridges(&["br-1", "br-2"]).await;
}

#[tokio::test]
async fn deletions_are_held_if_the_control_plane_has_fewer_decisions_than_the_node() {
    enter_new();
    let server = NatsServer::start();
    let (control, program) = start_with_three_networks(&server).await;
    // As after a backup was copied back by hand: the same epoch with other decisions at the same positions.
    control.recreate_stream(1).await;
    control.decide(created(network(7), "br-7", None)).await;
    wait_for(DEADLINE, "the contradiction", async || program.log_count("contradicts what it has told this node") == 1)
        .await;
    assert_eq!(bridges().len(), 3, "nothing is changed");
    assert!(release(&program).starts_with("accepted another history"));
    expect(&control, 7, Outcome::Ready).await;
    expect_held(&program, &["br-2", "br-3"]).await;
    assert!(program.log().contains("reading all of them again"));
    assert!(release(&program).starts_with("released epoch 1"));
    expect_bridges(&["br-1", "br-7"]).await;
}

#[tokio::test]
async fn the_bridges_of_a_former_cluster_are_removed_only_after_the_release() {
    enter_new();
    let server = NatsServer::start();
    let (control, program) = start_with_three_networks(&server).await;
    // Another control plane at the same address.
    control.recreate_stream(0).await;
    control.state().cluster = ClusterId::new(Uuid::from_u128(2));
    control.decide(created(network(1), "br-1", None)).await;
    control.decide(created(network(8), "br-8", None)).await;
    expect(&control, 8, Outcome::Ready).await;
    expect_held(&program, &["br-1", "br-2", "br-3"]).await;
    assert!(matches!(control.outcome(network(1)), Some((_, Outcome::Failed(_)))), "{:?}", control.outcome(network(1)));
    release(&program);
    expect_bridges(&["br-1", "br-8"]).await;
    expect(&control, 1, Outcome::Ready).await;
    assert_eq!(link("br-1").unwrap()["ifalias"], format!("otherix:{}:{}", control.cluster(), network(1)));
}

#[tokio::test]
async fn events_of_an_earlier_epoch_are_not_applied() {
    enter_new();
    let server = NatsServer::start();
    let (control, program) = start_with_three_networks(&server).await;
    control.restore(3, 10).await;
    expect_held(&program, &[]).await;
    assert!(release(&program).starts_with("released epoch 2"));
    control.state().epoch = Epoch::FIRST;
    control.decide(deleted(network(2))).await;
    wait_for(DEADLINE, "the error in the log", async || {
        program.log_count("a head of epoch 1, and this node is in the later epoch 2") > 0
    })
    .await;
    sh("ip link del br-1");
    wait_for(DEADLINE, "a repair", async || link("br-1").is_some()).await;
    assert_eq!(bridges().len(), 3, "nothing is removed");
    assert!(release(&program).starts_with("accepted another history"));
    assert_eq!(bridges().len(), 3, "deletions are held");
}

#[tokio::test]
async fn a_recreated_stream_and_gaps_in_live_events_lose_nothing() {
    enter_new();
    let server = NatsServer::start();
    let (control, program) = start_with_three_networks(&server).await;
    control.recreate_stream(3).await;
    control.decide(deleted(network(3))).await;
    expect(&control, 3, Outcome::Removed).await;

    // Live events are lost, the last one too: the answer to the next heartbeat reveals it.
    control.republish(false).await;
    control.decide(created(network(4), "br-4", None)).await;
    expect(&control, 4, Outcome::Ready).await;
    // A live event is lost, and the next is received: it contains the position of the one before.
    control.decide(created(network(5), "br-5", None)).await;
    control.republish(true).await;
    control.decide(deleted(network(1))).await;
    expect_bridges(&["br-2", "br-4", "br-5"]).await;
    wait_for(DEADLINE, "a heartbeat", async || control.state().heartbeats.last() == Some(&Position::new(7))).await;
    assert!(held(&program).is_none() && !program.log().contains("holding all deletions back"));
}
