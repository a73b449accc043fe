//! Tests of the program on a node that is removed from its cluster:
//! - it removes all devices of ours, known or not, changes no others, and creates nothing that is decided later;
//! - it logs once that it was removed, and once that it is refused and what to do, and reports nothing more;
//! - the same after a restart, from its ledger; the removal of another node has no effect.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::fs;
use std::time::Duration;

use otherix_schemas::event::Event;
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{NodeEvent, NodeRemoved};
use otherix_schemas::outcome::Outcome;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::netns::{enter_new, ip_json, link, sh};
use otherix_testkit::wait::wait_for;
use rustix::process::Signal;
use support::Control;
use support::decisions::{created, network};
use support::program::Program;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(30);

const REMOVED: &str = "this node was removed from the cluster";
const REFUSED: &str = "the cluster refuses this node permanently";

fn removal(node_id: NodeId) -> Event {
    Event::Node(NodeEvent::Removed(NodeRemoved { node_id, name: "node-1".parse().unwrap() }))
}

async fn expect_ready(control: &Control, number: u16) {
    wait_for(DEADLINE, "the outcome", async || match control.outcome(network(number)) {
        Some((_, Outcome::Ready)) => Ok(()),
        other => Err(other),
    })
    .await;
}

async fn expect_removed(name: &str) {
    wait_for(DEADLINE, name, async || link(name).is_none()).await;
}

/// A node that was removed while it was off cannot learn of it. An operator tells it; a control plane that accepts it
/// counts more.
#[tokio::test]
async fn a_node_that_has_left_removes_its_devices_without_a_control_plane() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let mut program = Program::start(server.url());
    wait_for(DEADLINE, "the state folder", async || program.log_count("starting") > 0).await;
    let running = program.leave();
    assert!(!running.status.success(), "{running:?}");
    assert!(String::from_utf8_lossy(&running.stderr).contains("stop the agent first"), "{running:?}");
    let networks = (1..=2).map(|number| created(network(number), &format!("br-{number}"), None));
    control.decide_all(networks.collect()).await;
    let bridges = || ip_json(&["link", "show", "type", "bridge"]).as_array().unwrap().len();
    wait_for(DEADLINE, "the bridges", async || bridges() == 2).await;
    let ledger = program.state().join("ledger.json");
    wait_for(DEADLINE, "the ledger", async || std::fs::read_to_string(&ledger).is_ok_and(|it| it.contains("br-2")))
        .await;
    program.stop(Signal::KILL);
    assert!(program.leave().status.success());
    // Accepted, it goes on.
    program.spawn();
    wait_for(DEADLINE, "a line", async || program.log_count("still accepts this node") == 1).await;
    wait_for(DEADLINE, "the bridges", async || bridges() == 2).await;
    assert!(!program.state().join("left").exists());

    program.stop(Signal::KILL);
    assert!(program.leave().status.success());
    drop((control, server));
    program.spawn();
    wait_for(DEADLINE, "no bridge", async || bridges() == 0).await;
    assert!(program.status().contains("otherix-agent leave"), "{}", program.status());
}

/// What tells devices of ours is the cluster, which the state folder says without the ledger, too.
#[tokio::test]
async fn a_node_that_has_left_removes_its_devices_without_a_ledger() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let mut program = Program::start(server.url());
    control.decide(created(network(1), "br-1", None)).await;
    expect_ready(&control, 1).await;
    wait_for(DEADLINE, "the ledger", async || program.state().join("ledger.json").exists()).await;
    program.stop(Signal::KILL);
    drop((control, server));
    for damaged in [false, true] {
        let ledger = program.state().join("ledger.json");
        if damaged {
            fs::write(&ledger, "damaged").unwrap();
            let alias = format!("otherix:{}:{}", Uuid::from_u128(1), network(9));
            sh(&format!("ip link add br-9 type bridge\nip link set br-9 alias {alias}"));
        } else {
            fs::remove_file(&ledger).unwrap();
        }
        let left = program.leave();
        assert!(left.status.success(), "{left:?}");
        program.spawn();
        expect_removed(if damaged { "br-9" } else { "br-1" }).await;
        program.stop(Signal::KILL);
    }
    // Without anything that says of which cluster it was, it says that it cannot.
    fs::remove_file(program.state().join("released.json")).unwrap();
    let unknown = program.leave();
    let error = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && error.contains("remove the devices by hand"), "{error}");
}

#[tokio::test]
async fn a_removed_node_removes_its_devices_and_logs_once_why_it_is_refused() {
    enter_new();
    let mut server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let mut program = Program::start(server.url());
    sh("ip link add br-other type bridge");
    control.decide(created(network(1), "br-1", None)).await;
    expect_ready(&control, 1).await;
    let node = *control.state().joins.first().unwrap();

    // The removal of another node has no effect.
    control.decide(removal(NodeId::new(Uuid::from_u128(7)))).await;
    control.decide(created(network(2), "br-2", None)).await;
    expect_ready(&control, 2).await;
    assert_eq!(program.log_count(REMOVED), 0);

    let reports = control.state().reports.len();
    control.decide(removal(node)).await;
    wait_for(DEADLINE, "the removal in the log", async || program.log_count(REMOVED) > 0).await;
    control.state().refuses_removed = true;
    expect_removed("br-1").await;
    expect_removed("br-2").await;
    wait_for(DEADLINE, "the refusal in the log", async || program.log_count(REFUSED) > 0).await;
    assert!(program.log().contains("empty its state folder"), "the log contains a hint");
    assert!(!program.log().contains("otherix-agent leave"), "it knows: {}", program.log());
    // Later decisions create nothing.
    control.decide(created(network(3), "br-3", None)).await;

    // After a reconnect it joins again, and logs nothing new.
    let joins = control.state().joins.len();
    server.kill9();
    server.restart();
    wait_for(DEADLINE, "another attempt", async || control.state().joins.len() > joins).await;
    assert_eq!((program.log_count(REMOVED), program.log_count(REFUSED)), (1, 1));
    assert!(link("br-3").is_none() && link("br-other").is_some());
    assert_eq!(program.log_count("a report was refused"), 0);
    assert_eq!(control.state().reports.len(), reports);

    program.stop(Signal::KILL);
    let alias = format!("otherix:{}:{}", control.cluster(), network(99));
    sh(&format!("ip link add br-orphan type bridge\nip link set br-orphan alias {alias}"));
    program.spawn();
    expect_removed("br-orphan").await;
    wait_for(DEADLINE, "the refusal in the log", async || program.log_count(REFUSED) == 2).await;
    assert!(program.is_running());
    assert_eq!((program.log_count(REMOVED), link("br-3")), (2, None));
    assert!(link("br-other").is_some());
}
