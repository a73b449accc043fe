//! Tests of the program in a network namespace, with a simulated control plane:
//! - a node that was set back to an older copy of its state takes a newer incarnation than the recorded one, and
//!   reports everything again;
//! - so does one whose incarnation is out of range;
//! - a duplicate of its own report is none of this;
//! - of another agent that uses the node's id, log and `otherix-agent status` tell;
//! - a second agent in the same network namespace does not start, and says which one is running; one in another network
//!   namespace starts.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

mod support;

use std::fs;
use std::time::Duration;

use otherix_schemas::node::{NodeReport, ReportNumber};
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::netns::{enter_new, link};
use otherix_testkit::wait::wait_for;
use rustix::process::Signal;
use support::Control;
use support::decisions::{created, network};
use support::program::Program;

const DEADLINE: Duration = Duration::from_secs(20);

async fn expect_ready(control: &Control, number: u16, generation: u64) {
    wait_for(DEADLINE, "the outcome", async || {
        let reported = control.outcome(network(number));
        if reported == Some((Position::new(generation), Outcome::Ready)) { Ok(()) } else { Err(reported) }
    })
    .await;
}

/// Reads the incarnation in `node.json`.
fn stored_incarnation(program: &Program) -> u64 {
    let text = fs::read_to_string(program.state().join("node.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["incarnation"].as_u64().unwrap()
}

fn set_incarnation(program: &Program, incarnation: u64) {
    let path = program.state().join("node.json");
    let mut node: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    node["incarnation"] = incarnation.into();
    fs::write(&path, node.to_string()).unwrap();
}

/// Waits for a report of the network 1 that is accepted after `recorded`, and returns it.
async fn accepted_after(control: &Control, recorded: ReportNumber) -> NodeReport {
    wait_for(DEADLINE, "a report after the recorded one", async || {
        let state = control.state();
        match state.reports.iter().find(|report| report.number() > recorded) {
            Some(report) => Ok(report.clone()),
            None => Err(state.reports.iter().map(NodeReport::number).collect::<Vec<_>>()),
        }
    })
    .await
}

#[tokio::test]
async fn a_node_that_was_set_back_takes_a_newer_incarnation_and_reports_everything_again() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let mut program = Program::start(server.url());
    control.decide(created(network(1), "br-one", None)).await;
    expect_ready(&control, 1, 1).await;
    control.decide(created(network(2), "br-two", None)).await;
    expect_ready(&control, 2, 2).await;
    assert!(program.status().contains("agent:        running, process"), "{}", program.status());
    let ledger = async |started_with, saved| {
        let expected = Some((Position::new(started_with), Position::new(saved)));
        wait_for(DEADLINE, "a heartbeat with the positions of the ledger", async || match control.state().ledger {
            told if told == expected => Ok(()),
            told => Err(told),
        })
        .await;
    };
    ledger(0, 2).await;
    program.stop(Signal::TERM);
    let recorded = ReportNumber { incarnation: 40_000_000, sequence: 7 };
    control.state().recorded = Some(recorded);
    control.state().reports.clear();

    program.spawn();

    let report = accepted_after(&control, recorded).await;
    assert_eq!(report.results.len(), 2, "everything is reported again: {report:?}");
    assert_eq!(report.incarnation, stored_incarnation(&program));
    let numbers: Vec<_> = control.state().reports.iter().map(NodeReport::number).collect();
    assert!(numbers[0].incarnation < recorded.incarnation && numbers.len() == 2, "{numbers:?}");
    assert_eq!(program.log_count("set back to an older copy of its state"), 1);
    let status = program.status();
    assert!(status.contains("set back to an older copy") && status.contains("incarnation 40000000"), "{status}");
    ledger(2, 2).await;
    // At once, not with the next of the regular heartbeats.
    wait_for(Duration::from_secs(2), "a heartbeat that tells it", async || control.state().set_back.is_some()).await;
    let told = control.state().set_back.clone().unwrap();
    assert!(told.contains("report incarnation 40000000, sequence 7 was recorded"), "{told}");

    // The next start has a newer incarnation from the beginning.
    program.stop(Signal::TERM);
    control.state().reports.clear();
    program.spawn();
    let after = ReportNumber { incarnation: report.incarnation, sequence: u64::MAX };
    assert_eq!(accepted_after(&control, after).await.sequence, 1);
    assert!(control.state().reports.iter().all(|report| report.number() > after));
    assert!(!program.status().contains("problem"), "{}", program.status());
    assert_eq!(control.state().set_back, None, "it is over with the next start");
}

#[tokio::test]
async fn an_incarnation_out_of_range_is_corrected() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let mut program = Program::start(server.url());
    control.decide(created(network(1), "br-one", None)).await;
    expect_ready(&control, 1, 1).await;
    let mut last = control.state().recorded.unwrap();
    // The last is refused by the control plane: the agent cannot know that it is.
    for incarnation in [u64::MAX, 1 << 60, 1 << 50] {
        program.stop(Signal::KILL);
        set_incarnation(&program, incarnation);
        control.state().reports.clear();
        program.spawn();
        wait_for(DEADLINE, "a report that is accepted", async || {
            let recorded = control.state().recorded.unwrap();
            if recorded > last { Ok(()) } else { Err(recorded) }
        })
        .await;
        last = control.state().recorded.unwrap();
        assert_eq!(stored_incarnation(&program), last.incarnation);
        assert!(program.log().contains("out of range"));
    }
    assert!(program.status().contains("the incarnation is out of range"), "{}", program.status());
}

