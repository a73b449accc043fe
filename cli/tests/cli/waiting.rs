//! `--wait`: until every node is ready, or has confirmed the removal.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use otherix_schemas::error::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use crate::fake::{FakeControlPlane, FakeReply, no_status, status, view};

const CREATE: &str = "network create net-dev --bridge-name br-dev --managed --wait";

/// A control plane whose network has these statuses, one for each query; an outcome follows each query.
fn with_statuses(statuses: Vec<Value>) -> FakeControlPlane {
    FakeControlPlane::start(move |received, before| match received.verb.as_str() {
        "network.get" => FakeReply::ThenOutcome(view(statuses[before.min(statuses.len() - 1)].clone())),
        _ => FakeReply::Data(view(no_status())),
    })
}

#[test]
fn waits_until_every_node_is_ready() {
    let statuses = || {
        let pending = status(&[("ready", None), ("pending", Some("waiting"))], 2);
        let mut outdated = status(&[("ready", None), ("failed", Some("old"))], 2);
        outdated["nodes"][1]["observed_generation"] = json!(3);
        vec![status(&[], 2), outdated, pending, status(&[("ready", None), ("ready", None)], 2)]
    };
    let start = Instant::now();
    let run = with_statuses(statuses()).run(CREATE);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.starts_with("network net-dev created\n"));
    assert_eq!(run.stderr, "0 of 2 nodes ready\n1 of 2 nodes ready\n");
    assert!(
        start.elapsed() < Duration::from_millis(2500),
        "outcomes trigger queries, not the timer: {:?}",
        start.elapsed()
    );

    let run = with_statuses(statuses()).run(&format!("{CREATE} -o json"));
    run.assert_output(0, &run.stdout, "");
    let shown: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(shown["status"]["ready"], 2);
}

#[test]
fn succeeds_at_once_without_nodes() {
    let run = with_statuses(vec![status(&[], 0)]).run(CREATE);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn fails_when_a_node_fails() {
    let fails = || vec![status(&[], 2), status(&[("failed", Some("`br-dev` is not ours"))], 2)];
    let run = with_statuses(fails()).run(CREATE);
    assert_eq!(run.code, 8, "{}", run.stderr);
    assert!(run.stdout.starts_with("network net-dev created\n"));
    let message = "network `net-dev` failed on `node-1`: `br-dev` is not ours";
    assert!(run.stderr.contains(&format!("\nerror: {message}\nhint: ")), "{}", run.stderr);
    let run = with_statuses(fails()).run(&format!("{CREATE} -o json"));
    assert_eq!((run.code, run.error()["message"].as_str()), (8, Some(message)));
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).expect("JSON")["name"], "net-dev");
}

#[test]
fn times_out() {
    let fake = FakeControlPlane::start(|received, _| match received.verb.as_str() {
        "network.get" => FakeReply::Data(view(status(&[("ready", None), ("pending", Some("waiting for `x`"))], 4))),
        _ => FakeReply::Data(view(no_status())),
    });
    let run = fake.run(&format!("{CREATE} --wait-timeout 300ms"));
    assert_eq!(run.code, 124, "{}", run.stderr);
    let message = "error: network `net-dev` is not ready on every node after 300ms: node-2: pending: waiting for `x`; \
                   node-3: not reported yet; node-4: not reported yet\nhint: ";
    assert!(run.stderr.contains(message), "{}", run.stderr);
}

#[test]
fn ignores_nodes_that_are_not_awaited() {
    // node-1 joined after the creation and fails; node-4 was unreachable at the creation.
    let statuses = |last: &str| {
        let mut status = status(&[("failed", Some("late")), (last, None), ("ready", None)], 4);
        status["nodes"][0]["awaited"] = json!(false);
        status["unreported"][0]["awaited"] = json!(false);
        status["unreported"][0]["reachable"] = json!(false);
        status
    };
    let fake = FakeControlPlane::start(move |received, before| match (received.verb.as_str(), before) {
        ("network.get", 0) => {
            let mut pending = statuses("pending");
            pending["nodes"][1]["error"] = json!("waiting for `x`");
            FakeReply::ThenOutcome(view(pending))
        }
        ("network.get", _) => FakeReply::Data(view(statuses("ready"))),
        _ => FakeReply::Data(view(no_status())),
    });
    let run = fake.run(CREATE);
    assert_eq!((run.code, run.stderr.as_str()), (0, "1 of 2 nodes ready\nnot waited for: node-4 (unreachable)\n"));
}

