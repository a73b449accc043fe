//! What is pinned here, with the program itself, of a cluster that is not what the node knew:
//! - in a new epoch whatever is no longer wanted is held back, named and counted, until `otherix-agent release`, which
//!   takes
//!   effect without a restart, twice is the same as once, and is remembered; creations and repairs go on meanwhile;
//! - the same when the epoch changed while the agent was away, when the control plane knows less than the node, and for
//!   another cluster, whose predecessor's bridges go only with the release;
//! - a stream that is made anew with the same events, or a gap in the live feed, holds nothing back and loses nothing.
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
use support::program::Program;
use support::{Control, created, deleted, network};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(30);

async fn expect(control: &Control, number: u16, outcome: Outcome) {
    wait_for(DEADLINE, "the outcome", async || match control.outcome(network(number)) {
        Some((_, seen)) if seen == outcome => Ok(()),
        other => Err(other),
    })
    .await;
}

fn bridges() -> BTreeSet<String> {
    let links = ip_json(&["link", "show", "type", "bridge"]);
    links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
}

async fn bridges_are(wanted: &[&str]) {
    let wanted: BTreeSet<_> = wanted.iter().map(ToString::to_string).collect();
    wait_for(DEADLINE, "the bridges", async || {
        let seen = bridges();
        if seen == wanted { Ok(()) } else { Err(seen) }
    })
    .await;
}

/// The names of what is held back, as `held.json` has them.
fn held(program: &Program) -> Option<Vec<String>> {
    let text = fs::read_to_string(program.state().join("held.json")).ok()?;
    let held: serde_json::Value = serde_json::from_str(&text).unwrap();
    Some(held["devices"].as_array().unwrap().iter().map(|device| device["name"].as_str().unwrap().to_owned()).collect())
}

async fn held_are(program: &Program, names: &[&str]) {
    wait_for(DEADLINE, "what is held back", async || {
        let seen = held(program);
        if seen.as_ref().is_some_and(|seen| seen == names) { Ok(()) } else { Err(seen) }
    })
    .await;
}

