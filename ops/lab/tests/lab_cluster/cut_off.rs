//! No decision cuts a node off from the control plane, however it reaches that.

use std::path::PathBuf;
use std::process::Command;

use otherix_testkit::wait::wait_for_blocking;
use serde_json::Value;

use crate::lab::{DEADLINE, Lab};

/// The address of NATS, which no other route of the node than those of a test leads to.
const NATS: &str = "10.99.0.1";

impl Lab {
    fn on_node(&self, script: &str) -> String {
        self.lab(&["exec", "node-1", "--", "sh", "-ec", script])
    }

    /// Creates a network with NAT egress, without waiting.
    fn create_with_nat(&self, name: &str, subnet: &str) {
        let create = ["network", "create", name, "--bridge-name", &format!("br-{name}"), "--managed"];
        self.ok(&[&create[..], &["--egress", "nat", "--subnet", subnet]].concat());
    }

    fn on_first_node(&self, name: &str) -> Value {
        self.ok(&["network", "get", name])["status"]["nodes"][0].clone()
    }

    /// Waits until `network get` says that the network failed, with all of these texts.
    fn expect_failure(&self, name: &str, texts: &[&str]) {
        wait_for_blocking(DEADLINE, "the failure", || {
            let node = self.on_first_node(name);
            let error = node["error"].as_str().unwrap_or_default();
            node["status"] == "failed" && texts.iter().all(|text| error.contains(text))
        });
    }

    fn expect_ready(&self, name: &str) {
        wait_for_blocking(DEADLINE, "the network to be ready", || self.on_first_node(name)["status"] == "ready");
    }

    /// Asserts that the node still follows and reports.
    fn expect_contact(&self, name: &str) {
        let bridge = format!("br-{name}");
        self.ok(&["network", "create", name, "--bridge-name", &bridge, "--managed", "--wait"]);
    }
}

#[test]
fn lab_cluster_no_network_cuts_a_node_off() {
    let lab = Lab::up("cutoff", 1);
    // The node reaches NATS by its default route only, which needs no next hop.
    lab.on_node(
        "ip address add 10.99.0.11/32 dev eth0; ip address del 10.99.0.11/24 dev eth0
         ip route flush default; ip route add default dev eth0",
    );
    let needed = ["subnet 10.99.0.0/29 contains 10.99.0.1, which this node needs to reach the control plane"];
    lab.create_with_nat("default", "10.99.0.0/29");
    lab.expect_failure("default", &needed);
    assert!(lab.link(1, "br-default").is_none());
    lab.expect_contact("a");
    // Without the first net: the address would cut it off.
    lab.on_node("ip link add probe type veth; ip link set probe up; ip address add 10.99.0.2/29 dev probe");
    assert!(lab.on_node(&format!("ip route get {NATS}")).contains("dev probe"));
    lab.on_node("ip link del probe");
    lab.lab(&["reboot", "node-1"]);
    lab.expect_contact("b");
    lab.expect_failure("default", &["10.99.0"]);
    assert!(lab.link(1, "br-default").is_none());
    lab.ok(&["network", "delete", "default", "--wait"]);
    lab.on_node(
        "ip address add 10.99.0.11/32 dev eth0; ip address del 10.99.0.11/24 dev eth0
         ip route flush default; ip route add default dev eth0",
    );

    for (name, set, subnet, texts, unset) in [
        (
            "rule",
            "ip route add default dev eth0 table 77; ip rule add to 10.99.0.1 lookup 77; ip route del default",
            "10.99.0.0/30",
            ["10.99.0.1", "control plane"],
            "ip route add default dev eth0; ip rule del to 10.99.0.1 lookup 77",
        ),
        (
            "host",
            "ip route add 10.99.0.1 dev eth0; ip route del default",
            "10.99.0.0/28",
            ["10.99.0.1", "control plane"],
            "ip route add default dev eth0; ip route del 10.99.0.1",
        ),
        (
            "hole",
            "ip rule add to 10.50.0.0/24 blackhole",
            "10.50.0.0/24",
            ["drops packets to guests", "ip rule"],
            "ip rule del to 10.50.0.0/24 blackhole",
        ),
    ] {
        lab.on_node(set);
        lab.create_with_nat(name, subnet);
        lab.expect_failure(name, &texts);
        lab.expect_contact(&format!("after-{name}"));
        lab.on_node(unset);
        lab.ok(&["network", "delete", name, "--wait"]);
    }
}

