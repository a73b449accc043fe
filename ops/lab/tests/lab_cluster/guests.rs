//! Guests on NAT networks: what they can reach and what they cannot.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use otherix_testkit::python::interpreter;
use otherix_testkit::wait::wait_for_blocking;
use serde_json::{Value, json};

use crate::lab::{DEADLINE, Lab};

const CALLER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/caller.py");
const OUTSIDE: &str = "203.0.113.1";
const NODE: &str = "10.99.0.11";

/// A server on the host outside that replies with the caller's address.
struct CallerServer(Child);

impl CallerServer {
    fn start(lab: &Lab) -> Self {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &format!("otx-{}-outside", lab.name)])
            .arg(interpreter())
            .arg(CALLER)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "listening\n");
        Self(child)
    }
}

impl Drop for CallerServer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Lab {
    pub(crate) fn nat_network(&self, name: &str, subnet: &str) {
        let bridge = format!("br-{name}");
        let create = ["network", "create", name, "--bridge-name", &bridge, "--managed"];
        self.ok(&[&create[..], &["--egress", "nat", "--subnet", subnet, "--wait"]].concat());
    }

    /// Creates a VM with a guest, and returns its tap.
    fn guest(&self, name: &str, network: &str, cidr: &str) -> String {
        self.guest_of(name, &["--network", network], cidr)["tap"].as_str().unwrap().to_owned()
    }

    /// Creates a VM with more options and a guest, and returns its NIC.
    pub(crate) fn guest_of(&self, name: &str, options: &[&str], cidr: &str) -> Value {
        let image =
            ["--image-url", "https://images.example/debian-12.qcow2", "--arch", "amd64", "--tap-only", "--wait"];
        let nic = self.ok(&[&["vm", "create", name][..], &image, options].concat())["nic"].clone();
        self.lab(&["guest", name, "--ip", cidr]);
        nic
    }

    fn pings(&self, namespace: &str, address: &str) -> bool {
        self.succeeds(&["exec", namespace, "--", "ping", "-c1", "-W1", address])
    }

    /// Returns the reply of the server outside.
    fn call(&self, namespace: &str) -> String {
        self.lab(&["exec", namespace, "--", "timeout", "5", "bash", "-c", &format!("cat </dev/tcp/{OUTSIDE}/7")])
    }
}

#[test]
fn lab_cluster_guests_use_nat() {
    let lab = Lab::up("nat", 1);
    lab.nat_network("a", "10.20.0.0/24");
    lab.nat_network("b", "10.30.0.0/24");
    lab.guest("a1", "a", "10.20.0.11/24");
    lab.guest("a2", "a", "10.20.0.12/24");
    lab.guest("b1", "b", "10.30.0.11/24");
    let _caller = CallerServer::start(&lab);
    for guest in ["vm:a1", "vm:a2", "vm:b1"] {
        assert!(lab.pings(guest, OUTSIDE), "{guest}");
        assert_eq!(lab.call(guest), format!("your address is {NODE}\n"));
    }
    assert!(lab.pings("vm:a1", "10.20.0.12"), "on one network");
    assert!(!lab.pings("vm:b1", "10.20.0.11"), "from one network to another");
    lab.lab(&["exec", "outside", "--", "ip", "route", "add", "10.20.0.0/24", "via", NODE]);
    assert!(!lab.pings("outside", "10.20.0.11"), "from outside to a guest");
    assert!(lab.pings("vm:a1", OUTSIDE), "although replies would reach the guest directly");

    let refused = lab.otherix(&["network", "delete", "a", "--force"]);
    assert_eq!(refused.status.code(), Some(5));
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(stderr.contains("in use by 2 VM NICs"), "{stderr}");
    for vm in ["a1", "a2"] {
        lab.ok(&["vm", "delete", vm, "--force", "--wait"]);
    }
    lab.ok(&["network", "delete", "a", "--force", "--wait"]);
    assert!(lab.pings("vm:b1", OUTSIDE), "the other network is not affected");
}

#[test]
fn lab_cluster_locks_taps_to_their_mac_and_repairs_them() {
    let lab = Lab::up("tap", 1);
    lab.nat_network("a", "10.20.0.0/24");
    let tap = lab.guest("a1", "a", "10.20.0.11/24");
    let mac = lab.ok(&["vm", "get", "a1"])["nic"]["mac"].as_str().unwrap().to_owned();
    let set_mac = |mac: &str| lab.lab(&["exec", "vm:a1", "--", "ip", "link", "set", "eth0", "address", mac]);
    let is_connected = || lab.pings("vm:a1", OUTSIDE);
    assert!(is_connected());
    set_mac("02:00:00:00:00:99");
    assert!(!is_connected(), "a foreign MAC");
    set_mac(&mac);
    lab.lab(&["exec", "vm:a1", "--", "ip", "route", "replace", "default", "via", "10.20.0.1"]);
    wait_for_blocking(DEADLINE, "frames from its own MAC to be accepted", is_connected);

    let before = lab.link(1, &tap).unwrap();
    lab.lab(&["exec", "node-1", "--", "ip", "link", "delete", &tap]);
    wait_for_blocking(DEADLINE, "the guest to be reconnected", is_connected);
    let after = lab.link(1, &tap).unwrap();
    assert_ne!(after["ifindex"], before["ifindex"]);
    for field in ["/mtu", "/master", "/ifalias", "/linkinfo/info_data"] {
        assert_eq!(after.pointer(field).unwrap(), before.pointer(field).unwrap(), "{field}");
    }
    let port = |link: &Value| ["learning", "locked"].map(|field| link["linkinfo"]["info_slave_data"][field].clone());
    assert_eq!((port(&before), port(&after)), ([json!(false), json!(true)], [json!(false), json!(true)]));
    set_mac("02:00:00:00:00:99");
    assert!(!is_connected(), "a foreign MAC at the repaired tap");
}
