//! Another program that changes a device of ours again and again: its network has failed for as long as that lasts, and
//! the log stays short.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::process::{Child, Command};
use std::time::Duration;

use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_testkit::NamedTempFile;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::netns::enter_new;
use otherix_testkit::wait::wait_for;
use support::Control;
use support::decisions::{created, network};
use support::program::Program;

const DEADLINE: Duration = Duration::from_secs(20);

/// Runs a command every 50 ms until it is dropped.
struct Repeated {
    process: Child,
    /// Has a byte for each time.
    times: NamedTempFile,
}

impl Repeated {
    fn start(command: &str) -> Self {
        let times = NamedTempFile::new().unwrap();
        let script = format!("while printf . >>$0; do {command} 2>/dev/null; sleep 0.05; done");
        let process = Command::new("sh").args(["-c", &script]).arg(times.path()).spawn().unwrap();
        Self { process, times }
    }

    /// Waits until the command was run this many times more.
    async fn run(&self, more: u64) {
        let times = || self.times.path().metadata().unwrap().len();
        let end = times() + more;
        wait_for(DEADLINE, "more of it", async || times() >= end).await;
    }
}

impl Drop for Repeated {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

async fn wait_for_outcome(control: &Control, number: u16, expected: impl Fn(&Outcome) -> bool) {
    wait_for(DEADLINE, "the outcome", async || match control.outcome(network(number)) {
        Some((_, outcome)) if expected(&outcome) => Ok(()),
        other => Err(other),
    })
    .await;
}

#[tokio::test]
async fn a_network_whose_bridge_another_program_keeps_changing_has_failed_and_the_log_stays_short() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let program = Program::start(server.url());
    control.decide(created(network(1), "br-one", None)).await;
    control.decide(created(network(2), "br-two", None)).await;
    wait_for_outcome(&control, 1, |outcome| *outcome == Outcome::Ready).await;
    wait_for_outcome(&control, 2, |outcome| *outcome == Outcome::Ready).await;
    for command in ["ip link del br-one", "ip link set br-one down", "ip link set br-one mtu 1300"] {
        let (lines, reports) = (program.log_count("\n"), control.state().reports.len());
        let other = Repeated::start(command);
        wait_for_outcome(&control, 1, |outcome| outcome.error().is_some_and(|text| text.contains("again and again")))
            .await;
        let failed_at = control.state().reports.len();
        // Several repairs are made meanwhile, at most two per second.
        other.run(100).await;
        // Other tests may hold the kernel's lock for seconds, so that the other program does nothing meanwhile. Without
        // limits there would be two reports for each repair.
        let during = control.state().reports.len() - failed_at;
        assert!(during <= 4, "{command}: {during} reports meanwhile");
        let logged = program.log_count("\n") - lines;
        assert!(logged <= 60, "{command}: {logged} lines");
        assert!(failed_at - reports <= 25, "{command}: {} reports", failed_at - reports);
        drop(other);
        wait_for_outcome(&control, 1, |outcome| *outcome == Outcome::Ready).await;
        assert_eq!(control.outcome(network(2)), Some((Position::new(2), Outcome::Ready)));
    }
}

/// It is written again at once, however often, because it separates guests from their node.
#[tokio::test]
async fn flushing_the_packet_filter_again_and_again_does_not_fill_log_and_journal() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let program = Program::start(server.url());
    control.decide(created(network(1), "br-one", None)).await;
    wait_for_outcome(&control, 1, |outcome| *outcome == Outcome::Ready).await;
    let (lines, reports) = (program.log_count("\n"), control.state().reports.len());
    let other = Repeated::start("nft flush ruleset");
    other.run(100).await;
    let during = control.state().reports.len() - reports;
    assert!(during <= 4, "{during} reports meanwhile");
    let logged = program.log_count("\n") - lines;
    assert!((1..=60).contains(&logged), "{logged} lines");
    drop(other);
    wait_for_outcome(&control, 1, |outcome| *outcome == Outcome::Ready).await;
}
