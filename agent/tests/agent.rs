//! Tests of the program in a network namespace, with a NATS server and a simulated control plane:
//! - a decision leads to a bridge and to an outcome for its generation; what the node cannot provide fails with an
//!   error;
//! - the agent starts without NATS or the control plane, and survives the loss of NATS;
//! - after a restart it is the same node with a new incarnation, keeps what is required and removes what is not;
//! - a report is repeated unchanged until it is answered;
//! - an unknown decision stops all changes, and the agent continues to run;
//! - SIGTERM stops the agent, and its bridges remain.

mod support;

use std::time::Duration;

use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::netns::{enter_new, link, sh};
use otherix_testkit::wait::wait_for;
use rustix::process::Signal;
use support::Control;
use support::decisions::{created, deleted, network};
use support::program::Program;

const DEADLINE: Duration = Duration::from_secs(20);

async fn expect(control: &Control, number: u16, generation: u64, outcome: Outcome) {
    wait_for(DEADLINE, "the outcome", async || {
        let reported = control.outcome(network(number));
        if reported == Some((Position::new(generation), outcome.clone())) { Ok(()) } else { Err(reported) }
    })
    .await;
}

#[tokio::test]
async fn a_decision_leads_to_a_bridge_and_an_outcome() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let mut program = Program::start(server.url());
    control.decide(created(network(1), "br-app", None)).await;
    expect(&control, 1, 1, Outcome::Ready).await;
    let bridge = link("br-app").unwrap();
    assert_eq!((&bridge["linkinfo"]["info_kind"], &bridge["mtu"]), (&"bridge".into(), &1400.into()));
    assert_eq!(bridge["ifalias"], format!("otherix:{}:{}", control.cluster(), network(1)));

    control.decide(created(network(2), "br-vlan", Some(7))).await;
    wait_for(DEADLINE, "the failure", async || match control.outcome(network(2)) {
        Some((_, Outcome::Failed(text))) if text.contains("VLAN") => Ok(()),
        other => Err(other),
    })
    .await;
    assert!(link("br-vlan").is_none());

    wait_for(DEADLINE, "a heartbeat", async || !control.state().heartbeats.is_empty()).await;
    control.decide(deleted(network(1))).await;
    expect(&control, 1, 3, Outcome::Removed).await;
    assert!(link("br-app").is_none());

    assert!(program.stop(Signal::TERM).success());
}

#[tokio::test]
async fn a_restart_keeps_the_node_and_its_bridges_and_removes_what_is_no_longer_required() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let mut program = Program::start(server.url());
    control.decide(created(network(1), "br-one", None)).await;
    control.decide(created(network(2), "br-two", None)).await;
    expect(&control, 2, 2, Outcome::Ready).await;
    let index = link("br-one").unwrap()["ifindex"].clone();
    program.stop(Signal::KILL);
    control.decide(deleted(network(2))).await;
    let alias = format!("otherix:{}:{}", control.cluster(), network(9));
    sh(&format!("ip link add br-orphan type bridge\nip link set br-orphan alias {alias}"));
    control.state().reports.clear();

    program.spawn();

    expect(&control, 1, 1, Outcome::Ready).await;
    expect(&control, 2, 3, Outcome::Removed).await;
    wait_for(DEADLINE, "the orphan's removal", async || link("br-orphan").is_none()).await;
    assert_eq!(link("br-one").unwrap()["ifindex"], index);
    let state = control.state();
    assert!(state.reports.iter().all(|report| report.incarnation > 1));
}

#[tokio::test]
async fn it_starts_without_nats_and_survives_its_loss() {
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
    control.wait_for_stream().await;
    control.decide(created(network(2), "br-db", None)).await;
    expect(&control, 2, 2, Outcome::Ready).await;
}

#[tokio::test]
async fn a_report_is_repeated_unchanged_until_it_is_answered() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    control.state().ignore_reports = 1;
    let _program = Program::start(server.url());
    control.decide(created(network(1), "br-app", None)).await;
    wait_for(DEADLINE, "the repeated report", async || control.state().reports.len() >= 2).await;
    control.decide(created(network(2), "br-db", None)).await;
    expect(&control, 2, 2, Outcome::Ready).await;
    let state = control.state();
    assert_eq!(state.reports[0], state.reports[1]);
    let sequences: Vec<_> = state.reports.iter().map(|report| report.sequence).collect();
    assert_eq!(sequences, [1, 1, 2]);
}

#[tokio::test]
async fn an_unknown_decision_stops_changes_and_nothing_else() {
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

    wait_for(DEADLINE, "the error in the log", async || program.log().contains("network.painted.v9")).await;
    let heartbeats = control.state().heartbeats.len();
    wait_for(DEADLINE, "another heartbeat", async || control.state().heartbeats.len() > heartbeats).await;
    assert_eq!(control.state().heartbeats.last(), Some(&Position::new(1)));
    assert!(link("br-app").is_some());
}
