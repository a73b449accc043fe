//! Properties of presence: a node without heartbeats is shown as unreachable, and as reachable with the first
//! heartbeat; a restart of the control plane makes no node unreachable; only heartbeats of members count; and a
//! flapping node is rate-limited without losing its last status.

use std::process::Command;
use std::time::Duration;

use otherix_schemas::error::ErrorCode;
use otherix_schemas::id::NodeId;
use otherix_schemas::network::NetworkView;
use otherix_schemas::node::{
    GetNode, Heartbeat, HeartbeatAnswer, JoinAnswer, JoinNode, JoinRequest, ListNodes, NodeById, NodeConditionKind,
    NodeReport, NodeView, REPORT_RESULTS_MAX, ReportNode, ReportReceipt,
};
use otherix_schemas::outcome::{Outcome, OutcomeStatus, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_schemas::request::{PageRequest, Request};
use otherix_schemas::subject;
use otherix_testkit::wait::wait_for;
use otherix_transport::Nats;
use otherix_transport::request::{CallError, CallOptions};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::task::JoinHandle;

use super::daemon::{DEADLINE, OtherixdProcess, call, create, draft, get, try_call};

/// Nodes are unreachable after 1.5 s; heartbeats are sent every [`HEARTBEAT_INTERVAL`].
const SHORT_TIMEOUT: &[&str] = &["--unreachable-after-ms", "1500"];
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);

fn id(number: u128) -> NodeId {
    NodeId::new(uuid::Uuid::from_u128(number))
}

/// Joins a node; returns a connection of it.
async fn new_node(daemon: &OtherixdProcess, number: u128) -> Nats {
    let node = daemon.node(id(number), &format!("node-{number}")).await;
    join(&node, number).await;
    node
}

pub(crate) async fn join(node: &Nats, number: u128) {
    let body =
        JoinRequest { node_id: id(number), name: format!("node-{number}").parse().unwrap(), mesh: None, arch: None };
    let _: JoinAnswer = call(node, Request::of::<JoinNode>(), &body, None).await.unwrap().data;
}

async fn send_heartbeat(node: &Nats, body: &impl serde::Serialize) -> Result<HeartbeatAnswer, CallError> {
    send_to(node, subject::heartbeat(&node.user()), body).await
}

async fn send_to(node: &Nats, to: String, body: &impl serde::Serialize) -> Result<HeartbeatAnswer, CallError> {
    let options = CallOptions { timeout: Duration::from_secs(2), idempotency_key: None };
    let body = serde_json::to_value(body)?;
    Ok(serde_json::from_slice(&node.exchange(to, &body, options).await?.payload)?)
}

/// Sends heartbeats of a node until it is aborted.
fn send_heartbeats(node: &Nats) -> JoinHandle<()> {
    let node = node.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(HEARTBEAT_INTERVAL);
        loop {
            ticks.tick().await;
            let _may_fail = send_heartbeat(&node, &Heartbeat::default()).await;
        }
    })
}

/// The number of each node that has not reported on the network, and whether it is reachable and awaited.
async fn unreported(admin: &Nats, network: &NetworkView) -> Vec<(u128, bool, bool)> {
    let nodes = get(admin, network).await.unwrap().status.unreported.unwrap();
    nodes.iter().map(|node| (node.node_id.uuid().as_u128(), node.reachable, node.awaited)).collect()
}

async fn wait_for_nodes(admin: &Nats, network: &NetworkView, expected: &[(u128, bool, bool)]) {
    wait_for(DEADLINE, "the nodes' presence", async || match unreported(admin, network).await {
        seen if seen == expected => Ok(()),
        seen => Err(seen),
    })
    .await;
}

