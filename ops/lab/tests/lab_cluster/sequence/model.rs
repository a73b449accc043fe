//! The state that every node must have, derived from the events alone. It shares neither code nor types with the
//! product: an event is JSON, and a fact is a line of text, in the form of [`super::observed`].

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The state of a node.
pub(super) type Facts = BTreeSet<String>;

/// The state that the events imply.
#[derive(Default)]
pub(super) struct Cluster {
    id: String,
    position: u64,
    /// The member nodes by their ids.
    nodes: BTreeMap<String, Node>,
    machines: BTreeSet<String>,
    networks: BTreeMap<String, Network>,
    vms: BTreeMap<String, String>,
    nics: BTreeMap<String, Nic>,
}

struct Node {
    name: String,
    membership: Option<MeshMembership>,
}

/// A node's membership of the mesh.
struct MeshMembership {
    address: String,
    key: String,
    endpoint: String,
}

struct Network {
    name: String,
    bridge: String,
    mtu: u64,
    vni: Option<u64>,
}

struct Nic {
    vm: String,
    network: String,
    mac: String,
    tap: String,
    node: Option<String>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string")).to_owned()
}

impl Cluster {
    /// Applies the next event.
    pub(super) fn apply(&mut self, event: &Value) {
        let data = &event["data"];
        self.position = event["sequence"].as_str().unwrap().parse().unwrap();
        self.id = event["source"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        match event["type"].as_str().unwrap().strip_prefix("dev.otherix.").unwrap() {
            "node.joined.v1" => {
                let node = Node { name: text(&data["name"]), membership: None };
                self.machines.insert(node.name.clone());
                self.nodes.insert(text(&data["node_id"]), node);
            }
            "node.changed.v1" => {
                let [address, key, endpoint] =
                    ["address", "public_key", "endpoint"].map(|field| text(&data["mesh"][field]));
                self.node_mut(data).membership = Some(MeshMembership { address, key, endpoint });
            }
            "node.removed.v1" => drop(self.nodes.remove(data["node_id"].as_str().unwrap()).unwrap()),
            "network.created.v2" => {
                assert_eq!(data["managed"], true, "the steps create managed networks only");
                let vni = data["vni"].as_u64();
                let bridge = vni.map_or_else(|| text(&data["bridge_name"]), |vni| format!("otb{vni}"));
                let mtu = data["mtu"].as_u64().unwrap();
                assert!(vni.is_none() || mtu == 1390, "the underlay's 1500 less 110");
                let network = Network { name: text(&data["name"]), bridge, mtu, vni };
                self.networks.insert(text(&data["network_id"]), network);
            }
            "network.changed.v1" => {
                let network = self.networks.get_mut(data["network_id"].as_str().unwrap()).unwrap();
                network.mtu = data["mtu"].as_u64().unwrap();
            }
            "network.deleted.v1" => drop(self.networks.remove(data["network_id"].as_str().unwrap()).unwrap()),
            "vm.created.v3" => drop(self.vms.insert(text(&data["vm_id"]), text(&data["name"]))),
            "vm.deleted.v1" => drop(self.vms.remove(data["vm_id"].as_str().unwrap()).unwrap()),
            "nic.attached.v2" => {
                let id = text(&data["nic_id"]);
                let [vm, network, mac] = ["vm_id", "network_id", "mac"].map(|field| text(&data[field]));
                let digits: String = id.chars().filter(|c| *c != '-').take(12).collect();
                self.nics.insert(id, Nic { vm, network, mac, tap: format!("ot{digits}"), node: None });
            }
            "nic.bound.v1" => {
                let nic = self.nics.get_mut(data["nic_id"].as_str().unwrap()).unwrap();
                nic.node = Some(text(&data["node_id"]));
            }
            "nic.detached.v1" => drop(self.nics.remove(data["nic_id"].as_str().unwrap()).unwrap()),
            // Reports are not decisions and change no state. But no step may fail on a node, not even temporarily.
            "node.reconciled.v3" => {
                let failed = |result: &&Value| result["status"] == "failed";
                assert_eq!(data["results"].as_array().unwrap().iter().find(failed), None, "{event}");
            }
            "node.reachable.v1" | "node.unreachable.v1" | "node.described.v1" | "node.capacity-reported.v1" => {}
            // What people say has no effect on nodes.
            "vm.labelled.v1" | "node.labelled.v1" => {}
            // Who may make requests is tested elsewhere.
            other if ["user.", "join-token.", "node-key."].iter().any(|prefix| other.starts_with(prefix)) => {}
            other => panic!("this test does not know events of type `{other}`"),
        }
    }

    fn node_mut(&mut self, data: &Value) -> &mut Node {
        self.nodes.get_mut(data["node_id"].as_str().unwrap()).unwrap()
    }

    /// The position of the last event.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The names of the members, with their numbers of NICs.
    pub(super) fn members(&self) -> BTreeMap<&str, usize> {
        let nic_count = |id: &String| self.nics.values().filter(|nic| nic.node.as_ref() == Some(id)).count();
        self.nodes.iter().map(|(id, node)| (node.name.as_str(), nic_count(id))).collect()
    }

    /// The id of the member of this name.
    pub(super) fn member(&self, name: &str) -> Option<&str> {
        self.nodes.iter().find(|(_, node)| node.name == name).map(|(id, _)| id.as_str())
    }

    /// The names of all nodes that were ever members.
    pub(super) fn machines(&self) -> &BTreeSet<String> {
        &self.machines
    }

    /// The names of the overlays (`true`) or bridges, with their numbers of NICs.
    pub(super) fn networks(&self, overlays: bool) -> BTreeMap<&str, usize> {
        let nic_count = |id: &String| self.nics.values().filter(|nic| nic.network == *id).count();
        let networks = self.networks.iter().filter(|(_, network)| network.vni.is_some() == overlays);
        networks.map(|(id, network)| (network.name.as_str(), nic_count(id))).collect()
    }

    /// The names of the VMs.
    pub(super) fn vms(&self) -> BTreeSet<&str> {
        self.vms.values().map(String::as_str).collect()
    }

    /// The expected state of the machine of this name: empty unless it is a member.
    ///
    /// # Errors
    /// Fails while a member is not in the mesh yet.
    pub(super) fn facts(&self, machine: &str) -> Result<Facts, String> {
        let mut facts = Facts::new();
        let Some(this_node) = self.member(machine) else { return Ok(facts) };
        self.mesh(this_node, &mut facts)?;
        for (id, network) in &self.networks {
            let Network { name: _, bridge, mtu, vni } = network;
            facts.insert(self.link((bridge, "bridge"), *mtu, "-", id));
            if let Some(vni) = vni {
                facts.insert(self.link((&format!("otvx{vni}"), "vxlan"), *mtu, bridge, id));
                self.vtep(this_node, (id, bridge, *vni), &mut facts)?;
            }
        }
        for (id, nic) in self.nics.iter().filter(|(_, nic)| nic.node.as_deref() == Some(this_node)) {
            let Nic { vm, network, mac, tap, node: _ } = nic;
            assert!(self.vms.contains_key(vm), "the NIC's VM exists");
            let Network { bridge, mtu, .. } = &self.networks[network];
            facts.insert(self.link((tap, "tun"), *mtu, bridge, id));
            facts.insert(format!("port {tap} locked=true learning=false"));
            facts.insert(format!("fdb entry {mac} at {tap} of {bridge} static"));
        }
        Ok(facts)
    }

    fn link(&self, (name, kind): (&str, &str), mtu: u64, master: &str, id: &str) -> String {
        format!("link {name} kind={kind} mtu={mtu} up master={master} alias=otherix:{}:{id}", self.id)
    }

    fn membership(&self, node: &str) -> Result<&MeshMembership, String> {
        let node = &self.nodes[node];
        node.membership.as_ref().ok_or_else(|| format!("{} is not in the mesh yet", node.name))
    }

    fn mesh(&self, this_node: &str, facts: &mut Facts) -> Result<(), String> {
        let MeshMembership { address, key, endpoint } = self.membership(this_node)?;
        let (_, port) = endpoint.split_once(':').unwrap();
        // 1,500 on the underlay, less 60.
        facts.insert("link otwg0 mtu=1440 up master=- alias=otherix:mesh".to_owned());
        facts.insert(format!("address {address}/32 on otwg0"));
        facts.insert(format!("mesh key={key} port={port}"));
        for other in self.nodes.keys().filter(|other| *other != this_node) {
            let MeshMembership { address: peer_address, key, endpoint } = self.membership(other)?;
            facts.insert(format!("peer {key} at {endpoint} allowed={peer_address}/32 keepalive=25"));
            facts.insert(format!("route {peer_address} by otwg0 from {address}"));
        }
        Ok(())
    }

    fn vtep(&self, this_node: &str, network: (&String, &str, u64), facts: &mut Facts) -> Result<(), String> {
        let (id, bridge, vni) = network;
        let vtep = format!("otvx{vni}");
        let local = &self.membership(this_node)?.address;
        facts.insert(format!("vtep {vtep} vni={vni} local={local} port=4789 learning=false"));
        facts.insert(format!("port {vtep} locked=true learning=false"));
        for nic in self.nics.values().filter(|nic| nic.network == *id) {
            let Some(node) = nic.node.as_ref().filter(|node| *node != this_node) else { continue };
            let MeshMembership { address, .. } = self.membership(node)?;
            facts.insert(format!("fdb entry {} at {vtep} of {bridge} static", nic.mac));
            facts.insert(format!("forward {} by {vtep} to {address} permanent", nic.mac));
            facts.insert(format!("forward 00:00:00:00:00:00 by {vtep} to {address} permanent"));
        }
        Ok(())
    }
}
