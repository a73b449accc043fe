//! The host outside, and guests plugged into taps that the test creates.

use otherix_testkit::wait::wait_for_blocking;
use serde_json::{Value, json};

use crate::lab::{DEADLINE, Lab};

/// The bridge of a node's network, as an agent creates it.
const BRIDGE: &str = "ip link add br0 address 02:00:00:00:00:01 type bridge && ip address add 10.20.0.1/24 dev br0 && \
                      ip link set br0 up";
/// A VM's tap, likewise.
pub(crate) const TAP: &str = "ip tuntap add ot0123456789ab mode tap && ip link set ot0123456789ab mtu 1400 up";
const PORT: &str = "ip link set ot0123456789ab master br0";

impl Lab {
    pub(crate) fn sh(&self, namespace: &str, script: &str) -> String {
        self.run(&["exec", namespace, "--", "sh", "-ec", script])
    }

    pub(crate) fn json(&self, namespace: &str, script: &str) -> Value {
        serde_json::from_str(&self.sh(namespace, script)).unwrap()
    }

    pub(crate) fn pings(&self, namespace: &str, address: &str) -> bool {
        self.command(&["exec", namespace, "--", "ping", "-c1", "-W1", address]).status.success()
    }
}

#[test]
fn lab_nodes_reach_the_host_outside() {
    let lab = Lab::new("out");
    lab.run(&["up", "--nodes", "1"]);
    assert!(lab.pings("node-1", "203.0.113.1") && lab.pings("outside", "10.99.0.11"));
    let routes = lab.json("outside", "ip -j route");
    assert_eq!(routes.as_array().unwrap().len(), 1, "{routes}");
    assert_eq!(routes[0]["dst"], "10.99.0.0/24");
    assert_eq!(lab.status()["outside"], "203.0.113.1");

    lab.run(&["exec", "underlay", "--", "ip", "link", "delete", "outside"]);
    assert!(!lab.pings("node-1", "203.0.113.1"));
    lab.run(&["up", "--nodes", "1"]);
    assert!(lab.pings("node-1", "203.0.113.1"));
}

#[test]
fn lab_guest_sends_through_the_tap() {
    let lab = Lab::new("guest");
    lab.run(&["up", "--nodes", "1"]);
    lab.sh("node-1", &format!("{BRIDGE} && {TAP} && {PORT}"));
    lab.run(&["guest", "web", "--ip", "10.20.0.5/24"]);
    assert_eq!(lab.row("vm:web").0, "running");

    let eth0 = &lab.json("vm:web", "ip -d -j address show eth0")[0];
    assert_eq!((&eth0["address"], &eth0["mtu"]), (&"52:54:00:00:00:05".into(), &1400.into()));
    assert_eq!(
        (&eth0["linkinfo"]["info_kind"], &eth0["linkinfo"]["info_data"]["type"]),
        (&"tun".into(), &"tap".into())
    );
    assert_eq!(eth0["addr_info"][0]["local"], "10.20.0.5");
    assert_eq!(lab.json("vm:web", "ip -j route show default")[0]["gateway"], "10.20.0.1");
    let full = lab.command(&["exec", "vm:web", "--", "ping", "-c1", "-W5", "-Mdo", "-s1372", "10.20.0.1"]);
    assert!(full.status.success(), "{}", String::from_utf8_lossy(&full.stdout));
    assert!(lab.pings("node-1", "10.20.0.5"));
    let ports = |mac: &str| {
        let fdb = lab.json("node-1", "bridge -j fdb show br br0");
        let entries = fdb.as_array().unwrap().iter().filter(|entry| entry["mac"] == mac);
        entries.map(|entry| entry["ifname"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ports("52:54:00:00:00:05"), [json!("ot0123456789ab")]);
    assert!(lab.sh("node-1", "ip -j -d link show type veth").contains("eth0"));
    assert!(!lab.sh("node-1", "ip -o link show master br0 type veth").contains("veth"), "no other connection");

    // The relay does not check source MACs: that is up to the bridge, and this one learns all.
    lab.sh("vm:web", "ip link set eth0 address 02:00:00:00:00:99");
    assert!(lab.pings("vm:web", "10.20.0.1"));
    assert_eq!(ports("02:00:00:00:00:99"), [json!("ot0123456789ab")]);

    // The tap is recreated, and the relay attaches to it.
    lab.sh("node-1", "ip link delete ot0123456789ab");
    assert!(!lab.pings("vm:web", "10.20.0.1"));
    lab.sh("node-1", &format!("{TAP} && {PORT}"));
    wait_for_blocking(DEADLINE, "the guest to be reconnected", || lab.pings("vm:web", "10.20.0.1"));

    // Plugged in again: it has another address and the NIC's MAC, and its processes keep running.
    let before = lab.sh("vm:web", "readlink /proc/self/ns/net");
    lab.run(&["guest", "web", "--ip", "10.20.0.6/24", "--gateway", "10.20.0.9"]);
    assert_eq!(lab.sh("vm:web", "readlink /proc/self/ns/net"), before);
    let eth0 = &lab.json("vm:web", "ip -4 -j address show eth0")[0];
    assert_eq!((&eth0["addr_info"][0]["local"], eth0["addr_info"].as_array().unwrap().len()), (&"10.20.0.6".into(), 1));
    assert_eq!(lab.json("vm:web", "ip -j route show default")[0]["gateway"], "10.20.0.9");
    assert!(lab.pings("vm:web", "10.20.0.1"));

    lab.run(&["guest", "web", "--remove"]);
    lab.run(&["guest", "web", "--remove"]);
    assert!(lab.fails(&["exec", "vm:web", "--", "true"]).contains("there is no guest vm:web"));
    assert!(!lab.namespaces().iter().any(|name| name.contains("web")));
    assert_eq!(lab.json("node-1", "ip -j link show ot0123456789ab")[0]["operstate"], "DOWN", "the tap stays, detached");
    // `down`, when the lab is dropped, removes a guest that is plugged in, with its processes.
    lab.run(&["guest", "web", "--ip", "10.20.0.5/24"]);
    lab.sh("vm:web", "sleep infinity >/dev/null 2>&1 &");
}

#[test]
fn lab_guest_failure_leaves_nothing() {
    let lab = Lab::new("noguest");
    lab.run(&["up", "--nodes", "1"]);
    let before = lab.namespaces();
    for (vm, message) in [
        ("web", "there is no tap `ot0123456789ab`"),
        ("no-nic", "VM `no-nic` has no NIC"),
        ("far", "VM `far` is on `node-7`, which is not a node of this lab"),
        ("unknown", "there is no VM unknown"),
    ] {
        let errors = lab.fails(&["guest", vm, "--ip", "10.20.0.5/24"]);
        assert!(errors.contains(message), "{errors}");
    }
    assert_eq!(lab.namespaces(), before);
    assert_eq!(lab.status()["processes"].as_array().unwrap().len(), 4, "no guest is listed");
    for wrong in [&["--ip", "10.20.0.5"][..], &["--ip", "10.20.0.5/33"], &[], &["--remove", "--ip", "10.20.0.5/24"]] {
        lab.fails(&[&["guest", "web"], wrong].concat());
    }
}
