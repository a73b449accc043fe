//! Tests of restarts of the program in a network namespace, with a NATS server and a simulated control plane:
//! - after a reboot without a control plane a node creates everything again from its ledger, and removes orphans only
//!   once it has the current decisions; a second agent on its state folder is refused;
//! - a node that missed 10,000 decisions continues where it stopped, and ends with what they require;
//! - a damaged ledger is renamed, one of a newer format is kept, and nothing is changed in either case;
//! - an unknown decision stops changes after a restart too, until a version that knows it is started;
//! - killed at any time while decisions arrive, it ends with what they require, as one node, and reports every outcome;
//! - a full disk stops neither the agent nor its next start; a node that is refused logs why and continues to join.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a failed assumption is a failed test; figures are shown"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use otherix_schemas::event::Event;
use otherix_schemas::node::NodeReport;
use otherix_schemas::outcome::{Outcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::netns::{enter_new, ip_json, link, sh};
use otherix_testkit::wait::wait_for;
use rustix::process::Signal;
use support::Control;
use support::decisions::{created, deleted, network};
use support::program::{Program, know_control_plane};

const DEADLINE: Duration = Duration::from_secs(30);

async fn expect(control: &Control, number: u16, outcome: Outcome) {
    wait_for(DEADLINE, "the outcome", async || match control.outcome(network(number)) {
        Some((_, reported)) if reported == outcome => Ok(()),
        other => Err(other),
    })
    .await;
}

/// Reads the content of the ledger's file.
fn ledger(program: &Program) -> Option<serde_json::Value> {
    let text = fs::read_to_string(program.state().join("ledger.json")).ok()?;
    serde_json::from_str(text.lines().nth(1)?).ok()
}

async fn expect_in_ledger(program: &Program, position: u64) {
    wait_for(DEADLINE, "the ledger", async || match ledger(program) {
        Some(ledger) if ledger["position"] == position => Ok(()),
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

/// Creates an orphan.
fn create_orphan(control: &Control) {
    let alias = format!("otherix:{}:{}", control.cluster(), network(900));
    sh(&format!("ip link add br-orphan type bridge\nip link set br-orphan alias {alias}"));
}

#[tokio::test]
async fn after_a_reboot_everything_is_created_again_from_the_ledger() {
    enter_new();
    let mut server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let mut program = Program::start(server.url());
    control.decide_all(vec![created(network(1), "br-1", None), created(network(2), "br-2", None)]).await;
    control.decide(deleted(network(1))).await;
    control.decide(created(network(3), "br-3", None)).await;
    expect(&control, 3, Outcome::Ready).await;
    expect_in_ledger(&program, 4).await;
    let mode = fs::metadata(program.state().join("ledger.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = program.run_second();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another otherix-agent"));

    program.stop(Signal::KILL);
    server.kill9();
    sh("ip link del br-2\nip link del br-3");
    create_orphan(&control);
    program.spawn();

    expect_bridges(&["br-2", "br-3", "br-orphan"]).await;
    sh("ip link set br-2 down");
    wait_for(DEADLINE, "a repair", async || link("br-2").unwrap()["flags"].as_array().unwrap().contains(&"UP".into()))
        .await;
    assert!(link("br-orphan").is_some(), "the current decisions are not known");
    server.restart();
    expect_bridges(&["br-2", "br-3"]).await;
    expect(&control, 2, Outcome::Ready).await;
    assert!(program.stop(Signal::TERM).success());
}

#[tokio::test]
async fn a_node_that_missed_ten_thousand_decisions_catches_up() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let mut program = Program::start(server.url());
    control.decide(created(network(1), "br-1", None)).await;
    expect(&control, 1, Outcome::Ready).await;
    expect_in_ledger(&program, 1).await;
    program.stop(Signal::KILL);
    let mut decisions: Vec<Event> = Vec::new();
    for number in 2..5_007 {
        decisions.push(created(network(number), &format!("br-{number}"), None));
        if number >= 12 {
            decisions.push(deleted(network(number)));
        }
    }
    assert_eq!(decisions.len(), 10_000);
    control.decide_all(decisions).await;
    let start = Instant::now();

    program.spawn();

    wait_for(DEADLINE, "the last decision", async || {
        program.log().contains("caught up with the decisions position=10001")
    })
    .await;
    let caught_up = start.elapsed();
    let expected: Vec<_> = (1..12).map(|number| format!("br-{number}")).collect();
    expect_bridges(&expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    eprintln!("10,000 decisions: caught up after {caught_up:?}, bridges after {:?}", start.elapsed());
    assert!(!program.log().contains("create bridge br-12 "), "a network that was deleted meanwhile is not created");
    expect(&control, 11, Outcome::Ready).await;
    wait_for(DEADLINE, "all removals", async || {
        let state = control.state();
        let results = state.reports.iter().flat_map(|report| &report.results);
        let removed: BTreeSet<_> =
            results.filter(|result| result.outcome == Outcome::Removed).map(|result| result.resource).collect();
        if removed.len() == 4_995 { Ok(()) } else { Err(removed.len()) }
    })
    .await;
    wait_for(DEADLINE, "a short ledger", async || {
        ledger(&program).is_some_and(|ledger| ledger["decisions"].as_array().unwrap().len() == 11)
    })
    .await;
}

#[tokio::test]
async fn without_a_usable_ledger_nothing_is_changed() {
    enter_new();
    let mut server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let mut program = Program::start(server.url());
    control.decide(created(network(1), "br-1", None)).await;
    expect(&control, 1, Outcome::Ready).await;
    expect_in_ledger(&program, 1).await;
    assert!(program.stop(Signal::TERM).success());
    let path = program.state().join("ledger.json");
    let valid = fs::read_to_string(&path).unwrap();

    create_orphan(&control);
    let newer = valid.replacen("\"format\":5", "\"format\":99", 1);
    assert_ne!(newer, valid, "the ledger has another format");
    fs::write(&path, &newer).unwrap();
    control.decide(deleted(network(1))).await;
    program.spawn();
    wait_for(DEADLINE, "the error in the log", async || program.log_count("format 99") == 1).await;
    wait_for(DEADLINE, "a heartbeat", async || control.state().heartbeats.last() == Some(&Position::ZERO)).await;
    assert!(program.stop(Signal::TERM).success());
    assert_eq!(bridges(), ["br-1", "br-orphan"].map(str::to_owned).into());
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);

    server.kill9();
    fs::write(&path, &valid[..valid.len() / 2]).unwrap();
    program.spawn();
    wait_for(DEADLINE, "the error in the log", async || program.log_count("the ledger is damaged") == 1).await;
    let files = fs::read_dir(program.state()).unwrap().map(|file| file.unwrap().path());
    let moved: Vec<_> = files.filter(|path| path.to_string_lossy().contains("ledger.json.damaged-")).collect();
    let [moved] = moved.as_slice() else { panic!("{moved:?}") };
    assert_eq!(fs::read_to_string(moved).unwrap(), valid[..valid.len() / 2]);
    assert_eq!(bridges(), ["br-1", "br-orphan"].map(str::to_owned).into());
    server.restart();
    expect_bridges(&[]).await;
    expect(&control, 1, Outcome::Removed).await;
}

#[tokio::test]
async fn an_unknown_decision_is_applied_by_a_version_that_knows_it() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let mut program = Program::start(server.url());
    control.decide(created(network(1), "br-1", None)).await;
    expect(&control, 1, Outcome::Ready).await;
    let known = control.record(created(network(2), "br-2", None));
    let known = String::from_utf8(known.encode().unwrap()).unwrap();
    let newer = known.replace("network.created.v2", "network.created.v7");
    let subject = "otherix.evt.v1.network.created.x".to_owned();
    control.publish(subject.clone(), newer.into_bytes()).await;
    control.decide(deleted(network(1))).await;
    wait_for(DEADLINE, "the error in the log", async || {
        program.log_count("`dev.otherix.network.created.v7` is not known") > 0
    })
    .await;

    assert!(program.stop(Signal::TERM).success());
    assert_eq!(ledger(&program).unwrap()["position"], 1);
    program.spawn();
    wait_for(DEADLINE, "the error in the log again", async || {
        program.log_count("`dev.otherix.network.created.v7` is not known") > 1
    })
    .await;
    assert_eq!(bridges(), ["br-1".to_owned()].into());

    // A newer version would decode the decision to this one.
    program.stop(Signal::KILL);
    control.state().published[1] = (subject, known.into_bytes());
    control.recreate_stream(3).await;
    program.spawn();
    expect_bridges(&["br-2"]).await;
    expect(&control, 1, Outcome::Removed).await;
}

/// Returns the reports that a control plane would record: without repeated and outdated ones.
fn recorded(reports: &[NodeReport]) -> Vec<&NodeReport> {
    let mut recorded: Vec<&NodeReport> = Vec::new();
    for report in reports {
        if recorded.last().is_none_or(|last| (last.incarnation, last.sequence) < (report.incarnation, report.sequence))
        {
            recorded.push(report);
        }
    }
    recorded
}

#[tokio::test]
async fn killed_at_any_time_it_ends_with_what_the_decisions_require() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let mut program = Program::start(server.url());
    let deciding = async {
        for number in 1..=120u16 {
            control.decide(created(network(number), &format!("br-{number}"), None)).await;
            if number > 40 {
                control.decide(deleted(network(number - 40))).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let killing = async {
        for run in 1..=10u64 {
            // Each run is longer than the one before, so that the kills hit different phases.
            tokio::time::sleep(Duration::from_millis(30 * run)).await;
            program.stop(Signal::KILL);
            program.spawn();
        }
    };
    tokio::join!(deciding, killing);

    let expected: Vec<_> = (81..=120).map(|number| format!("br-{number}")).collect();
    expect_bridges(&expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for number in [120, 100, 81] {
        expect(&control, number, Outcome::Ready).await;
    }
    wait_for(DEADLINE, "every outcome", async || {
        let state = control.state();
        let mut last = std::collections::BTreeMap::new();
        for result in recorded(&state.reports).into_iter().flat_map(|report| &report.results) {
            last.insert(result.resource, (result.generation, result.outcome.clone()));
        }
        let wrong: Vec<_> = (1..=120u16)
            .filter(|number| {
                let outcome = if *number > 80 { Outcome::Ready } else { Outcome::Removed };
                last.get(&ResourceRef::Network(network(*number))).is_none_or(|(_, reported)| *reported != outcome)
            })
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    })
    .await;
    let state = control.state();
    assert_eq!(state.joins.iter().collect::<BTreeSet<_>>().len(), 1, "it joined as one node");
}

/// A process in a mount namespace in which the state folder is a small file system.
struct SmallDisk(Child);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_stops_neither_the_agent_nor_its_next_start() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let mut program = Program::new(server.url());
    let state = program.state();
    fs::create_dir(&state).unwrap();
    let script =
        format!("mount -t tmpfs -o size=128k none '{0}' && touch '{0}/mounted' && exec sleep 600", state.display());
    let disk = SmallDisk(Command::new("unshare").args(["-m", "sh", "-c", &script]).spawn().unwrap());
    let inside = std::path::PathBuf::from(format!("/proc/{}/root{}", disk.0.id(), state.display()));
    wait_for(DEADLINE, "the small disk", async || inside.join("mounted").exists()).await;
    know_control_plane(&inside);
    program.wrapper = ["nsenter", "-t", &disk.0.id().to_string(), "-m"].map(str::to_owned).into();
    program.spawn();
    control.decide(created(network(1), "br-1", None)).await;
    expect(&control, 1, Outcome::Ready).await;
    wait_for(DEADLINE, "the ledger", async || inside.join("ledger.json").exists()).await;

    let filled = fs::write(inside.join("filler"), vec![1; 1 << 20]);
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    control.decide(created(network(2), "br-2", None)).await;
    expect(&control, 2, Outcome::Ready).await;
    wait_for(DEADLINE, "the error in the log", async || program.log_count("cannot write the ledger") == 1).await;
    program.stop(Signal::KILL);
    program.spawn();
    control.decide(created(network(3), "br-3", None)).await;
    expect(&control, 3, Outcome::Ready).await;
    assert!(control.state().reports.last().unwrap().incarnation > 1);

    fs::remove_file(inside.join("filler")).unwrap();
    wait_for(DEADLINE, "the ledger", async || {
        fs::read_to_string(inside.join("ledger.json")).is_ok_and(|text| text.contains("br-3"))
    })
    .await;
    assert!(program.stop(Signal::TERM).success());
}

#[tokio::test]
async fn a_refused_node_logs_why_and_continues_to_join() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    control.state().refusal = Some("another node is called `node-1`");
    let mut program = Program::start(server.url());
    wait_for(DEADLINE, "the error in the log", async || program.log_count("another node is called `node-1`") > 0).await;
    assert!(program.log().contains("--name"), "the log contains a hint");
    wait_for(DEADLINE, "another attempt", async || control.state().joins.len() > 2).await;
    assert_eq!(program.log_count("another node is called `node-1`"), 1, "it is logged once");
    control.state().refusal = None;
    control.decide(created(network(1), "br-1", None)).await;
    expect(&control, 1, Outcome::Ready).await;
    assert!(program.is_running());
}
