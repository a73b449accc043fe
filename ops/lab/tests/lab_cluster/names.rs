//! Guests resolve names at their own node: those of their network wherever the VMs run, and others where there is a way
//! out.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use otherix_testkit::wait::wait_for_blocking;

use crate::lab::{DEADLINE, Lab};
use crate::machines::{BOOT, ImageServer, OUTSIDE};

/// Answers every question over UDP with 192.0.2.77.
const RESOLVER: &str = "
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(('203.0.113.1', 53))
while True:
    message, peer = sock.recvfrom(4096)
    end = message.index(b'\\0', 12) + 5
    record = bytes.fromhex('c00c 0001 0001 0000003c 0004 c000024d')
    sock.sendto(message[:2] + bytes.fromhex('8180 0001 0001 0000 0000') + message[12:end] + record, peer)
";

/// A resolver outside of the lab.
struct Resolver(Child);

impl Resolver {
    fn start(lab: &Lab) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_otherix-lab"));
        let command = command.args(["--lab", &lab.name, "exec", "outside", "--", "python3", "-c", RESOLVER]);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // It has ended, or it ends now.
        let (_ended, _reaped) = (self.0.kill(), self.0.wait());
    }
}

impl Lab {
    /// Creates a VM whose guest has its address from the beginning, as if by DHCP.
    fn named_guest(&self, name: &str, network: &str, node: &str, ip: &str) {
        self.guest_of(name, &["--network", network, "--node", node, "--ip", ip], &format!("{ip}/24"));
    }

    /// Returns the last word that `dig` prints for a question of a guest: the data of the answer, or what went wrong.
    fn resolved(&self, guest: &str, gateway: &str, question: &str) -> String {
        let ask = format!("dig +noauthority +time=2 +tries=1 @{gateway} {question}");
        let guest = format!("vm:{guest}");
        let output = self.lab(&["exec", &guest, "--", "sh", "-c", &format!("{ask} || true")]);
        let status = output.split("status: ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("NONE");
        let mut answers = output.lines().filter(|line| !line.starts_with(';') && !line.is_empty());
        answers.next_back().and_then(|line| line.split_whitespace().last()).unwrap_or(status).to_owned()
    }
}

#[test]
fn lab_cluster_guests_resolve_the_names_of_their_network_on_every_node() {
    let lab = Lab::up("names", 2);
    let overlay = ["network", "create", "span", "--type", "overlay", "--subnet", "10.50.0.0/24", "--dhcp", "--wait"];
    lab.ok(&overlay);
    let nat = ["network", "create", "App 1", "--bridge-name", "br-app", "--managed", "--egress", "nat", "--dhcp"];
    lab.ok(&[&nat[..], &["--subnet", "10.60.0.0/24", "--wait"]].concat());
    lab.named_guest("left", "span", "node-1", "10.50.0.7");
    lab.named_guest("right", "span", "node-2", "10.50.0.8");
    lab.named_guest("web", "App 1", "node-1", "10.60.0.7");
    let (span, app) = ("10.50.0.1", "10.60.0.1");
    for (guest, other, address) in [("left", "right", "10.50.0.8"), ("right", "left", "10.50.0.7")] {
        let name = format!("{other}.span.otherix.internal");
        wait_for_blocking(DEADLINE, "the name", || lab.resolved(guest, span, &name) == address);
        assert_eq!(lab.resolved(guest, span, &format!("-x {address}")), format!("{name}."));
        assert_eq!(lab.resolved(guest, span, "web.app-1.otherix.internal"), "NXDOMAIN", "of another network");
        assert_eq!(lab.resolved(guest, span, "www.example.com"), "REFUSED", "there is no way out");
    }
    wait_for_blocking(DEADLINE, "TCP", || lab.resolved("web", app, "+tcp web.app-1.otherix.internal") == "10.60.0.7");
    assert_eq!(lab.resolved("web", app, "left.span.otherix.internal"), "NXDOMAIN");

    // A deleted VM's name is gone on all nodes, and another one's comes.
    lab.lab(&["guest", "left", "--remove"]);
    lab.ok(&["vm", "delete", "left", "--wait"]);
    lab.named_guest("late", "span", "node-1", "10.50.0.9");
    let is_known = |name: &str| lab.resolved("right", span, &format!("{name}.span.otherix.internal"));
    wait_for_blocking(DEADLINE, "the new name", || is_known("late") == "10.50.0.9");
    assert_eq!(is_known("left"), "NXDOMAIN");

    // No control plane is needed, not even by an agent that has just started.
    lab.lab(&["stop", "nats"]);
    lab.lab(&["kill", "otherixd"]);
    lab.lab(&["kill", "node-2"]);
    assert_eq!(is_known("late"), "NONE", "without an agent");
    lab.lab(&["start", "node-2"]);
    wait_for_blocking(DEADLINE, "the restarted agent", || is_known("late") == "10.50.0.9");
    assert_eq!(is_known("left"), "NXDOMAIN");
    lab.lab(&["start", "otherixd"]);
    lab.lab(&["start", "nats"]);
    lab.lab(&["start", "node-2"]);
}

#[test]
fn lab_cluster_a_vm_reaches_another_by_its_name() {
    let lab = Lab::up("by-name", 2);
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/image");
    let _server = ImageServer::start(&lab, &images);
    let overlay = ["network", "create", "span", "--type", "overlay", "--subnet", "10.50.0.0/24", "--dhcp", "--wait"];
    lab.ok(&overlay);
    let image = format!("http://{OUTSIDE}:8000/tiny.img");
    let folder = otherix_testkit::tempdir().unwrap();
    let script = folder.path().join("script");
    let commands = "#!/bin/sh\nuntil ping -q -c 1 -W 1 east >/dev/null 2>&1; do sleep 0.2; done\n\
                    echo \"guest: east answers\"\nping -q -c 1 none; echo \"guest: none: $?\"\n";
    std::fs::write(&script, commands).unwrap();
    let create = |name: &str, node: &str, more: &[&str]| {
        let vm = ["vm", "create", name, "--image-url", &image, "--arch", "amd64", "--network", "span", "--node", node];
        let size = ["--vcpus", "1", "--memory-mb", "128", "--wait", "--wait-timeout", "90s"];
        lab.ok(&[&vm[..], &size, more].concat())
    };
    create("east", "node-1", &[]);
    let west = create("west", "node-2", &["--user-data", script.to_str().unwrap()]);
    let log = lab.folder().join("node-2/vms").join(west["id"].as_str().unwrap()).join("console.log");
    let said = |text: &str| std::fs::read(&log).is_ok_and(|log| String::from_utf8_lossy(&log).contains(text));
    wait_for_blocking(BOOT, "a ping by name", || said("guest: east answers"));
    wait_for_blocking(BOOT, "a name that does not exist", || said("guest: none: 1"));
    for name in ["east", "west"] {
        lab.ok(&["vm", "delete", name, "--wait"]);
    }
}

#[test]
fn lab_cluster_other_names_come_from_the_resolver_that_the_agent_is_given() {
    let lab = Lab::up("relay", 1);
    let _resolver = Resolver::start(&lab);
    let nat = ["network", "create", "app", "--bridge-name", "br-app", "--managed", "--egress", "nat", "--dhcp"];
    lab.ok(&[&nat[..], &["--subnet", "10.60.0.0/24", "--wait"]].concat());
    lab.named_guest("web", "app", "node-1", "10.60.0.7");
    let resolved = || lab.resolved("web", "10.60.0.1", "www.example.com");
    wait_for_blocking(DEADLINE, "an answer of the resolver", || resolved() == "192.0.2.77");
}
