//! `--wait`: until every node is ready, or has confirmed the removal.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use otherix_schemas::error::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use crate::fake::{Fake, Reply, no_status, status, view};

const CREATE: &str = "network create net-dev --bridge-name br-dev --managed --wait";

/// A control plane whose network fares like this, one after the other; each look is followed by an outcome.
fn faring(course: Vec<Value>) -> Fake {
    Fake::start(move |seen, before| match seen.verb.as_str() {
        "network.get" => Reply::ThenOutcome(view(course[before.min(course.len() - 1)].clone())),
        _ => Reply::Data(view(no_status())),
    })
}

#[test]
fn ready_on_every_node() {
    let course = || {
        let pending = status(&[("ready", None), ("pending", Some("waiting"))], 2);
        let mut outdated = status(&[("ready", None), ("failed", Some("old"))], 2);
        outdated["nodes"][1]["observed_generation"] = json!(3);
        vec![status(&[], 2), outdated, pending, status(&[("ready", None), ("ready", None)], 2)]
    };
    let start = Instant::now();
    let run = faring(course()).run(CREATE);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.starts_with("network net-dev created\n"));
    assert_eq!(run.stderr, "0 of 2 nodes ready\n1 of 2 nodes ready\n");
    assert!(start.elapsed() < Duration::from_millis(2500), "outcomes wake, not the timer: {:?}", start.elapsed());

    let run = faring(course()).run(&format!("{CREATE} -o json"));
    run.is(0, &run.stdout, "");
    let shown: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(shown["status"]["ready"], 2);
}

#[test]
fn no_nodes_is_success_at_once() {
    let run = faring(vec![status(&[], 0)]).run(CREATE);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn a_node_that_fails_ends_the_wait() {
    let fails = || vec![status(&[], 2), status(&[("failed", Some("`br-dev` is not ours"))], 2)];
    let run = faring(fails()).run(CREATE);
    assert_eq!(run.code, 8, "{}", run.stderr);
    assert!(run.stdout.starts_with("network net-dev created\n"));
    let message = "network `net-dev` failed on `node-1`: `br-dev` is not ours";
    assert!(run.stderr.contains(&format!("\nerror: {message}\nhint: ")), "{}", run.stderr);
    let run = faring(fails()).run(&format!("{CREATE} -o json"));
    assert_eq!((run.code, run.error()["message"].as_str()), (8, Some(message)));
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).expect("JSON")["name"], "net-dev");
}

#[test]
fn the_time_runs_out() {
    let fake = Fake::start(|seen, _| match seen.verb.as_str() {
        "network.get" => Reply::Data(view(status(&[("ready", None), ("pending", Some("waiting for `x`"))], 4))),
        _ => Reply::Data(view(no_status())),
    });
    let run = fake.run(&format!("{CREATE} --wait-timeout 300ms"));
    assert_eq!(run.code, 124, "{}", run.stderr);
    let message = "error: network `net-dev` is not ready on every node after 300ms: node-2: pending: waiting for `x`; \
                   node-3: not reported yet; node-4: not reported yet\nhint: ";
    assert!(run.stderr.contains(message), "{}", run.stderr);
}

#[test]
fn only_awaited_nodes_count() {
    // node-1 joined behind the creation and fails; node-4 was unreachable then.
    let course = |last: &str| {
        let mut status = status(&[("failed", Some("late")), (last, None), ("ready", None)], 4);
        status["nodes"][0]["awaited"] = json!(false);
        status["unreported"][0]["awaited"] = json!(false);
        status["unreported"][0]["reachable"] = json!(false);
        status
    };
    let fake = Fake::start(move |seen, before| match (seen.verb.as_str(), before) {
        ("network.get", 0) => {
            let mut pending = course("pending");
            pending["nodes"][1]["error"] = json!("waiting for `x`");
            Reply::ThenOutcome(view(pending))
        }
        ("network.get", _) => Reply::Data(view(course("ready"))),
        _ => Reply::Data(view(no_status())),
    });
    let run = fake.run(CREATE);
    assert_eq!((run.code, run.stderr.as_str()), (0, "1 of 2 nodes ready\nnot waited for: node-4 (unreachable)\n"));
}

#[test]
fn a_node_that_is_removed_meanwhile_is_not_waited_for_any_more() {
    let course = vec![status(&[("ready", None)], 3), status(&[("ready", None)], 2), status(&[("ready", None)], 1)];
    let run = faring(course).run(CREATE);
    assert_eq!((run.code, run.stderr.as_str()), (0, "1 of 3 nodes ready\n1 of 2 nodes ready\n"));
}

