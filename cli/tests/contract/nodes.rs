//! The status of networks on nodes that join, become unreachable and report as the test requires: which nodes `--wait`
//! waits for, its exit code, and what `get` and `list` show meanwhile.

use otherix_schemas::outcome::Outcome;
use otherix_testkit::wait::wait_for;
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::node::{DEADLINE, SimulatedNode, assert_stderr, run, start};

async fn get(control_plane: &ControlPlane, network: &str) -> Value {
    wait_for(DEADLINE, "the network", async || {
        let got = run(control_plane, &format!("network get {network} -o json")).await;
        serde_json::from_str(&got.stdout).map_err(|_| got.stderr)
    })
    .await
}

/// Returns the view of a network once it is deleted.
async fn deleted(control_plane: &ControlPlane, id: &str) -> Value {
    wait_for(DEADLINE, "the deletion", async || {
        let view = get(control_plane, id).await;
        if view["deleted_at"].is_null() { Err(view) } else { Ok(view) }
    })
    .await
}

const CREATE: &str = "network create";
const FLAGS: &str = "--managed --wait";

#[tokio::test]
async fn waits_for_the_nodes_reachable_at_creation() {
    // Long enough for heartbeats that a busy machine delays.
    let control_plane = ControlPlane::start_with(&["--unreachable-after-ms", "2000"]);
    let mut one = SimulatedNode::join(&control_plane, 1).await.with_heartbeats();
    let mut two = SimulatedNode::join(&control_plane, 2).await;
    assert_eq!(run(&control_plane, "network create probe --bridge-name br-probe").await.code, Some(0));
    wait_for(DEADLINE, "node-2 to be unreachable", async || {
        let unreported = get(&control_plane, "probe").await["status"]["unreported"].clone();
        let reachable: Vec<_> =
            unreported.as_array().expect("nodes").iter().map(|node| node["reachable"].clone()).collect();
        if reachable == [json!(true), json!(false)] { Ok(()) } else { Err(unreported) }
    })
    .await;
    let probe = run(&control_plane, "network get probe").await.stdout;
    assert!(probe.contains("\nnone of 2 nodes has reported yet: node-1, node-2 (unreachable)\n"), "{probe}");

    // Neither for the unreachable node nor for one that joins later, even if that fails.
    let waiting = start(&control_plane, &format!("{CREATE} a --bridge-name br-a {FLAGS}"));
    let a = get(&control_plane, "a").await;
    let mut three = SimulatedNode::join(&control_plane, 3).await.with_heartbeats();
    three.report(&a, Outcome::Failed("no room".to_owned())).await;
    one.report(&a, Outcome::Pending("waiting for `x`".to_owned())).await;
    one.report(&a, Outcome::Ready).await;
    assert_stderr(&waiting.await.expect("no panic"), 0, "0 of 1 node ready\nnot waited for: node-2 (unreachable)\n");
    let shown = run(&control_plane, "network get a").await.stdout;
    let table = "status:\nNODE    STATUS  ERROR\nnode-1  ready   -\nnode-3  failed  no room\n\
                 1 of 3 nodes has not reported yet: node-2 (unreachable)\n";
    assert!(shown.contains(table), "{shown}");
    let listed = run(&control_plane, "network list").await.stdout;
    assert!(listed.lines().any(|line| line.starts_with("a ") && line.ends_with(" 1/3")), "{listed}");

    // A timeout names the nodes that are not ready, and their errors.
    let late = run(&control_plane, &format!("{CREATE} b --bridge-name br-b {FLAGS} --wait-timeout 300ms")).await;
    assert_eq!(late.code, Some(124), "{late:?}");
    let message = "error: network `b` is not ready on every node after 300ms: node-1: not reported yet; node-3: \
                   not reported yet\nhint: ";
    assert!(late.stdout.starts_with("network b created\n") && late.stderr.contains(message), "{late:?}");

    // An awaited node fails.
    let waiting = start(&control_plane, &format!("{CREATE} c --bridge-name br-c {FLAGS} -o json"));
    let c = get(&control_plane, "c").await;
    three.report(&c, Outcome::Failed("`br-c` is not ours".to_owned())).await;
    let failed = waiting.await.expect("no panic");
    assert_eq!(failed.code, Some(8), "{failed:?}");
    let error: Value = serde_json::from_str(&failed.stderr).expect("one JSON object");
    assert_eq!(error["error"]["message"], "network `c` failed on `node-3`: `br-c` is not ours");
    assert_eq!(serde_json::from_str::<Value>(&failed.stdout).expect("JSON")["name"], "c");

    removals(&control_plane, [&mut one, &mut two, &mut three], &a, &c).await;
}

