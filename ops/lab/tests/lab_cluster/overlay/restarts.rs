//! Guests stay connected while agents are killed and restarted, the control plane is down, and a node is rebooted.

use std::collections::BTreeMap;
use std::time::Instant;

use otherix_testkit::wait::wait_for_blocking;
use serde_json::{Value, json};

use super::OverlayGuest;
use super::tools::{Pinger, RunningProgram};
use crate::lab::{DEADLINE, Lab};

pub(super) const NODES: u32 = 3;

/// Number of times each agent is killed.
const ROUNDS: u32 = 3;

/// Pings, one every 5 ms, while the control plane is down: about 15 s.
const PINGS_WHILE_DOWN: u64 = 3_000;

/// A lab with a guest on each node, of which each pings the next.
pub(super) struct Ring {
    pub(super) pingers: BTreeMap<u32, Pinger>,
    pub(super) lab: Lab,
    vni: u64,
    guests: BTreeMap<u32, OverlayGuest>,
}

pub(super) fn next(node: u32) -> u32 {
    node % NODES + 1
}

impl Ring {
    pub(super) fn up(test: &str) -> Self {
        let lab = Lab::up(test, NODES);
        let vni = lab.overlay("ov");
        // Its bridge shows whether an agent reconciles.
        lab.ok(&["network", "create", "canary", "--bridge-name", "br-canary", "--managed", "--wait"]);
        let guests =
            (1..=NODES).map(|node| (node, lab.overlay_guest(&format!("vm{node}"), "ov", node, 10 + node))).collect();
        let mut ring = Self { lab, vni, guests, pingers: BTreeMap::new() };
        (1..=NODES).for_each(|node| ring.ping_from(node));
        ring
    }

    /// Restarts the ping from this node's guest to the next.
    pub(super) fn ping_from(&mut self, node: u32) {
        let address = format!("10.50.0.{}", 10 + next(node));
        self.pingers.remove(&node);
        self.pingers.insert(node, Pinger::start(&self.lab, &format!("vm{node}"), &address));
    }

    /// Waits until a node's agent recreates a deleted bridge.
    fn wait_for_agent(&self, node: u32) {
        self.lab.sh(&format!("node-{node}"), "ip link delete br-canary");
        let is_back = || self.lab.link(node, "br-canary").is_some();
        wait_for_blocking(DEADLINE, &format!("the agent of node-{node} to recreate a bridge"), is_back);
    }

    fn restart_agent(&self, node: u32) {
        let name = format!("node-{node}");
        self.lab.lab(&["kill", &name]);
        self.lab.lab(&["start", &name]);
        self.wait_for_agent(node);
    }

    #[track_caller]
    pub(super) fn assert_none_lost(&mut self, what: &str, at_least: u64) {
        self.pingers.values_mut().for_each(|pinger| pinger.assert_none_lost(what, at_least));
    }

    /// A node's devices, addresses, routes, peers and forwarding entries, without values that differ each time.
    pub(super) fn overlay_state(&self, node: u32) -> Value {
        let namespace = format!("node-{node}");
        let link = |link: &Value| {
            let port =
                ["learning", "locked", "isolated"].map(|field| link["linkinfo"]["info_slave_data"][field].clone());
            let data = ["id", "local", "port", "learning"].map(|field| link["linkinfo"]["info_data"][field].clone());
            let is_up = link["flags"].as_array().unwrap().contains(&"UP".into());
            json!([link["ifname"], link["ifalias"], link["mtu"], link["master"], is_up, port, data])
        };
        let is_managed = |link: &&Value| link["ifname"].as_str().is_some_and(|name| name.starts_with("ot"));
        let mut links: Vec<_> = self.lab.links(node).iter().filter(is_managed).map(link).collect();
        links.sort_by_key(Value::to_string);
        let found = |script: &str, fields: &[&str]| -> Vec<Vec<Value>> {
            let all = self.lab.json_list(&namespace, script);
            let mut all: Vec<Vec<Value>> = all
                .iter()
                .map(|one| fields.iter().map(|field| one.pointer(field).cloned().unwrap_or_default()).collect())
                .collect();
            all.sort_by_key(|one| format!("{one:?}"));
            all
        };
        json!({
            "links": links,
            "addresses": found(
                "ip -4 -j address show dev otwg0",
                &["/addr_info/0/local", "/addr_info/0/prefixlen", "/addr_info/1"],
            ),
            "routes": found("ip -4 -j route show dev otwg0", &["/dst", "/prefsrc", "/scope"]),
            "peers": self.lab.wg_peers(node),
            "forwarding": self.lab.fdb(node, self.vni),
        })
    }

    pub(super) fn all_ready(&self) {
        wait_for_blocking(DEADLINE, "the network to be ready on every node", || self.lab.is_ready("ov", NODES));
    }
}

#[test]
fn lab_cluster_overlay_survives_restarts() {
    let mut ring = Ring::up("stay");
    for _ in 0..ROUNDS {
        (1..=NODES).for_each(|node| ring.restart_agent(node));
    }
    ring.assert_none_lost("agents killed", 1);

    ring.lab.lab(&["stop", "nats"]);
    ring.lab.lab(&["kill", "otherixd"]);
    (1..=NODES).for_each(|node| ring.restart_agent(node));
    ring.assert_none_lost("control plane down, agents killed", PINGS_WHILE_DOWN);

    let _plug = reboot_without_control_plane(&mut ring, 2);

    ring.lab.lab(&["start", "otherixd"]);
    ring.lab.lab(&["start", "nats"]);
    for node in 1..=NODES {
        ring.lab.lab(&["start", &format!("node-{node}")]);
    }
    ring.all_ready();
    ring.assert_none_lost("control plane running again", 1);
    ring.lab.assert_stream_is_journal();
}

/// A node recreates everything from its ledger alone.
fn reboot_without_control_plane(ring: &mut Ring, node: u32) -> RunningProgram {
    let before = ring.overlay_state(node);
    assert_eq!(before["forwarding"].as_array().unwrap().len(), 4);
    ring.lab.lab(&["reboot", &format!("node-{node}")]);
    let start = Instant::now();
    wait_for_blocking(DEADLINE, "the node's state to be restored", || {
        let current = ring.overlay_state(node);
        if current == before { Ok(()) } else { Err(current) }
    });
    println!("rebooted: node-{node} is restored within {} ms", start.elapsed().as_millis());
    // `otherix-lab guest` needs the control plane; its relay does not.
    let ends = [
        ring.lab.namespace(&format!("node-{node}")),
        ring.guests[&node].tap.clone(),
        ring.lab.namespace(&format!("vm:vm{node}")),
    ];
    let relay = [env!("CARGO_BIN_EXE_otherix-lab"), "relay", &ends[0], &ends[1], &ends[2]];
    let relay = RunningProgram::start(&ends[0], &relay);
    let previous = (node + NODES - 2) % NODES + 1;
    for pinger in [previous, node] {
        ring.pingers.get_mut(&pinger).unwrap().wait_for_recovery("rebooted");
    }
    ring.assert_none_lost("rebooted, and plugged in again", 200);
    relay
}
