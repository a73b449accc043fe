//! Overlays in a lab: guests on three nodes, observed by tools without otherix code.

mod faults;
mod injection;
mod reach;
mod restarts;
mod tools;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::lab::Lab;

/// A guest: its node, tap and MAC.
#[derive(Clone, Debug)]
struct OverlayGuest {
    node: u32,
    tap: String,
    mac: String,
}

impl Lab {
    /// Creates an overlay, and returns its VNI.
    fn overlay(&self, name: &str) -> u64 {
        let create = ["network", "create", name, "--type", "overlay", "--subnet", "10.50.0.0/24", "--wait"];
        self.ok(&create)["vni"].as_u64().unwrap()
    }

    /// A VM with a guest on a node. Its address ends in the given number.
    fn overlay_guest(&self, name: &str, network: &str, node: u32, number: u32) -> OverlayGuest {
        let options = ["--network", network, "--node", &format!("node-{node}")];
        let nic = self.guest_of(name, &options, &format!("10.50.0.{number}/24"));
        let text = |field: &str| nic[field].as_str().unwrap().to_owned();
        OverlayGuest { node, tap: text("tap"), mac: text("mac") }
    }

    #[track_caller]
    fn sh(&self, place: &str, script: &str) -> String {
        self.lab(&["exec", place, "--", "sh", "-ec", script])
    }

    /// The JSON output of a command; empty if the device does not exist.
    #[track_caller]
    fn listed(&self, place: &str, command: &str) -> Vec<Value> {
        let said = self.sh(place, &format!("{command} || true"));
        if said.is_empty() { Vec::new() } else { serde_json::from_str(&said).unwrap() }
    }

    fn namespace(&self, place: &str) -> String {
        format!("otx-{}-{place}", self.name)
    }

    /// The mesh addresses and keys of the nodes, from `otherix node get`.
    fn places(&self, nodes: u32) -> BTreeMap<u32, Place> {
        let place = |node| {
            let mesh = self.ok(&["node", "get", &format!("node-{node}")])["mesh"].clone();
            let text = |field: &str| mesh[field].as_str().unwrap().to_owned();
            (node, Place { address: text("address"), key: text("public_key"), endpoint: text("endpoint") })
        };
        (1..=nodes).map(place).collect()
    }

    /// The peers of a node's device, by `wg`: what each is told to be, by its key. None while there is no device.
    fn wg_peers(&self, node: u32) -> BTreeMap<String, [String; 3]> {
        let dump = self.sh(&format!("node-{node}"), "wg show otwg0 dump || true");
        let peer = |line: &str| {
            let fields: Vec<_> = line.split('\t').map(str::to_owned).collect();
            (fields[0].clone(), [fields[2].clone(), fields[3].clone(), fields[7].clone()])
        };
        dump.lines().skip(1).map(peer).collect()
    }

    /// What a VTEP is told of others, by `bridge`: pairs of an address and the node that has it.
    fn fdb(&self, node: u32, vni: u64) -> Vec<(String, String)> {
        let entries = self.listed(&format!("node-{node}"), &format!("bridge -j fdb show dev otvx{vni}"));
        let pair = |entry: &Value| Some((entry["mac"].as_str()?.to_owned(), entry["dst"].as_str()?.to_owned()));
        let mut pairs: Vec<_> = entries.iter().filter_map(pair).collect();
        pairs.sort();
        pairs
    }

    /// Asserts that every node has reported the network ready and nothing else.
    fn is_ready(&self, network: &str, nodes: u32) -> Result<(), Value> {
        let status = self.ok(&["network", "get", network])["status"].clone();
        if status["ready"] == nodes && status["expected"] == nodes { Ok(()) } else { Err(status) }
    }
}

/// A node's place in the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    address: String,
    key: String,
    endpoint: String,
}

/// What each VTEP must be told: every guest that is on another node, and those nodes for what goes to everybody.
fn forwarding<'a>(
    node: u32,
    guests: impl Iterator<Item = &'a OverlayGuest>,
    places: &BTreeMap<u32, Place>,
) -> Vec<(String, String)> {
    let others = guests.filter(|guest| guest.node != node);
    let mut all: Vec<_> = others
        .flat_map(|guest| {
            let to = &places[&guest.node].address;
            [(guest.mac.clone(), to.clone()), ("00:00:00:00:00:00".to_owned(), to.clone())]
        })
        .collect();
    all.sort();
    all.dedup();
    all
}
