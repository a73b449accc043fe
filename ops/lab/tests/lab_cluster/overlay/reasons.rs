//! What is in the way of an overlay's packets is shown by every command that shows the overlay, and no longer once it
//! is gone. The breaks are made by `nft` and `ip`, and guests judge them by `ping`.

use std::time::{Duration, Instant};

use otherix_testkit::wait::wait_for_blocking;
use serde_json::Value;

use crate::lab::{DEADLINE, Lab};

const NODES: u32 = 3;

/// Size of a ping's payload in a packet of 1,390 bytes, the MTU of the overlay.
const FULL_SIZE: &str = "1362";

/// What breaks the path between node-1 and node-2.
struct Break {
    what: &'static str,
    /// The node and the scripts that break and repair.
    node: u32,
    breaks: &'static str,
    repairs: &'static str,
    /// Part of the reason that each of the two nodes states.
    reasons: [&'static str; 2],
    /// Whether small packets pass.
    is_narrow: bool,
}

const DROP: &str = "nft add table inet broken; \
    nft add chain inet broken input '{ type filter hook input priority 0; }'; \
    nft add chain inet broken output '{ type filter hook output priority 0; }'; nft add rule inet broken";

const BREAKS: [Break; 4] = [
    Break {
        what: "UDP 51820 dropped on arrival",
        node: 2,
        breaks: "input udp dport 51820 drop",
        repairs: "nft delete table inet broken",
        reasons: ["10.99.0.12:51820", "10.99.0.11:51820"],
        is_narrow: false,
    },
    Break {
        what: "UDP 51820 dropped in one direction, to one node",
        node: 1,
        breaks: "output ip daddr 10.99.0.12 udp dport 51820 drop",
        repairs: "nft delete table inet broken",
        reasons: ["UDP", "nothing arrives from 10.99.0.11:51820"],
        is_narrow: false,
    },
    Break {
        what: "an underlay with MTU 1400",
        node: 2,
        breaks: "ip link set eth0 mtu 1400",
        repairs: "ip link set eth0 mtu 1500",
        reasons: ["the path MTU to 10.99.0.12:51820 is", "the path MTU to 10.99.0.11:51820 is 1400 bytes"],
        is_narrow: true,
    },
    Break {
        what: "the underlay's link down",
        node: 2,
        breaks: "ip link set eth0 down",
        repairs: "ip link set eth0 up; ip route replace default via 10.99.0.2",
        reasons: ["10.99.0.12:51820", ""],
        is_narrow: false,
    },
];

#[test]
fn lab_cluster_overlay_shows_what_is_in_the_way() {
    let lab = Lab::up("reasons", NODES);
    lab.overlay("ov");
    for node in 1..=2 {
        lab.overlay_guest(&format!("vm{node}"), "ov", node, 10 + node);
    }
    let all_ready = || lab.is_ready("ov", NODES);
    wait_for_blocking(DEADLINE, "the network to be ready", all_ready);
    assert!(passes(&lab, FULL_SIZE));
    for Break { what, node, breaks, repairs, reasons, is_narrow } in BREAKS {
        let breaks = if breaks.starts_with("ip") { breaks.to_owned() } else { format!("{DROP} {breaks}") };
        lab.sh(&format!("node-{node}"), &breaks);
        let start = Instant::now();
        assert!(!passes(&lab, FULL_SIZE) && passes(&lab, "8") == is_narrow, "{what}: the break breaks nothing");
        let judged = start.elapsed();
        let mut shown = Vec::new();
        for (node, reason) in (1..).zip(reasons) {
            if !reason.is_empty() {
                shown.push(shows_reason(&lab, node, reason, what));
            }
        }
        if what.contains("one direction") {
            assert_eq!(status_on(&lab, 3).0, "ready", "node-3 reaches both");
            waiting_states_the_reason(&lab, reasons[0]);
        }
        lab.sh(&format!("node-{node}"), repairs);
        let start = Instant::now();
        wait_for_blocking(DEADLINE, &format!("{what}: the network to be ready again"), all_ready);
        let repaired = start.elapsed();
        assert!(passes(&lab, FULL_SIZE), "{what}");
        wait_for_blocking(DEADLINE, &format!("{what}: the VMs to be ready again"), || {
            (1..=2).all(|node| lab.ok(&["vm", "get", &format!("vm{node}")])["status"] == "ready")
        });
        println!("{what}: judged after {judged:?}, shown {shown:?} later, gone {repaired:?} after the repair");
    }
}

/// Whether a ping with this payload passes from the first guest to the second.
fn passes(lab: &Lab, size: &str) -> bool {
    lab.ping("vm1", &["-Mdo", "-s", size, "10.50.0.12"])
}

/// The status of the overlay on a node, and its error.
fn status_on(lab: &Lab, node: u32) -> (String, String) {
    let network = lab.ok(&["network", "get", "ov"]);
    let name = format!("node-{node}");
    let status = network["status"]["nodes"].as_array().unwrap().iter().find(|one| one["node_name"] == name.as_str());
    let text = |field: &str| status.unwrap()[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("error"))
}

/// Waits until `network get`, `node get` and `vm get` show the reason on a node. Returns how long it took.
fn shows_reason(lab: &Lab, node: u32, reason: &str, what: &str) -> Duration {
    let start = Instant::now();
    wait_for_blocking(DEADLINE, &format!("{what}: the reason on node-{node}"), || {
        let (status, error) = status_on(lab, node);
        if status == "pending" && error.contains(reason) { Ok(()) } else { Err((status, error)) }
    });
    let taken = start.elapsed();
    let is_shown = |view: &Value| view["status"] == "pending" && view["error"].as_str().unwrap().contains(reason);
    let get = |words: &[&str]| lab.ok(words);
    wait_for_blocking(DEADLINE, &format!("{what}: the reason in `vm get`"), || {
        let vm = get(&["vm", "get", &format!("vm{node}")]);
        if is_shown(&vm) { Ok(()) } else { Err(vm) }
    });
    let networks = get(&["node", "get", &format!("node-{node}")])["networks"].clone();
    assert!(networks.as_array().unwrap().iter().any(is_shown), "{what}: {networks}");
    taken
}

/// `--wait` states the reason.
fn waiting_states_the_reason(lab: &Lab, reason: &str) {
    let image = ["--image-url", "https://images.example/debian-12.qcow2", "--arch", "amd64", "--tap-only"];
    let wait = ["--network", "ov", "--node", "node-1", "--wait", "--wait-timeout", "2s"];
    let output = lab.otherix(&[&["vm", "create", "late"][..], &image, &wait].concat());
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(124), "{error}");
    assert!(error.contains(reason) && error.contains("10.99.0.12"), "{error}");
    lab.ok(&["vm", "delete", "late", "--force", "--wait"]);
}
