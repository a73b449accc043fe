//! How networks fare on nodes that join, speak, fall silent and report as the test says: whom `--wait` waits for, what it
//! ends with, and what `get` and `list` show meanwhile.

use otherix_schemas::outcome::Outcome;
use otherix_testkit::wait::wait_for;
use serde_json::{Value, json};

use crate::node::{DEADLINE, Node, is, run, start};
use crate::plane::Plane;

async fn get(plane: &Plane, network: &str) -> Value {
    wait_for(DEADLINE, "the network", async || {
        let got = run(plane, &format!("network get {network} -o json")).await;
        serde_json::from_str(&got.stdout).map_err(|_| got.stderr)
    })
    .await
}

/// A network, as soon as it is deleted.
async fn deleted(plane: &Plane, id: &str) -> Value {
    wait_for(DEADLINE, "the deletion", async || {
        let view = get(plane, id).await;
        if view["deleted_at"].is_null() { Err(view) } else { Ok(view) }
    })
    .await
}

const CREATE: &str = "network create";
const FLAGS: &str = "--managed --wait";

#[tokio::test]
async fn whom_a_wait_waits_for() {
    // Long enough for signs of life that a busy machine delays.
    let plane = Plane::start_with(&["--unreachable-after-ms", "2000"]);
    let mut one = Node::join(&plane, 1).await.beats();
    let mut two = Node::join(&plane, 2).await;
    assert_eq!(run(&plane, "network create probe --bridge-name br-probe").await.code, Some(0));
    wait_for(DEADLINE, "node-2 to be unreachable", async || {
        let silent = get(&plane, "probe").await["status"]["unreported"].clone();
        let reachable: Vec<_> =
            silent.as_array().expect("nodes").iter().map(|node| node["reachable"].clone()).collect();
        if reachable == [json!(true), json!(false)] { Ok(()) } else { Err(silent) }
    })
    .await;
    let probe = run(&plane, "network get probe").await.stdout;
    assert!(probe.ends_with("none of 2 nodes has reported yet: node-1, node-2 (unreachable)\n"), "{probe}");

    // Neither the one that is unreachable nor the one that joins later, although it fails.
    let waiting = start(&plane, &format!("{CREATE} a --bridge-name br-a {FLAGS}"));
    let a = get(&plane, "a").await;
    let mut three = Node::join(&plane, 3).await.beats();
    three.report(&a, Outcome::Failed("no room".to_owned())).await;
    one.report(&a, Outcome::Pending("waiting for `x`".to_owned())).await;
    one.report(&a, Outcome::Ready).await;
    is(&waiting.await.expect("no panic"), 0, "0 of 1 node ready\nnot waited for: node-2 (unreachable)\n");
    let shown = run(&plane, "network get a").await.stdout;
    let table = "status:\nNODE    STATUS  ERROR\nnode-1  ready   -\nnode-3  failed  no room\n\
                 1 of 3 nodes has not reported yet: node-2 (unreachable)\n";
    assert!(shown.ends_with(table), "{shown}");
    let listed = run(&plane, "network list").await.stdout;
    assert!(listed.lines().any(|line| line.starts_with("a ") && line.ends_with(" 1/3")), "{listed}");

    // Out of time: who is missing, and why.
    let late = run(&plane, &format!("{CREATE} b --bridge-name br-b {FLAGS} --wait-timeout 300ms")).await;
    assert_eq!(late.code, Some(124), "{late:?}");
    let message = "error: network `b` is not ready on every node after 300ms: node-1: not reported yet; node-3: not reported yet\nhint: ";
    assert!(late.stdout.starts_with("network b created\n") && late.stderr.contains(message), "{late:?}");

    // One that was waited for fails.
    let waiting = start(&plane, &format!("{CREATE} c --bridge-name br-c {FLAGS} -o json"));
    let c = get(&plane, "c").await;
    three.report(&c, Outcome::Failed("`br-c` is not ours".to_owned())).await;
    let failed = waiting.await.expect("no panic");
    assert_eq!(failed.code, Some(8), "{failed:?}");
    let error: Value = serde_json::from_str(&failed.stderr).expect("one JSON object");
    assert_eq!(error["error"]["message"], "network `c` failed on `node-3`: `br-c` is not ours");
    assert_eq!(serde_json::from_str::<Value>(&failed.stdout).expect("JSON")["name"], "c");

    removals(&plane, [&mut one, &mut two, &mut three], &a, &c).await;
}