/// The events about presence, with their actors.
fn presence_events(daemon: &OtherixdProcess) -> Vec<String> {
    let sql = "SELECT type, json_extract(body, '$.actor'), json_type(body, '$.data.last_heard_at') FROM events
        WHERE type LIKE '%reachable%' ORDER BY position";
    let journal = daemon.state().join("journal.db");
    let output = Command::new("sqlite3").args(["-readonly", journal.to_str().unwrap(), sql]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn presence_follows_heartbeats() {
    let daemon = OtherixdProcess::start_with(SHORT_TIMEOUT).await;
    let admin = daemon.connect("admin").await;
    let (first, second) = (new_node(&daemon, 1).await, new_node(&daemon, 2).await);
    let network = create(&admin, &draft("net", "br-dev")).await;
    let steady = send_heartbeats(&first);
    let silent = send_heartbeats(&second);
    wait_for_nodes(&admin, &network, &[(1, true, true), (2, true, true)]).await;
    silent.abort();
    wait_for_nodes(&admin, &network, &[(1, true, true), (2, false, true)]).await;
    let during = create(&admin, &draft("during", "br-during")).await;
    assert_eq!(unreported(&admin, &during).await, [(1, true, true), (2, false, false)], "it is not awaited");

    let resumed = send_heartbeats(&second);
    wait_for_nodes(&admin, &network, &[(1, true, true), (2, true, true)]).await;
    resumed.abort();
    wait_for_nodes(&admin, &network, &[(1, true, true), (2, false, true)]).await;
    // A report counts as a heartbeat, even one without changes.
    let empty = NodeReport { node_id: id(2), incarnation: 1, sequence: 1, results: Vec::new() };
    let _: ReportReceipt = call(&second, Request::of::<ReportNode>(), &empty, None).await.unwrap().data;
    assert_eq!(unreported(&admin, &network).await, [(1, true, true), (2, true, true)]);
    steady.abort();
    let unreachable = "dev.otherix.node.unreachable.v1|system|text";
    let reachable = "dev.otherix.node.reachable.v1|system|";
    let by_itself = format!("dev.otherix.node.reachable.v1|{}|", id(2));
    assert_eq!(presence_events(&daemon), [unreachable, reachable, unreachable, &by_itself]);
    daemon.assert_stream_is_copy().await;
}

/// Waits longer than the time-out: there is no event to wait for.
async fn pause() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

/// Waits until the control plane has received a heartbeat of the first node and then checked the presence of all nodes.
async fn wait_for_presence_check(node: &Nats) {
    for _ in 0..3 {
        wait_for(DEADLINE, "an answer", async || send_heartbeat(node, &Heartbeat::default()).await).await;
        tokio::time::sleep(HEARTBEAT_INTERVAL).await;
    }
}

#[tokio::test]
async fn restart_does_not_make_nodes_unreachable() {
    let mut daemon = OtherixdProcess::start_with(SHORT_TIMEOUT).await;
    let admin = daemon.connect("admin").await;
    let (first, second) = (new_node(&daemon, 1).await, new_node(&daemon, 2).await);
    let network = create(&admin, &draft("net", "br-dev")).await;
    let steady = send_heartbeats(&first);
    // The second sends no heartbeat. Once it is unreachable, the control plane checks presence.
    wait_for_nodes(&admin, &network, &[(1, true, true), (2, false, true)]).await;
    daemon.signal(Signal::STOP);
    pause().await;
    daemon.signal(Signal::CONT);
    join(&second, 2).await;
    wait_for_presence_check(&first).await;
    daemon.kill();
    daemon.start_again().await;
    wait_for_presence_check(&first).await;
    let [server] = daemon.servers()[..] else { panic!() };
    let server = Pid::from_raw(server).unwrap();
    // A server that hangs: connections stay open, and no heartbeat arrives.
    kill_process(server, Signal::STOP).unwrap();
    pause().await;
    kill_process(server, Signal::CONT).unwrap();
    wait_for_presence_check(&first).await;
    wait_for_nodes(&admin, &network, &[(1, true, true), (2, false, true)]).await;
    steady.abort();
    let journal = daemon.state().join("journal.db");
    let sql = "SELECT DISTINCT json_extract(body, '$.data.node_id') FROM events WHERE type LIKE '%.unreachable.v1'";
    let output = Command::new("sqlite3").args(["-readonly", journal.to_str().unwrap(), sql]).output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().trim(),
        id(2).to_string(),
        "the first never became unreachable"
    );
}

#[tokio::test]
async fn a_node_speaks_for_itself_only() {
    let daemon = OtherixdProcess::start().await;
    let admin = daemon.connect("admin").await;
    let (first, second) = (new_node(&daemon, 1).await, new_node(&daemon, 2).await);
    let valid = Heartbeat::default();
    let head = send_heartbeat(&first, &valid).await.unwrap().decision_head;
    assert!(head.get() > 0);
    let Err(CallError::Refused(refusal)) = send_heartbeat(&first, &json!([])).await else { panic!() };
    assert_eq!(refusal.error.code, ErrorCode::ValidationFailed);
    // NATS does not permit publishing as another user.
    for (who, as_whom) in [(&first, &second), (&admin, &first), (&admin, &admin)] {
        assert!(send_to(who, subject::heartbeat(&as_whom.user()), &valid).await.is_err());
    }
    assert!(send_to(&first, format!("otherix.hb.v1.{}", id(1)), &valid).await.is_err());
    // The control plane does not accept it in the name of another.
    let report = NodeReport { node_id: id(2), incarnation: 1, sequence: 1, results: Vec::new() };
    let refused = call::<ReportReceipt>(&first, Request::of::<ReportNode>(), &report, None).await.unwrap_err().error;
    assert_eq!((refused.code, &refused.details["permission"]), (ErrorCode::PermissionDenied, &json!("node:report")));
    for (number, name, code) in [(2, "node-2", ErrorCode::PermissionDenied), (1, "node-2", ErrorCode::Conflict)] {
        let body = JoinRequest { node_id: id(number), name: name.parse().unwrap(), mesh: None, arch: None };
        let refused = call::<JoinAnswer>(&first, Request::of::<JoinNode>(), &body, None).await.unwrap_err().error;
        assert_eq!(refused.code, code, "{}", refused.message);
    }
}

#[tokio::test]
async fn two_agents_of_one_node_are_told_and_shown_while_both_run() {
    let mut daemon = OtherixdProcess::start_with(SHORT_TIMEOUT).await;
    let (admin, node) = (daemon.connect("admin").await, new_node(&daemon, 1).await);
    let beat = async |incarnation| {
        let beat = Heartbeat { incarnation: Some(incarnation), ..Heartbeat::default() };
        send_heartbeat(&node, &beat).await.map(|answer| answer.other_agent)
    };
    let warnings = async || {
        let by_id = NodeById { id: id(1) };
        let view = call::<NodeView>(&admin, Request::of::<GetNode>(), &by_id, None).await.unwrap().data;
        let page = PageRequest::default();
        let list = call::<Vec<NodeView>>(&admin, Request::of::<ListNodes>(), &page, None).await.unwrap().data;
        // A change may be recorded in between.
        (list[0].warnings == view.warnings).then_some(view.warnings)
    };
    let warnings = async || wait_for(DEADLINE, "list and view to agree", warnings).await;
    assert_eq!([beat(5).await.unwrap(), beat(8).await.unwrap()], [None, None], "a restart");
    assert_eq!(warnings().await, [""; 0]);
    assert_eq!([beat(5).await.unwrap(), beat(8).await.unwrap()], [Some(8), Some(5)]);
    let is_shown = async || match warnings().await {
        shown if shown.len() == 1 && shown[0].contains("incarnations 5 and 8") => Ok(shown),
        shown => Err(shown),
    };
    let shown = wait_for(DEADLINE, "the warning", is_shown).await;
    // It is an event, which the control plane knows after a restart as well.
    daemon.kill();
    daemon.start_again().await;
    assert_eq!(warnings().await, shown);
    // One of them is stopped.
    wait_for(DEADLINE, "the warning to end", async || {
        beat(8).await.unwrap();
        warnings().await.is_empty()
    })
    .await;
    let Err(CallError::Refused(refusal)) = beat(u64::MAX).await else { panic!() };
    assert_eq!(refusal.error.code, ErrorCode::ValidationFailed);
    let kinds = "SELECT json_extract(body, '$.data.conditions[0].kind'), stream_id FROM events
        WHERE type = 'dev.otherix.node.conditions-changed.v1' ORDER BY position";
    let node = format!("node/{}", id(1));
    assert_eq!(sql(&daemon, kinds), [format!("duplicate_agent|{node}"), format!("|{node}")]);
}

#[tokio::test]
async fn an_agent_with_an_older_ledger_than_before_was_set_back() {
    let daemon = OtherixdProcess::start_with(SHORT_TIMEOUT).await;
    let (admin, node) = (daemon.connect("admin").await, new_node(&daemon, 1).await);
    let beat = async |incarnation, started_with, saved| {
        let (incarnation, started_with, saved) =
            (Some(incarnation), Some(Position::new(started_with)), Some(Position::new(saved)));
        let beat = Heartbeat { incarnation, started_with, saved, ..Heartbeat::default() };
        send_heartbeat(&node, &beat).await.unwrap().set_back
    };
    let kinds = async || {
        let by_id = NodeById { id: id(1) };
        let view = call::<NodeView>(&admin, Request::of::<GetNode>(), &by_id, None).await.unwrap().data;
        view.conditions.iter().map(|condition| condition.kind).collect::<Vec<_>>()
    };
    assert_eq!([beat(1, 0, 10).await, beat(2, 10, 12).await], [None, None], "a restart");
    let told = beat(3, 10, 10).await.unwrap();
    assert_eq!(told, "its ledger ended with position 10, and had position 12 before");
    wait_for(DEADLINE, "the condition", async || match kinds().await.as_slice() {
        [NodeConditionKind::SetBack] => Ok(()),
        other => Err(other.to_vec()),
    })
    .await;
    wait_for(DEADLINE, "the end of the condition", async || {
        assert_eq!(beat(4, 12, 12).await, None);
        kinds().await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn what_a_node_reports_of_itself_is_recorded_at_a_bounded_rate() {
    let daemon = OtherixdProcess::start_with(SHORT_TIMEOUT).await;
    let (admin, node) = (daemon.connect("admin").await, new_node(&daemon, 1).await);
    let beat = async |contradiction: &str, set_back: Option<&str>| {
        let (contradiction, set_back) = (Some(contradiction.to_owned()), set_back.map(str::to_owned));
        send_heartbeat(&node, &Heartbeat { contradiction, set_back, ..Heartbeat::default() }).await.unwrap();
    };
    let conditions = async || {
        let by_id = NodeById { id: id(1) };
        call::<NodeView>(&admin, Request::of::<GetNode>(), &by_id, None).await.unwrap().data.conditions
    };
    beat("position 7", None).await;
    let first = wait_for(DEADLINE, "the condition", async || match conditions().await {
        shown if shown.len() == 1 => Ok(shown),
        shown => Err(shown),
    })
    .await;
    assert!(first[0].detail.ends_with("position 7") && first[0].hint.contains("otherix-agent release"), "{first:?}");
    // Other texts, and further conditions that come and go within the time after which one is over.
    for number in 0..200 {
        beat(&format!("position {number}"), (number % 2 == 0).then_some("older")).await;
    }
    wait_for(DEADLINE, "both conditions", async || match conditions().await {
        shown if shown.len() == 2 => Ok(()),
        shown => Err(shown),
    })
    .await;
    assert_eq!(conditions().await[0], first[0], "it is as it was when it began");
    let count = "SELECT count(*) FROM events WHERE type = 'dev.otherix.node.conditions-changed.v1'";
    let count: u64 = sql(&daemon, count)[0].parse().unwrap();
    assert!((2..=4).contains(&count), "{count} events");
    assert!(!daemon.log().contains("position 199"), "{}", daemon.log());
}

fn sql(daemon: &OtherixdProcess, statement: &str) -> Vec<String> {
    let journal = daemon.state().join("journal.db");
    let output = Command::new("sqlite3").args(["-readonly", journal.to_str().unwrap(), statement]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn limits_report_size_and_flapping() {
    let daemon = OtherixdProcess::start().await;
    let (admin, node) = (daemon.connect("admin").await, new_node(&daemon, 1).await);
    let network = create(&admin, &draft("net", "br-dev")).await;
    let outcome = |outcome| ResourceOutcome::new(ResourceRef::Network(network.id), network.generation, outcome);
    let report = |sequence, results| NodeReport { node_id: id(1), incarnation: 1, sequence, results };
    let sent =
        async |report: NodeReport| try_call::<ReportReceipt>(&node, Request::of::<ReportNode>(), &report, None).await;

    let many = vec![outcome(Outcome::Ready); REPORT_RESULTS_MAX + 1];
    let Err(CallError::Refused(refusal)) = sent(report(1, many)).await else { panic!() };
    assert_eq!(refusal.error.code, ErrorCode::ValidationFailed);
    let long = outcome(Outcome::Failed("ü".repeat(300_000)));
    sent(report(1, vec![long])).await.unwrap();
    let seen = get(&admin, &network).await.unwrap().status.nodes.unwrap();
    assert_eq!(seen.first().unwrap().error.as_ref().unwrap().chars().count(), 1024);

    let (mut slowed, mut last) = (0, OutcomeStatus::Failed);
    for sequence in 2..=80 {
        let latest = if sequence % 2 == 0 { Outcome::Ready } else { Outcome::Failed("broken".to_owned()) };
        last = latest.status();
        let report = report(sequence, vec![outcome(latest)]);
        // Retried unchanged, as an agent does.
        wait_for(DEADLINE, "the report to be accepted", async || match sent(report.clone()).await {
            Err(CallError::Refused(refusal)) if refusal.error.code == ErrorCode::Unavailable => {
                let wait = refusal.error.details.get("retry_after_ms").and_then(serde_json::Value::as_u64).unwrap();
                assert!(wait <= 500, "{wait}");
                slowed += 1;
                tokio::time::sleep(Duration::from_millis(wait)).await;
                Err(refusal.error.message)
            }
            answer => {
                answer.unwrap();
                Ok(())
            }
        })
        .await;
        if slowed > 2 {
            break;
        }
    }
    assert_eq!(slowed, 3);
    let seen = get(&admin, &network).await.unwrap().status.nodes.unwrap();
    assert_eq!(seen.first().unwrap().status, last, "the last status is not lost");
}
