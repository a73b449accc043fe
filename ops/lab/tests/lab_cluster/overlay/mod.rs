//! Overlays in a lab: guests on three nodes, observed by tools without otherix code.

mod faults;
mod injection;
mod reach;
mod reasons;
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
    fn sh(&self, namespace: &str, script: &str) -> String {
        self.lab(&["exec", namespace, "--", "sh", "-ec", script])
    }

    /// The JSON list that a command prints; empty if the device does not exist.
    #[track_caller]
    fn json_list(&self, namespace: &str, command: &str) -> Vec<Value> {
        let output = self.sh(namespace, &format!("{command} || true"));
        if output.is_empty() { Vec::new() } else { serde_json::from_str(&output).unwrap() }
    }

    fn namespace(&self, namespace: &str) -> String {
        format!("otx-{}-{namespace}", self.name)
    }

    /// The mesh addresses and keys of the nodes, from `otherix node get`.
    fn mesh_memberships(&self, nodes: u32) -> BTreeMap<u32, MeshMembership> {
        let membership = |node| {
            let mesh = self.ok(&["node", "get", &format!("node-{node}")])["mesh"].clone();
            let text = |field: &str| mesh[field].as_str().unwrap().to_owned();
            (node, MeshMembership { address: text("address"), key: text("public_key"), endpoint: text("endpoint") })
        };
        (1..=nodes).map(membership).collect()
    }

    /// The peers of a node's device by their keys, as `wg` reports them: endpoint, allowed IPs and keepalive. Empty
    /// while there is no device.
    fn wg_peers(&self, node: u32) -> BTreeMap<String, [String; 3]> {
        let dump = self.sh(&format!("node-{node}"), "wg show otwg0 dump || true");
        let peer = |line: &str| {
            let fields: Vec<_> = line.split('\t').map(str::to_owned).collect();
            (fields[0].clone(), [fields[2].clone(), fields[3].clone(), fields[7].clone()])
        };
        dump.lines().skip(1).map(peer).collect()
    }

    /// The forwarding entries of a VTEP, as `bridge` reports them: pairs of a MAC and the mesh address of its node.
    fn fdb(&self, node: u32, vni: u64) -> Vec<(String, String)> {
        let entries = self.json_list(&format!("node-{node}"), &format!("bridge -j fdb show dev otvx{vni}"));
        let pair = |entry: &Value| Some((entry["mac"].as_str()?.to_owned(), entry["dst"].as_str()?.to_owned()));
        let mut pairs: Vec<_> = entries.iter().filter_map(pair).collect();
        pairs.sort();
        pairs
    }

    /// Returns the network's status as an error unless it is ready on all nodes.
    fn is_ready(&self, network: &str, nodes: u32) -> Result<(), Value> {
        let status = self.ok(&["network", "get", network])["status"].clone();
        if status["ready"] == nodes && status["expected"] == nodes { Ok(()) } else { Err(status) }
    }
}

/// A node's membership of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MeshMembership {
    address: String,
    key: String,
    endpoint: String,
}

/// The expected forwarding entries of a VTEP: every guest on another node, and those nodes for broadcast frames.
fn forwarding<'a>(
    node: u32,
    guests: impl Iterator<Item = &'a OverlayGuest>,
    memberships: &BTreeMap<u32, MeshMembership>,
) -> Vec<(String, String)> {
    let others = guests.filter(|guest| guest.node != node);
    let mut all: Vec<_> = others
        .flat_map(|guest| {
            let to = &memberships[&guest.node].address;
            [(guest.mac.clone(), to.clone()), ("00:00:00:00:00:00".to_owned(), to.clone())]
        })
        .collect();
    all.sort();
    all.dedup();
    all
}