#[test]
fn unreachable_nodes_are_named() {
    let mut lost = status(&[("ready", None), ("ready", None), ("pending", Some("waiting for `x`"))], 5);
    lost["nodes"][1]["observed_generation"] = json!(3);
    lost["nodes"][2]["reachable"] = json!(false);
    lost["unreported"][0]["reachable"] = json!(false);
    let fake = Fake::start(move |seen, _| match seen.verb.as_str() {
        "network.get" => Reply::Data(view(lost.clone())),
        _ => Reply::Data(view(no_status())),
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
fn a_bar_on_a_terminal_is_wiped() {
    let course = vec![status(&[], 2), status(&[("ready", None)], 2), status(&[("ready", None), ("ready", None)], 2)];
    let run = faring(course).on_terminal(CREATE, "");
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.starts_with("network net-dev created\n"));
    let bars = ["[--------------------] 0 of 2 nodes ready", "[##########----------] 1 of 2 nodes ready"];
    let wipes = bars.map(|bar| format!("{bar}\r{:width$}\r", "", width = bar.len()));
    assert_eq!(run.stderr, wipes.concat());
}

#[test]
fn a_control_plane_that_goes_away_meanwhile_is_waited_for() {
    let fake = Fake::start(|seen, before| match (seen.verb.as_str(), before) {
        ("network.get", 0..26) => Reply::Error(ErrorBody::new(ErrorCode::Unavailable, "starting")),
        ("network.get", _) => Reply::Data(view(status(&[("ready", None)], 1))),
        _ => Reply::Data(view(no_status())),
    });
    let run = fake.run(CREATE);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.stderr, "starting; still waiting\n");
}

#[test]
fn nats_that_goes_away_meanwhile_is_waited_for() {
    let back = Arc::new(AtomicBool::new(false));
    let is_back = Arc::clone(&back);
    let mut fake = Fake::start(move |seen, _| match seen.verb.as_str() {
        "network.get" if is_back.load(Ordering::SeqCst) => Reply::Data(view(status(&[("ready", None)], 1))),
        "network.get" => Reply::Data(view(status(&[], 1))),
        _ => Reply::Data(view(no_status())),
    });
    let mut command = fake.command(CREATE);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map(|line| line.expect("UTF-8"));
    assert_eq!(lines.next().as_deref(), Some("0 of 1 node ready"));
    fake.server.kill9();
    let line = lines.next().unwrap_or_default();
    assert!(line.starts_with("cannot reach NATS at") && line.ends_with("; still waiting"), "{line}");
    back.store(true, Ordering::SeqCst);
    fake.server.restart();
    assert_eq!(lines.find(|line| !line.ends_with("; still waiting")), None);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_network_that_is_deleted_meanwhile_is_not_waited_for() {
    let fake = Fake::start(|seen, _| match seen.verb.as_str() {
        "network.get" => Reply::Error(ErrorBody::new(ErrorCode::NotFound, "gone")),
        _ => Reply::Data(view(no_status())),
    });
    fake.run(CREATE).is(4, &fake.run(CREATE).stdout, "error: network `net-dev` was deleted during the wait\n");
}

fn deleted(status: Value) -> Value {
    let mut view = view(status);
    view["deleted_at"] = json!("2026-01-02T04:00:00.000000Z");
    view
}

/// The nodes that have confirmed are not awaited any more.
fn removing(nodes: &[(&str, Option<&str>)], expected: usize) -> Value {
    let mut status = status(nodes, expected);
    for node in status["nodes"].as_array_mut().expect("nodes") {
        node["awaited"] = json!(node["status"] != "removed");
    }
    deleted(status)
}

#[test]
fn a_removal_is_confirmed_by_not_being_found() {
    let fake = Fake::start(|seen, before| match (seen.verb.as_str(), before) {
        ("network.get", 0) => {
            // What node-2 says is about the network as it was before.
            let mut view = removing(&[("removed", None), ("failed", Some("no room"))], 3);
            view["status"]["nodes"][1]["observed_generation"] = json!(3);
            view["status"]["unreported"][0]["reachable"] = json!(false);
            Reply::ThenOutcome(view)
        }
        ("network.get", _) => Reply::Error(ErrorBody::new(ErrorCode::NotFound, "gone")),
        ("network.find", _) => Reply::Data(view(no_status())),
        _ => Reply::Data(deleted(no_status())),
    });
    let progress = "removed from 1 of 3 nodes; unreachable: node-3\n";
    fake.run("network delete net-dev --wait").is(0, "network net-dev deleted\n", progress);
}

/// A control plane whose deleted network fares like this for ever.
fn stuck(view: Value) -> Fake {
    Fake::start(move |seen, _| match seen.verb.as_str() {
        "network.get" => Reply::Data(view.clone()),
        "network.find" => Reply::Data(crate::fake::view(no_status())),
        _ => Reply::Data(deleted(no_status())),
    })
}

#[test]
fn a_removal_that_fails_ends_the_wait() {
    let fake = stuck(removing(&[("removed", None), ("failed", Some("port `eth9`"))], 2));
    let run = fake.run("network delete net-dev --wait -o json");
    assert_eq!(run.code, 8, "{}", run.stderr);
    let message = "network `net-dev` could not be removed on `node-2`: port `eth9`";
    assert_eq!(run.error()["message"], message);
    assert!(serde_json::from_str::<Value>(&run.stdout).expect("JSON")["deleted_at"].is_string());
}

#[test]
fn a_removal_that_is_not_confirmed_runs_out_of_time() {
    let mut view = removing(&[("removed", None), ("pending", Some("port `eth9`"))], 4);
    view["status"]["unreported"][1]["reachable"] = json!(false);
    let run = stuck(view).run("network delete net-dev --wait --wait-timeout 200ms -o json");
    assert_eq!(run.code, 124);
    let message = "network `net-dev` is not removed on every node after 200ms: node-2: pending: port `eth9`; node-3: not reported \
                   yet; node-4: unreachable, not reported yet";
    assert_eq!(run.error()["message"], message);
}