#[tokio::test]
async fn a_duplicate_of_its_own_report_changes_nothing() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    // Recorded, but not answered.
    control.state().ignore_reports = 1;
    let program = Program::start(server.url());
    control.decide(created(network(1), "br-one", None)).await;
    wait_for(DEADLINE, "the repeated report", async || control.state().reports.len() >= 2).await;
    control.decide(created(network(2), "br-two", None)).await;
    expect_ready(&control, 2, 2).await;
    let numbers: Vec<_> = control.state().reports.iter().map(|report| (report.incarnation, report.sequence)).collect();
    assert_eq!(numbers, [(1, 1), (1, 1), (1, 2)]);
    assert!(!program.status().contains("problem") && !program.log().contains("set back"), "{}", program.status());
}

#[tokio::test]
async fn another_agent_with_the_same_id_is_named_in_log_and_status() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let program = Program::start(server.url());
    control.decide(created(network(1), "br-one", None)).await;
    expect_ready(&control, 1, 1).await;
    let told = async |expected: &str, is_expected: fn(Position, Position) -> bool| {
        wait_for(DEADLINE, expected, async || match control.state().ledger {
            Some((started_with, saved)) if is_expected(started_with, saved) => Ok(()),
            other => Err(other),
        })
        .await;
    };
    told("a heartbeat with the saved ledger", |started_with, saved| {
        (started_with, saved) == (Position::ZERO, Position::new(1))
    })
    .await;
    control.state().recorded = Some(ReportNumber { incarnation: 70_000_000, sequence: 3 });
    control.decide(created(network(2), "br-two", None)).await;
    wait_for(DEADLINE, "the error", async || program.log_count("another agent uses this node's id") == 1).await;
    let status = program.status();
    assert!(status.contains("another agent uses the id of this node"), "{status}");
    assert!(stored_incarnation(&program) > 70_000_000);

    control.state().other_agent = Some(70_000_000);
    wait_for(DEADLINE, "the error", async || program.log_count("another agent sends heartbeats as this node") == 1)
        .await;
    let status = program.status();
    assert!(status.contains("its incarnation is 70000000"), "{status}");
    // Its new incarnation was not started with the older ledger that this process was started with.
    told("a heartbeat of the new incarnation", |started_with, saved| {
        Position::ZERO < started_with && started_with <= saved
    })
    .await;
    // It does not report again at once: the other one would do the same.
    assert_eq!(control.state().reports.len(), 2);
}

#[tokio::test]
async fn a_second_agent_in_the_same_network_namespace_does_not_start() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let mut program = Program::start(server.url());
    control.decide(created(network(1), "br-one", None)).await;
    expect_ready(&control, 1, 1).await;
    let mut second = program.another();
    let expect_refusal = |texts: &[&str]| {
        let refused = second.run_second();
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && texts.iter().all(|text| error.contains(text)), "{texts:?} {error}");
        assert!(!second.state().exists(), "it has changed nothing");
    };
    let pid = format!("process {},", program.pid());
    let state = program.state().display().to_string();
    expect_refusal(&["another otherix-agent runs in this network namespace", &pid, &state, "a machine is one node"]);
    // Also of an agent that does not answer.
    program.signal(Signal::STOP);
    expect_refusal(&["another otherix-agent runs in this network namespace", &pid, "does not answer"]);
    program.signal(Signal::CONT);

    // In another network namespace, it starts (without NATS).
    second.wrapper = ["unshare", "--net"].map(str::to_owned).to_vec();
    second.spawn();
    wait_for(DEADLINE, "the start", async || second.log_count("starting") == 1).await;
    second.stop(Signal::KILL);
    second.wrapper.clear();

    // A killed agent leaves nothing that prevents the next one.
    program.stop(Signal::KILL);
    second.spawn();
    wait_for(DEADLINE, "the start", async || second.log_count("starting") == 2).await;
    wait_for(DEADLINE, "its join", async || control.state().joins.len() >= 2).await;
    assert!(link("br-one").is_some());
}