#[test]
fn stops_waiting_for_a_node_removed_meanwhile() {
    let statuses = vec![status(&[("ready", None)], 3), status(&[("ready", None)], 2), status(&[("ready", None)], 1)];
    let run = with_statuses(statuses).run(CREATE);
    assert_eq!((run.code, run.stderr.as_str()), (0, "1 of 3 nodes ready\n1 of 2 nodes ready\n"));
}

#[test]
fn names_unreachable_nodes() {
    let mut lost = status(&[("ready", None), ("ready", None), ("pending", Some("waiting for `x`"))], 5);
    lost["nodes"][1]["observed_generation"] = json!(3);
    lost["nodes"][2]["reachable"] = json!(false);
    lost["unreported"][0]["reachable"] = json!(false);
    let fake = FakeControlPlane::start(move |received, _| match received.verb.as_str() {
        "network.get" => FakeReply::Data(view(lost.clone())),
        _ => FakeReply::Data(view(no_status())),
    });
    let run = fake.run(&format!("{CREATE} --wait-timeout 100ms"));
    let message = "network `net-dev` is not ready on every node after 100ms: node-2: ready (outdated); node-3: pending \
                   (unreachable): waiting for `x`; node-4: unreachable, not reported yet; node-5: not reported yet";
    let progress = "1 of 5 nodes ready; unreachable: node-3, node-4\n";
    assert!(run.stderr.starts_with(&format!("{progress}error: {message}\nhint: ")), "{}", run.stderr);
    let run = fake.run(&format!("{CREATE} --wait-timeout 100ms -o json"));
    assert_eq!((run.code, run.error()["message"].as_str()), (124, Some(message)));
    assert_eq!(run.error()["details"]["status"]["unreported"][0]["node_name"], "node-4");
}

#[test]
fn wipes_the_progress_bar_on_a_terminal() {
    let statuses = vec![status(&[], 2), status(&[("ready", None)], 2), status(&[("ready", None), ("ready", None)], 2)];
    let run = with_statuses(statuses).on_terminal(CREATE, "");
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.starts_with("network net-dev created\n"));
    let bars = ["[--------------------] 0 of 2 nodes ready", "[##########----------] 1 of 2 nodes ready"];
    let wipes = bars.map(|bar| format!("{bar}\r{:width$}\r", "", width = bar.len()));
    assert_eq!(run.stderr, wipes.concat());
}

#[test]
fn waits_through_an_outage_of_the_control_plane() {
    let fake = FakeControlPlane::start(|received, before| match (received.verb.as_str(), before) {
        ("network.get", 0..26) => FakeReply::Error(ErrorBody::new(ErrorCode::Unavailable, "starting")),
        ("network.get", _) => FakeReply::Data(view(status(&[("ready", None)], 1))),
        _ => FakeReply::Data(view(no_status())),
    });
    let run = fake.run(CREATE);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.stderr, "starting; still waiting\n");
}

#[test]
fn waits_through_an_outage_of_nats() {
    let back = Arc::new(AtomicBool::new(false));
    let is_back = Arc::clone(&back);
    let mut fake = FakeControlPlane::start(move |received, _| match received.verb.as_str() {
        "network.get" if is_back.load(Ordering::SeqCst) => FakeReply::Data(view(status(&[("ready", None)], 1))),
        "network.get" => FakeReply::Data(view(status(&[], 1))),
        _ => FakeReply::Data(view(no_status())),
    });
    let mut command = fake.command(CREATE);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map(|line| line.expect("UTF-8"));
    assert_eq!(lines.next().as_deref(), Some("0 of 1 node ready"));
    fake.server.kill9();
    let line = lines.next().unwrap_or_default();
    assert!(line.starts_with("cannot reach NATS at") && line.ends_with("; still waiting"), "{line}");
    back.store(true, Ordering::SeqCst);
    fake.server.restart();
    assert_eq!(lines.find(|line| !line.ends_with("; still waiting")), None);
    assert_eq!(child.wait().expect("the program exits").code(), Some(0));
}