/// What `delete --wait` waits for while node-2 is unreachable. `a` and `c` are there, and so is a network `b`.
async fn removals(plane: &Plane, [one, two, three]: [&mut Node; 3], a: &Value, c: &Value) {
    let late = run(plane, "network delete b --wait --wait-timeout 300ms").await;
    assert_eq!((late.code, late.stdout.as_str()), (Some(124), "network b deleted\n"), "{late:?}");
    let message =
        "after 300ms: node-1: not reported yet; node-2: unreachable, not reported yet; node-3: not reported yet\n";
    assert!(late.stderr.contains(message), "{late:?}");

    // It stays readable until all have confirmed it.
    let waiting = start(plane, "network delete a --wait");
    let id = a["id"].as_str().expect("an id");
    let deleted = deleted(plane, id).await;
    one.report(&deleted, Outcome::Removed).await;
    three.report(&deleted, Outcome::Removed).await;
    assert_eq!(run(plane, "network get a").await.code, Some(3));
    let shown = run(plane, &format!("network get {id}")).await.stdout;
    let end = "deleted; removal confirmed by 2 of 3 nodes; not reported yet: node-2 (unreachable)\n";
    assert!(shown.contains("\ndeleted: 20") && shown.ends_with(end), "{shown}");
    assert!(!waiting.is_finished());
    two.report(&deleted, Outcome::Removed).await;
    let gone = waiting.await.expect("no panic");
    assert_eq!((gone.code, gone.stdout.as_str()), (Some(0), "network a deleted\n"), "{gone:?}");
    assert_eq!(run(plane, &format!("network get {id}")).await.code, Some(3));

    // One that cannot remove it.
    let waiting = start(plane, "network delete c --wait");
    let deleted = self::deleted(plane, c["id"].as_str().expect("an id")).await;
    three.report(&deleted, Outcome::Failed("port `eth9` is not ours".to_owned())).await;
    let failed = waiting.await.expect("no panic");
    assert_eq!(failed.code, Some(8), "{failed:?}");
    let message = "error: network `c` could not be removed on `node-3`: port `eth9` is not ours\nhint: ";
    assert!(failed.stderr.contains(message), "{failed:?}");
}

#[tokio::test]
async fn a_node_that_is_removed_is_waited_for_no_longer() {
    let plane = Plane::start_with(&["--unreachable-after-ms", "3600000"]);
    let mut one = Node::join(&plane, 1).await;
    let _two = Node::join(&plane, 2).await;
    let waiting = start(&plane, &format!("{CREATE} a --bridge-name br-a {FLAGS}"));
    let a = get(&plane, "a").await;
    one.report(&a, Outcome::Ready).await;
    wait_for(DEADLINE, "one of two", async || get(&plane, "a").await["status"]["ready"] == 1).await;
    assert!(!waiting.is_finished());
    assert_eq!(run(&plane, "node delete node-2").await.code, Some(0));
    let done = waiting.await.expect("no panic");
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stderr.ends_with("1 of 2 nodes ready\n"), "{done:?}");
    assert_eq!(get(&plane, "a").await["status"]["expected"], 1);

    // Nor for the removal of a network, be it the last one to confirm it.
    let _three = Node::join(&plane, 3).await;
    let waiting = start(&plane, "network delete a --wait");
    let deleted = deleted(&plane, a["id"].as_str().expect("an id")).await;
    one.report(&deleted, Outcome::Removed).await;
    let id = a["id"].as_str().expect("an id");
    let shown = "removal confirmed by 1 of 2 nodes; not reported yet: node-3";
    wait_for(DEADLINE, "one of two", async || run(&plane, &format!("network get {id}")).await.stdout.contains(shown))
        .await;
    assert!(!waiting.is_finished());
    assert_eq!(run(&plane, "node delete node-3 --force").await.code, Some(0));
    let gone = waiting.await.expect("no panic");
    assert_eq!((gone.code, gone.stdout.as_str()), (Some(0), "network a deleted\n"), "{gone:?}");
    assert_eq!(run(&plane, &format!("network get {id}")).await.code, Some(3));
}
