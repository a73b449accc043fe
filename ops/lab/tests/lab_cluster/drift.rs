//! Drift of a managed bridge is repaired on every node, without a timer. The deadline is generous; the measured time is
//! printed (`cargo nextest run --no-capture`).

use std::time::Instant;

use otherix_testkit::wait::wait_for_blocking;
use serde_json::{Value, json};

use crate::lab::{DEADLINE, Lab};

const NODES: u32 = 3;

/// Kinds of drift, each with its command.
const DRIFTS: [(&str, &str); 5] = [
    ("deleted", "ip link delete br-a"),
    ("down", "ip link set br-a down"),
    ("MTU", "ip link set br-a mtu 1400"),
    ("alias", "ip link set br-a alias mine"),
    ("renamed", "ip link set br-a down && ip link set br-a name br-b"),
];

/// The managed bridges on a node, even if renamed: name, kind, MTU, whether up, alias.
fn managed_links(lab: &Lab, node: u32) -> Vec<Value> {
    let links = lab.links(node);
    let managed = links.iter().filter(|link| {
        let name = link["ifname"].as_str().unwrap();
        link["ifalias"].as_str().is_some_and(|alias| alias.starts_with("otherix:") && alias != "otherix:mesh")
            || name.starts_with("br-")
    });
    managed
        .map(|link| {
            let is_up = link["flags"].as_array().unwrap().contains(&"UP".into());
            json!([link["ifname"], link["linkinfo"]["info_kind"], link["mtu"], is_up, link["ifalias"]])
        })
        .collect()
}

#[test]
fn lab_cluster_repairs_drift() {
    let lab = Lab::up("drift", NODES);
    lab.ok(&["network", "create", "net", "--bridge-name", "br-a", "--managed", "--mtu", "1450", "--wait"]);
    let expected = managed_links(&lab, 1);
    assert_eq!(expected.len(), 1);
    for (kind, command) in DRIFTS {
        for node in 1..=NODES {
            lab.lab(&["exec", &format!("node-{node}"), "--", "sh", "-c", command]);
        }
        let start = Instant::now();
        let repaired = || (1..=NODES).all(|node| managed_links(&lab, node) == expected);
        wait_for_blocking(DEADLINE, &format!("{kind}: repair on every node"), repaired);
        println!("drift {kind}: repaired on {NODES} nodes, {} ms after the last fault", start.elapsed().as_millis());
    }
    let all_ready = || lab.ok(&["network", "get", "net"])["status"]["ready"] == NODES;
    wait_for_blocking(DEADLINE, "every node to be ready", all_ready);
}