#[test]
fn reports_a_conflict_if_the_network_is_deleted_during_the_wait() {
    let fake = FakeControlPlane::start(|received, _| match received.verb.as_str() {
        "network.get" => FakeReply::Error(ErrorBody::new(ErrorCode::NotFound, "gone")),
        _ => FakeReply::Data(view(no_status())),
    });
    fake.run(CREATE).assert_output(
        4,
        &fake.run(CREATE).stdout,
        "error: network `net-dev` was deleted during the wait\n",
    );
}

fn deleted(status: Value) -> Value {
    let mut view = view(status);
    view["deleted_at"] = json!("2026-01-02T04:00:00.000000Z");
    view
}

/// A deleted network's view. Nodes that have confirmed the removal are not awaited.
fn removal_view(nodes: &[(&str, Option<&str>)], expected: usize) -> Value {
    let mut status = status(nodes, expected);
    for node in status["nodes"].as_array_mut().expect("nodes") {
        node["awaited"] = json!(node["status"] != "removed");
    }
    deleted(status)
}

#[test]
fn removal_is_complete_when_not_found() {
    let fake = FakeControlPlane::start(|received, before| match (received.verb.as_str(), before) {
        ("network.get", 0) => {
            // The status of node-2 is about the previous generation.
            let mut view = removal_view(&[("removed", None), ("failed", Some("no room"))], 3);
            view["status"]["nodes"][1]["observed_generation"] = json!(3);
            view["status"]["unreported"][0]["reachable"] = json!(false);
            FakeReply::ThenOutcome(view)
        }
        ("network.get", _) => FakeReply::Error(ErrorBody::new(ErrorCode::NotFound, "gone")),
        ("network.find", _) => FakeReply::Data(view(no_status())),
        _ => FakeReply::Data(deleted(no_status())),
    });
    let progress = "removed from 1 of 3 nodes; unreachable: node-3\n";
    fake.run("network delete net-dev --wait").assert_output(0, "network net-dev deleted\n", progress);
}

/// A control plane whose deleted network keeps this view.
fn with_deleted_view(view: Value) -> FakeControlPlane {
    FakeControlPlane::start(move |received, _| match received.verb.as_str() {
        "network.get" => FakeReply::Data(view.clone()),
        "network.find" => FakeReply::Data(crate::fake::view(no_status())),
        _ => FakeReply::Data(deleted(no_status())),
    })
}

#[test]
fn fails_when_a_removal_fails() {
    let fake = with_deleted_view(removal_view(&[("removed", None), ("failed", Some("port `eth9`"))], 2));
    let run = fake.run("network delete net-dev --wait -o json");
    assert_eq!(run.code, 8, "{}", run.stderr);
    let message = "network `net-dev` could not be removed on `node-2`: port `eth9`";
    assert_eq!(run.error()["message"], message);
    assert!(serde_json::from_str::<Value>(&run.stdout).expect("JSON")["deleted_at"].is_string());
}

#[test]
fn times_out_if_a_removal_is_not_confirmed() {
    let mut view = removal_view(&[("removed", None), ("pending", Some("port `eth9`"))], 4);
    view["status"]["unreported"][1]["reachable"] = json!(false);
    let run = with_deleted_view(view).run("network delete net-dev --wait --wait-timeout 200ms -o json");
    assert_eq!(run.code, 124);
    let message = "network `net-dev` is not removed on every node after 200ms: node-2: pending: port `eth9`; node-3: \
                   not reported yet; node-4: unreachable, not reported yet";
    assert_eq!(run.error()["message"], message);
}