fn release(program: &Program) -> String {
    let output = program.release();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Networks 1 to 3, at positions 1 to 3, on a node.
async fn three(server: &NatsServer) -> (Control, Program) {
    let control = Control::start(&server.url()).await;
    let program = Program::start(server.url());
    let networks = (1..=3).map(|number| created(network(number), &format!("br-{number}"), None));
    control.decide_all(networks.collect()).await;
    expect(&control, 3, Outcome::Ready).await;
    (control, program)
}

#[tokio::test]
async fn a_new_epoch_removes_nothing_until_an_operator_says_so() {
    enter_new();
    let server = NatsServer::start();
    let (control, mut program) = three(&server).await;
    let pid = program.pid();
    assert_eq!(release(&program), format!("epoch 1 of cluster {} is already released\n", control.cluster()));

    // Network 3 is given up by the restoration, network 1 by the new epoch.
    control.restore(2, 10).await;
    control.decide(deleted(network(1))).await;
    control.decide(created(network(4), "br-4", None)).await;
    expect(&control, 4, Outcome::Ready).await;
    held_are(&program, &["br-1", "br-3"]).await;
    assert!(program.log().contains("count=2 devices=\"br-1, br-3\""), "the log names them");
    wait_for(DEADLINE, "that it waits", async || match control.outcome(network(1)) {
        Some((_, Outcome::Pending(text))) if text.contains("held back") => Ok(()),
        other => Err(other),
    })
    .await;
    sh("ip link set br-2 mtu 1300");
    wait_for(DEADLINE, "a repair", async || link("br-2").unwrap()["mtu"] == 1400).await;
    assert_eq!(bridges().len(), 4);

    // The hold outlives the agent.
    program.stop(Signal::KILL);
    program.again();
    assert_ne!(program.pid(), pid);
    control.decide(created(network(5), "br-5", None)).await;
    expect(&control, 5, Outcome::Ready).await;
    held_are(&program, &["br-1", "br-3"]).await;
    bridges_are(&["br-1", "br-2", "br-3", "br-4", "br-5"]).await;

    let pid = program.pid();
    let said = release(&program);
    assert!(said.contains("epoch 2") && said.contains("br-1") && said.contains("br-3"), "{said}");
    bridges_are(&["br-2", "br-4", "br-5"]).await;
    expect(&control, 1, Outcome::Removed).await;
    assert_eq!(release(&program), format!("epoch 2 of cluster {} is already released\n", control.cluster()));
    assert!(program.runs() && program.pid() == pid && held(&program).is_none());
    // What is decided in the released epoch needs no release, and neither does a restart.
    program.stop(Signal::KILL);
    program.again();
    control.decide(deleted(network(4))).await;
    bridges_are(&["br-2", "br-5"]).await;
}

#[tokio::test]
async fn an_epoch_that_began_while_the_agent_was_away_is_held_too() {
    enter_new();
    let mut server = NatsServer::start();
    let (control, mut program) = three(&server).await;
    assert!(program.stop(Signal::TERM).success());
    control.restore(2, 10).await;
    program.again();
    held_are(&program, &["br-3"]).await;

    // Released while the agent does not run; and it needs nobody to act on it.
    assert!(program.stop(Signal::TERM).success());
    assert!(release(&program).contains("br-3"));
    server.kill9();
    program.again();
    wait_for(DEADLINE, "its start", async || program.said("starting with the ledger") == 2).await;
    assert_eq!(bridges().len(), 3, "whether it is still unwanted is not known");
    server.restart();
    bridges_are(&["br-1", "br-2"]).await;
}

#[tokio::test]
async fn a_control_plane_that_knows_less_than_the_node_is_not_followed_silently() {
    enter_new();
    let server = NatsServer::start();
    let (control, program) = three(&server).await;
    // A backup was put in place by hand: the same epoch, and other decisions at the same positions.
    control.recreate_stream(1).await;
    control.decide(created(network(7), "br-7", None)).await;
    expect(&control, 7, Outcome::Ready).await;
    held_are(&program, &["br-2", "br-3"]).await;
    assert!(program.log().contains("reading all of them again"));
    assert!(release(&program).starts_with("released epoch 1"));
    bridges_are(&["br-1", "br-7"]).await;
}

#[tokio::test]
async fn the_bridges_of_another_cluster_go_only_with_the_release() {
    enter_new();
    let server = NatsServer::start();
    let (control, program) = three(&server).await;
    // Another control plane at the same address.
    control.recreate_stream(0).await;
    control.heard().cluster = ClusterId::new(Uuid::from_u128(2));
    control.decide(created(network(1), "br-1", None)).await;
    control.decide(created(network(8), "br-8", None)).await;
    expect(&control, 8, Outcome::Ready).await;
    held_are(&program, &["br-1", "br-2", "br-3"]).await;
    assert!(matches!(control.outcome(network(1)), Some((_, Outcome::Failed(_)))), "{:?}", control.outcome(network(1)));
    release(&program);
    bridges_are(&["br-1", "br-8"]).await;
    expect(&control, 1, Outcome::Ready).await;
    assert_eq!(link("br-1").unwrap()["ifalias"], format!("otherix:{}:{}", control.cluster(), network(1)));
}

#[tokio::test]
async fn an_epoch_that_goes_backwards_is_not_followed_silently() {
    enter_new();
    let server = NatsServer::start();
    let (control, program) = three(&server).await;
    control.restore(3, 10).await;
    held_are(&program, &[]).await;
    assert!(release(&program).starts_with("released epoch 2"));
    control.heard().epoch = Epoch::FIRST;
    control.decide(deleted(network(2))).await;
    wait_for(DEADLINE, "its complaint", async || {
        program.said("is of epoch 1, and the ledger is in the later epoch 2") > 0
    })
    .await;
    sh("ip link del br-1");
    wait_for(DEADLINE, "a repair", async || link("br-1").is_some()).await;
    assert_eq!(bridges().len(), 3, "nothing is removed");
    let output = program.release();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("try again later"));
}

#[tokio::test]
async fn a_stream_that_is_made_anew_and_gaps_in_the_live_feed_do_no_harm() {
    enter_new();
    let server = NatsServer::start();
    let (control, program) = three(&server).await;
    control.recreate_stream(3).await;
    control.decide(deleted(network(3))).await;
    expect(&control, 3, Outcome::Removed).await;

    // Lost, the last one as well: the next sign of life tells.
    control.republish(false).await;
    control.decide(created(network(4), "br-4", None)).await;
    expect(&control, 4, Outcome::Ready).await;
    // Lost, and one that is not: it names the one before.
    control.decide(created(network(5), "br-5", None)).await;
    control.republish(true).await;
    control.decide(deleted(network(1))).await;
    bridges_are(&["br-2", "br-4", "br-5"]).await;
    wait_for(DEADLINE, "a sign of life", async || control.heard().heartbeats.last() == Some(&Position::new(7))).await;
    assert!(held(&program).is_none() && !program.log().contains("holding all deletions back"));
}