#[test]
fn lab_cluster_a_network_that_cuts_a_node_off_is_withdrawn() {
    let lab = Lab::up("takeback", 1);
    lab.create_with_nat("app", "10.60.0.0/24");
    lab.expect_ready("app");
    let gateway = || lab.on_node("ip -4 -o address show dev br-app").contains("10.60.0.1/24");
    // Another cause of a lost connection.
    lab.lab(&["kill", "nats"]);
    let answers = || lab.otherix(&["network", "list"]).status.success();
    wait_for_blocking(DEADLINE, "the control plane to answer again", answers);
    lab.expect_contact("a");
    assert!(gateway() && lab.on_first_node("app")["status"] == "ready");

    // As after a new DHCP lease: the uplink's network is the one that guests have, and the router is in it. The node
    // drops the router's ARP requests, because its own packets to the router would leave by the bridge.
    let underlay = format!("otx-{}-underlay", lab.name);
    let lease = ["netns", "exec", &underlay, "ip", "address", "add", "10.60.0.254/24", "dev", "underlay"];
    assert!(Command::new("ip").args(lease).status().unwrap().success());
    lab.on_node(
        "echo 1 > /proc/sys/net/ipv4/conf/eth0/rp_filter; ip address flush dev eth0
         ip address add 10.60.0.57/24 dev eth0; ip route add default via 10.60.0.254 dev eth0",
    );
    lab.expect_failure("app", &["contains 10.60.0.254", NATS, "control plane", "withdrawn", "otherix-agent release"]);
    assert!(!gateway());
    lab.expect_contact("b");
    lab.lab(&["kill", "node-1"]);
    lab.lab(&["start", "node-1"]);
    lab.expect_contact("c");
    lab.expect_failure("app", &["withdrawn"]);
    assert!(!gateway(), "nor after a restart");

    lab.on_node(
        "ip address flush dev eth0; ip address add 10.99.0.11/24 dev eth0
         ip route add default via 10.99.0.2 dev eth0",
    );
    lab.expect_contact("d");
    assert!(!gateway(), "not before an operator releases it");
    let agent = PathBuf::from(env!("CARGO_BIN_EXE_otherix-lab")).with_file_name("otherix-agent");
    let state = lab.folder().join("node-1");
    lab.on_node(&format!("{} release --state {} --network app", agent.display(), state.display()));
    lab.expect_ready("app");
    assert!(gateway());
}

#[test]
fn lab_cluster_guests_on_the_nodes_own_bridge_do_not_cut_it_off() {
    let lab = Lab::up("ownbridge", 1);
    // The node's uplink is a port of a bridge that has its address, as is usual for an unmanaged network.
    lab.on_node(
        "ip link add br-lan type bridge; ip link set br-lan up
         ip address flush dev eth0; ip link set eth0 master br-lan
         ip address add 10.99.0.11/24 dev br-lan; ip route add default via 10.99.0.2 dev br-lan",
    );
    let mac = || lab.link(1, "br-lan").unwrap()["address"].clone();
    let before = mac();
    lab.ok(&["network", "create", "lan", "--bridge-name", "br-lan", "--wait"]);
    let image =
        ["--image-url", "https://images.example/debian-12.qcow2", "--arch", "amd64", "--tap-only", "--network", "lan"];
    for vm in ["a", "b", "c"] {
        lab.ok(&[&["vm", "create", vm, "--wait"], &image[..]].concat());
    }
    assert_eq!(mac(), before, "a bridge without an address of its own takes the lowest of its ports");
    assert!(lab.on_node(&format!("ip route get {NATS}")).contains("dev br-lan"));
    lab.expect_contact("after");
    lab.lab(&["kill", "node-1"]);
    lab.lab(&["start", "node-1"]);
    lab.expect_contact("again");
    // A network that takes the bridge's own network is not made.
    lab.create_with_nat("same", "10.99.0.0/24");
    lab.expect_failure("same", &["10.99.0.1", "control plane"]);
    lab.expect_contact("last");
}