/// `delete --wait` while node-2 is unreachable. The networks `a`, `b` and `c` exist.
async fn removals(control_plane: &ControlPlane, [one, two, three]: [&mut SimulatedNode; 3], a: &Value, c: &Value) {
    let late = run(control_plane, "network delete b --wait --wait-timeout 300ms").await;
    assert_eq!((late.code, late.stdout.as_str()), (Some(124), "network b deleted\n"), "{late:?}");
    let message =
        "after 300ms: node-1: not reported yet; node-2: unreachable, not reported yet; node-3: not reported yet\n";
    assert!(late.stderr.contains(message), "{late:?}");

    // The network can be shown until all nodes have confirmed its removal.
    let waiting = start(control_plane, "network delete a --wait");
    let id = a["id"].as_str().expect("an id");
    let deleted = deleted(control_plane, id).await;
    one.report(&deleted, Outcome::Removed).await;
    three.report(&deleted, Outcome::Removed).await;
    let listed = run(control_plane, "network list").await.stdout;
    assert!(listed.lines().any(|line| line.starts_with("a ") && line.ends_with("  deleting")), "{listed}");
    let named = run(control_plane, "network list -o name").await.stdout;
    assert!(named.lines().all(|name| name != "a"), "{named}");
    let again = run(control_plane, "network delete a").await;
    assert_eq!(again.code, Some(3));
    let expected = "error: network `a` is deleted, and not removed from every node yet\nhint: ";
    assert!(again.stderr.starts_with(expected), "{again:?}");
    let shown = run(control_plane, "network get A").await.stdout;
    assert_eq!(run(control_plane, &format!("network get {id}")).await.stdout, shown);
    let end = "deleting; removal confirmed by 2 of 3 nodes; not reported yet: node-2 (unreachable)\n";
    assert!(shown.contains("\ndeleted: 20") && shown.ends_with(end), "{shown}");
    assert!(!waiting.is_finished());
    two.report(&deleted, Outcome::Removed).await;
    let gone = waiting.await.expect("no panic");
    assert_eq!((gone.code, gone.stdout.as_str()), (Some(0), "network a deleted\n"), "{gone:?}");
    assert_eq!(run(control_plane, &format!("network get {id}")).await.code, Some(3));

    // A node cannot remove it.
    let waiting = start(control_plane, "network delete c --wait");
    let deleted = self::deleted(control_plane, c["id"].as_str().expect("an id")).await;
    three.report(&deleted, Outcome::Failed("port `eth9` is not ours".to_owned())).await;
    let failed = waiting.await.expect("no panic");
    assert_eq!(failed.code, Some(8), "{failed:?}");
    let message = "error: network `c` could not be removed on `node-3`: port `eth9` is not ours\nhint: ";
    assert!(failed.stderr.contains(message), "{failed:?}");
}

#[tokio::test]
async fn stops_waiting_for_a_removed_node() {
    let control_plane = ControlPlane::start_with(&["--unreachable-after-ms", "3600000"]);
    let mut one = SimulatedNode::join(&control_plane, 1).await;
    let _two = SimulatedNode::join(&control_plane, 2).await;
    let waiting = start(&control_plane, &format!("{CREATE} a --bridge-name br-a {FLAGS}"));
    let a = get(&control_plane, "a").await;
    one.report(&a, Outcome::Ready).await;
    wait_for(DEADLINE, "one of two", async || get(&control_plane, "a").await["status"]["ready"] == 1).await;
    assert!(!waiting.is_finished());
    assert_eq!(run(&control_plane, "node delete node-2").await.code, Some(0));
    let done = waiting.await.expect("no panic");
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stderr.ends_with("1 of 2 nodes ready\n"), "{done:?}");
    assert_eq!(get(&control_plane, "a").await["status"]["expected"], 1);

    // The same for the removal of a network, even if the removed node is the last one to confirm it.
    let _three = SimulatedNode::join(&control_plane, 3).await;
    let waiting = start(&control_plane, "network delete a --wait");
    let deleted = deleted(&control_plane, a["id"].as_str().expect("an id")).await;
    one.report(&deleted, Outcome::Removed).await;
    let id = a["id"].as_str().expect("an id");
    let shown = "removal confirmed by 1 of 2 nodes; not reported yet: node-3";
    wait_for(DEADLINE, "one of two", async || {
        run(&control_plane, &format!("network get {id}")).await.stdout.contains(shown)
    })
    .await;
    assert!(!waiting.is_finished());
    assert_eq!(run(&control_plane, "node delete node-3 --force").await.code, Some(0));
    let gone = waiting.await.expect("no panic");
    assert_eq!((gone.code, gone.stdout.as_str()), (Some(0), "network a deleted\n"), "{gone:?}");
    assert_eq!(run(&control_plane, &format!("network get {id}")).await.code, Some(3));
}
