//! Managed bridges on every node, and their events.

use std::thread;

use otherix_testkit::wait::wait_for_blocking;

use crate::lab::{DEADLINE, Lab};

#[test]
fn lab_cluster_creates_and_removes_managed_bridge() {
    let lab = Lab::up("bridge", 3);
    let created =
        lab.ok(&["network", "create", "net", "--bridge-name", "br-a", "--managed", "--mtu", "9000", "--wait"]);
    let id = created["id"].as_str().unwrap();
    for node in 1..=3 {
        let link = lab.link(node, "br-a").expect("the bridge exists");
        assert_eq!(link["linkinfo"]["info_kind"], "bridge");
        assert_eq!(link["mtu"], 9000);
        assert!(link["flags"].as_array().unwrap().contains(&"UP".into()), "{link}");
        let alias = link["ifalias"].as_str().unwrap();
        assert!(alias.starts_with("otherix:") && alias.ends_with(id), "{alias}");
    }
    let status = &lab.ok(&["network", "get", "NET"])["status"];
    assert_eq!((&status["ready"], &status["expected"]), (&3.into(), &3.into()));
    for row in status["nodes"].as_array().unwrap() {
        assert_eq!((&row["status"], &row["observed_generation"]), (&"ready".into(), &created["generation"]));
    }
    lab.ok(&["network", "delete", "net", "--wait"]);
    for node in 1..=3 {
        assert_eq!(lab.link(node, "br-a"), None);
    }
    assert_eq!(lab.otherix(&["network", "get", id]).status.code(), Some(3), "all nodes have confirmed");
    lab.assert_stream_is_journal();
}

#[test]
fn lab_cluster_publishes_every_decision_and_outcome() {
    let lab = Lab::up("live", 2);
    let joined = lab.events(1).len();
    // Two decisions, and an outcome of each node for each of them.
    let last = joined + 6;
    let folder = otherix_testkit::tempdir().unwrap();
    let marker = folder.path().join("listening");
    let live = thread::scope(|scope| {
        let reader = scope.spawn(|| lab.read(&["live", &last.to_string(), marker.to_str().unwrap()]));
        wait_for_blocking(DEADLINE, "the subscription", || marker.exists());
        lab.ok(&["network", "create", "net", "--bridge-name", "br-a", "--managed", "--wait"]);
        lab.ok(&["network", "delete", "net", "--wait"]);
        reader.join().unwrap()
    });
    assert_eq!(live, lab.events(joined + 1));
    let types = lab.journal("SELECT type FROM events ORDER BY position");
    let reconciled = "dev.otherix.node.reconciled.v3";
    assert_eq!(
        types[joined..],
        [
            "dev.otherix.network.created.v2",
            reconciled,
            reconciled,
            "dev.otherix.network.deleted.v1",
            reconciled,
            reconciled
        ]
    );
}

#[test]
fn lab_cluster_reports_failures() {
    let lab = Lab::up("failed", 1);
    let output = lab.otherix(&["network", "create", "net", "--wait", "--bridge-name", "br-foreign"]);
    assert_eq!(output.status.code(), Some(8), "{}", String::from_utf8_lossy(&output.stderr));
    let view = lab.ok(&["network", "get", "net"]);
    let node = &view["status"]["nodes"][0];
    assert_eq!(node["status"], "failed");
    assert!(node["error"].as_str().unwrap().contains("br-foreign"), "{node}");
    assert_eq!(lab.link(1, "br-foreign"), None, "nothing is left half created");
    lab.ok(&["network", "delete", "net", "--wait"]);
}
