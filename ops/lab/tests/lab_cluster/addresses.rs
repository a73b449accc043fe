//! Guests get the addresses that were decided for them, by DHCP from their own node.

use otherix_testkit::wait::wait_for_blocking;
use serde_json::Value;

use crate::lab::{DEADLINE, Lab};

/// What the client of busybox runs with what it has got.
const SCRIPT: &str = "#!/bin/sh
[ $1 = bound ] || [ $1 = renew ] || exit 0
ip address replace $ip/$mask dev $interface
ip link set dev $interface mtu $mtu
[ -z \"$router\" ] || ip route replace default via $router
";

impl Lab {
    /// Creates a VM on a network. Its guest has another address, until it asks for one. Returns what was decided.
    fn guest_to_be(&self, name: &str, network: &str, options: &[&str]) -> String {
        let other = match network {
            "span" => "10.50.0.199/24",
            "out" => "10.70.0.199/24",
            _ => "10.60.0.199/24",
        };
        let nic = self.guest_of(name, &[&["--network", network], options].concat(), other);
        nic["ip"].as_str().unwrap().to_owned()
    }

    /// Lets a guest ask for its address. Returns it with the MTU, if it gets one.
    fn lease(&self, name: &str) -> Option<(String, u64)> {
        let script = format!("/tmp/otherix-lab-{}-udhcpc", self.name);
        std::fs::write(&script, SCRIPT).unwrap();
        let guest = format!("vm:{name}");
        let ask = format!(
            "chmod 755 {script}; ip address flush dev eth0; ip link set dev eth0 mtu 1500; \
             busybox udhcpc -i eth0 -n -q -f -t 5 -T 1 -O mtu -s {script}"
        );
        let is_bound = self.succeeds(&["exec", &guest, "--", "sh", "-ec", &ask]);
        std::fs::remove_file(&script).unwrap();
        let shown = self.lab(&["exec", &guest, "--", "ip", "-j", "-4", "address", "show", "dev", "eth0"]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        is_bound.then(|| {
            let address = shown[0]["addr_info"][0]["local"].as_str().unwrap().to_owned();
            (address, shown[0]["mtu"].as_u64().unwrap())
        })
    }

    fn guest_pings(&self, name: &str, size: u32, address: &str) -> bool {
        let guest = format!("vm:{name}");
        let size = size.to_string();
        self.succeeds(&["exec", &guest, "--", "ping", "-q", "-c1", "-W2", "-M", "do", "-s", &size, address])
    }
}

#[test]
fn lab_cluster_guests_have_the_addresses_that_were_decided() {
    let lab = Lab::up("dhcp", 2);
    let overlay = ["network", "create", "span", "--type", "overlay", "--subnet", "10.50.0.0/24", "--dhcp"];
    lab.ok(&[&overlay[..], &["--gateway", "10.50.0.254", "--wait"]].concat());
    let nat = ["network", "create", "app", "--bridge-name", "br-app", "--managed", "--egress", "nat"];
    lab.ok(&[&nat[..], &["--subnet", "10.60.0.0/24", "--dhcp", "--mtu", "1450", "--wait"]].concat());

    // An overlay that spans two nodes, whose gateway is on each of them.
    let left = lab.guest_to_be("left", "span", &["--node", "node-1"]);
    let right = lab.guest_to_be("right", "span", &["--node", "node-2", "--ip", "10.50.0.77"]);
    assert_eq!((left.as_str(), right.as_str()), ("10.50.0.1", "10.50.0.77"));
    assert_eq!(lab.lease("left"), Some((left.clone(), 1390)));
    assert_eq!(lab.lease("right"), Some((right.clone(), 1390)));
    for (guest, other) in [("left", &right), ("right", &left)] {
        wait_for_blocking(DEADLINE, "the overlay", || lab.guest_pings(guest, 1362, other));
        assert!(lab.guest_pings(guest, 1362, "10.50.0.254"), "the gateway of {guest}");
        assert!(!lab.guest_pings(guest, 8, "10.50.0.253"), "nobody has this address");
    }

    // Behind NAT, the guest has a route to the outside.
    let web = lab.guest_to_be("web", "app", &["--node", "node-1"]);
    assert_eq!(web, "10.60.0.2");
    assert_eq!(lab.lease("web"), Some((web, 1450)));
    assert!(lab.guest_pings("web", 8, "203.0.113.1") && lab.guest_pings("web", 8, "10.60.0.1"));

    // No control plane is needed, not even by an agent that has just started.
    lab.lab(&["stop", "nats"]);
    lab.lab(&["kill", "otherixd"]);
    lab.lab(&["kill", "node-1"]);
    assert_eq!(lab.lease("left"), None, "without an agent");
    lab.lab(&["start", "node-1"]);
    wait_for_blocking(DEADLINE, "the restarted agent", || lab.lease("left") == Some((left.clone(), 1390)));
    assert_eq!(lab.lease("right"), Some((right, 1390)));
    lab.lab(&["start", "otherixd"]);
    lab.lab(&["start", "nats"]);
    lab.lab(&["start", "node-1"]);

    // The address of a deleted VM is assigned again once its tap is removed.
    lab.ok(&["vm", "delete", "left", "--wait"]);
    assert_eq!(lab.guest_to_be("again", "span", &["--node", "node-2"]), left);
    assert_eq!(lab.lease("again"), Some((left, 1390)));
}

#[test]
fn lab_cluster_overlays_let_guests_out_on_their_own_node() {
    let lab = Lab::up("egress", 2);
    let network = ["network", "create", "out", "--type", "overlay", "--egress", "nat", "--subnet", "10.70.0.0/24"];
    lab.ok(&[&network[..], &["--dhcp", "--wait"]].concat());
    let east = lab.guest_to_be("east", "out", &["--node", "node-1"]);
    let west = lab.guest_to_be("west", "out", &["--node", "node-2"]);
    assert_eq!((east.as_str(), west.as_str()), ("10.70.0.2", "10.70.0.3"));
    assert!(!lab.guest_pings("east", 8, "10.70.0.3"), "with an address that is not its own");
    for (guest, own) in [("east", &east), ("west", &west)] {
        assert_eq!(lab.lease(guest), Some((own.clone(), 1390)));
    }
    for (guest, other) in [("east", &west), ("west", &east)] {
        wait_for_blocking(DEADLINE, "the overlay", || lab.guest_pings(guest, 1362, other));
        assert!(lab.guest_pings(guest, 8, "10.70.0.1"), "the gateway of {guest}");
        assert!(lab.guest_pings(guest, 1362, "203.0.113.1"), "the outside of {guest}");
    }
    // Without the other node, and without a control plane.
    lab.lab(&["stop", "nats"]);
    lab.lab(&["kill", "node-2"]);
    assert!(lab.guest_pings("east", 1362, "203.0.113.1") && lab.guest_pings("west", 1362, "203.0.113.1"));
}
