//! A partitioned node keeps its devices, repairs them, and catches up as soon as it is healed.

use std::time::Instant;

use otherix_testkit::wait::wait_for_blocking;

use crate::lab::{DEADLINE, Lab};

#[test]
fn lab_cluster_node_catches_up_after_partition() {
    let lab = Lab::up("cut", 2);
    let create = |name: &str, bridge: &str| {
        lab.ok(&["network", "create", name, "--bridge-name", bridge, "--managed"]);
    };
    create("before", "br-a");
    create("gone", "br-b");
    let has = |node: u32, name: &str| lab.link(node, name).is_some();
    wait_for_blocking(DEADLINE, "both bridges on node-2", || has(2, "br-a") && has(2, "br-b"));

    lab.lab(&["partition", "node-2"]);
    create("meanwhile", "br-c");
    lab.ok(&["network", "delete", "gone"]);
    wait_for_blocking(DEADLINE, "node-1 to follow", || has(1, "br-c") && !has(1, "br-b"));
    assert!(has(2, "br-b") && !has(2, "br-c"), "node-2 has received nothing");
    lab.lab(&["exec", "node-2", "--", "ip", "link", "delete", "br-a"]);
    wait_for_blocking(DEADLINE, "node-2 to repair its bridge", || has(2, "br-a"));
    let status = &lab.ok(&["network", "get", "meanwhile"])["status"];
    assert_eq!(status["ready"], 1, "{status}");

    lab.lab(&["heal", "node-2"]);
    let healed = Instant::now();
    wait_for_blocking(DEADLINE, "node-2 to catch up", || has(2, "br-a") && has(2, "br-c") && !has(2, "br-b"));
    println!("caught up {} ms after it was healed", healed.elapsed().as_millis());
    let all_ready = || lab.ok(&["network", "get", "meanwhile"])["status"]["ready"] == 2;
    wait_for_blocking(DEADLINE, "node-2 to report it", all_ready);
    println!("and reported it {} ms after it was healed", healed.elapsed().as_millis());
    lab.ok(&["network", "delete", "meanwhile", "--wait"]);
}
