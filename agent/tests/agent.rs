//! What is pinned here, with the program itself in a network namespace, a real NATS server, and a control plane that
//! listens:
//! - a decision becomes a bridge and the bridge an outcome, for the right generation; what is not realised fails,
//!   saying so;
//! - the agent needs neither NATS nor the control plane at its start, and survives the loss of NATS;
//! - a restart keeps the node, begins an incarnation, touches nothing that is wanted and removes what no longer is;
//! - a report is repeated as it is until it is answered;
//! - a decision that it does not understand stops all changes and none of what runs;
//! - it stops on SIGTERM and leaves the bridges.

mod support;

use std::time::Duration;

use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::netns::{enter_new, link, sh};
use otherix_testkit::wait::wait_for;
use rustix::process::Signal;
use support::program::Program;
use support::{Control, created, deleted, network};

const DEADLINE: Duration = Duration::from_secs(20);

async fn expect(control: &Control, number: u16, generation: u64, outcome: Outcome) {
    wait_for(DEADLINE, "the outcome", async || {
        let seen = control.outcome(network(number));
        if seen == Some((Position::new(generation), outcome.clone())) { Ok(()) } else { Err(seen) }
    })
    .await;
}

#[tokio::test]
async fn from_decision_to_bridge_to_outcome() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let mut program = Program::start(server.url());
    control.decide(created(network(1), "br-app", None)).await;
    expect(&control, 1, 1, Outcome::Ready).await;
    let made = link("br-app").unwrap();
    assert_eq!((&made["linkinfo"]["info_kind"], &made["mtu"]), (&"bridge".into(), &1400.into()));
    assert_eq!(made["ifalias"], format!("otherix:{}:{}", control.cluster(), network(1)));

    control.decide(created(network(2), "br-vlan", Some(7))).await;
    wait_for(DEADLINE, "the failure", async || match control.outcome(network(2)) {
        Some((_, Outcome::Failed(text))) if text.contains("VLAN") => Ok(()),
        other => Err(other),
    })
    .await;
    assert!(link("br-vlan").is_none());

    wait_for(DEADLINE, "a sign of life", async || !control.heard().heartbeats.is_empty()).await;
    control.decide(deleted(network(1))).await;
    expect(&control, 1, 3, Outcome::Removed).await;
    assert!(link("br-app").is_none());

    assert!(program.stop(Signal::TERM).success());
}

#[tokio::test]
async fn a_restart_keeps_the_node_and_its_bridges_and_removes_what_is_no_longer_wanted() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let mut program = Program::start(server.url());
    control.decide(created(network(1), "br-one", None)).await;
    control.decide(created(network(2), "br-two", None)).await;
    expect(&control, 2, 2, Outcome::Ready).await;
    let kept = link("br-one").unwrap()["ifindex"].clone();
    program.stop(Signal::KILL);
    control.decide(deleted(network(2))).await;
    let foreign = format!("otherix:{}:{}", control.cluster(), network(9));
    sh(&format!("ip link add br-orphan type bridge\nip link set br-orphan alias {foreign}"));
    control.heard().reports.clear();

    program.again();

    expect(&control, 1, 1, Outcome::Ready).await;
    expect(&control, 2, 3, Outcome::Removed).await;
    wait_for(DEADLINE, "the orphan's removal", async || link("br-orphan").is_none()).await;
    assert_eq!(link("br-one").unwrap()["ifindex"], kept);
    let heard = control.heard();
    assert!(heard.reports.iter().all(|report| report.incarnation == 2));
}

#[tokio::test]
async fn it_needs_no_nats_at_its_start_and_survives_its_loss() {
    enter_new();
    let mut server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    control.decide(created(network(1), "br-app", None)).await;
    server.kill9();
    let program = Program::start(server.url());
    wait_for(DEADLINE, "the agent's start", async || program.log().contains("starting")).await;
    server.restart();
    expect(&control, 1, 1, Outcome::Ready).await;

    server.kill9();
    sh("ip link del br-app");
    wait_for(DEADLINE, "a repair without NATS", async || link("br-app").is_some()).await;
    server.restart();
    control.is_back().await;
    control.decide(created(network(2), "br-db", None)).await;
    expect(&control, 2, 2, Outcome::Ready).await;
}

#[tokio::test]
async fn a_report_is_repeated_as_it_is_until_it_is_answered() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    control.heard().ignore_reports = 1;
    let _program = Program::start(server.url());
    control.decide(created(network(1), "br-app", None)).await;
    wait_for(DEADLINE, "the report again", async || control.heard().reports.len() >= 2).await;
    control.decide(created(network(2), "br-db", None)).await;
    expect(&control, 2, 2, Outcome::Ready).await;
    let heard = control.heard();
    assert_eq!(heard.reports[0], heard.reports[1]);
    let numbers: Vec<_> = heard.reports.iter().map(|report| report.sequence).collect();
    assert_eq!(numbers, [1, 1, 2]);
}

#[tokio::test]
async fn a_decision_that_it_does_not_understand_stops_changes_and_nothing_else() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let program = Program::start(server.url());
    control.decide(created(network(1), "br-app", None)).await;
    expect(&control, 1, 1, Outcome::Ready).await;
    let envelope = control.record(deleted(network(1)));
    let newer =
        String::from_utf8(envelope.encode().unwrap()).unwrap().replace("network.deleted.v1", "network.painted.v9");
    control.publish("otherix.evt.v1.network.painted.x".to_owned(), newer.into_bytes()).await;
    control.decide(deleted(network(1))).await;

    wait_for(DEADLINE, "its complaint", async || program.log().contains("network.painted.v9")).await;
    let beats = control.heard().heartbeats.len();
    wait_for(DEADLINE, "another sign of life", async || control.heard().heartbeats.len() > beats).await;
    assert_eq!(control.heard().heartbeats.last(), Some(&Position::new(1)));
    assert!(link("br-app").is_some());
}
