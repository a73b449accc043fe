//! Hosts that are not members of the mesh cannot inject frames into an overlay, even with spoofed addresses. A member
//! sends the same frames, to show that they are well formed.

use std::collections::BTreeMap;

use otherix_testkit::wait::wait_for_blocking;
use otherix_testkit::{TempDir, tempdir};

use super::reach::OverlayGuests;
use super::tools::{Capture, RunningProgram};
use super::{MeshMembership, OverlayGuest};
use crate::lab::{DEADLINE, Lab};

const INJECT: &str = include_str!("inject.py");
const INTRUDER: &str = include_str!("intruder.py");

/// Prefix of the text of every frame that must not arrive.
const FOREIGN: &str = "foreign:";

/// The lab and the guests that frames are injected to.
struct Attack<'a> {
    lab: &'a Lab,
    vni: u64,
    memberships: BTreeMap<u32, MeshMembership>,
    targets: BTreeMap<u32, &'a OverlayGuest>,
}

impl Attack<'_> {
    /// Sends a frame from `from` as a guest of another node would, to a node at one of its addresses.
    fn inject(&self, from: &str, node: u32, (to, source): (&str, &str), text: &str) {
        let source_mac = &self.targets[&(node % 3 + 1)].mac;
        let vni = self.vni.to_string();
        // It may fail to send, which is a success too.
        let inject = [to, source, &vni, &self.targets[&node].mac, source_mac, text];
        let interpreter = otherix_testkit::python::interpreter();
        let program = ["exec", from, "--", interpreter.to_str().unwrap(), "-c", INJECT];
        let _sent = self.lab.succeeds(&[&program[..], &inject].concat());
    }

    fn underlay_address(&self, node: u32) -> &str {
        self.memberships[&node].endpoint.split(':').next().unwrap()
    }

    /// Sends to the underlay and mesh addresses of two nodes, from its own address, a node's and a mesh address.
    fn try_all_addresses(&self, from: &str) {
        for node in [1, 2] {
            let other = node % 3 + 1;
            for to in [self.underlay_address(node), &self.memberships[&node].address] {
                for source in ["-", self.underlay_address(other), &self.memberships[&other].address] {
                    self.inject(from, node, (to, source), &format!("{FOREIGN}{from} to {to} as {source}"));
                }
            }
        }
    }
}

pub(super) fn assert_no_injection(lab: &Lab, vni: u64, guests: &OverlayGuests) {
    let targets = guests.values().map(|guest| (guest.node, guest)).collect();
    let attack = Attack { lab, vni, memberships: lab.mesh_memberships(3), targets };
    let captures = [("red-1", "10.50.0.11"), ("red-2", "10.50.0.12")]
        .map(|(guest, address)| (guest, address, Capture::start(lab, &format!("vm:{guest}"), "eth0")));
    let is_received = |text: &str| captures.iter().all(|(_, _, capture)| capture.contains(text));
    let member_before = || {
        for node in [1, 2] {
            attack.inject(
                &format!("node-{}", node % 3 + 1),
                node,
                (&attack.memberships[&node].address, "-"),
                "member:before",
            );
        }
        is_received("member:before")
    };
    wait_for_blocking(DEADLINE, "a member's frames to be received", member_before);

    underlay_hosts(&attack);
    guest_behind_nat(&attack);
    let _device = foreign_peer(&attack);
    removed_member(&attack, &is_received);

    let member_after = || {
        captures.iter().for_each(|(_, address, _)| lab.send("red-3", address, "member:after"));
        is_received("member:after")
    };
    wait_for_blocking(DEADLINE, "a member's frames to be received", member_after);
    for (guest, _, capture) in &captures {
        assert!(!capture.contains(FOREIGN), "{guest} has received: {:?}", capture.packets("udp dst port 9"));
    }
}

/// The control plane's host, the host outside, and a node that bypasses the mesh.
fn underlay_hosts(attack: &Attack<'_>) {
    for node in [1, 2] {
        let (mesh, by) = (&attack.memberships[&node].address, attack.underlay_address(node));
        for host in ["underlay", "outside"] {
            attack.lab.sh(host, &format!("ip route replace {mesh} via {by}"));
        }
    }
    attack.try_all_addresses("underlay");
    attack.try_all_addresses("outside");
    let (to, own) = (attack.underlay_address(1), &attack.memberships[&3].address);
    for source in ["-", own] {
        attack.inject("node-3", 1, (to, source), &format!("{FOREIGN}node-3 to {to} as {source}"));
    }
}

fn guest_behind_nat(attack: &Attack<'_>) {
    let lab = attack.lab;
    lab.nat_network("nat", "10.20.0.0/24");
    lab.guest_of("nat-1", &["--network", "nat", "--node", "node-1"], "10.20.0.5/24");
    assert!(lab.ping("nat-1", &["203.0.113.1"]), "it reaches the outside");
    attack.try_all_addresses("vm:nat-1");
    attack.inject("vm:nat-1", 1, ("10.20.0.1", "-"), &format!("{FOREIGN}nat-1 to its gateway"));
    for membership in attack.memberships.values() {
        assert!(
            !lab.ping("nat-1", &[&membership.address]) || membership == &attack.memberships[&1],
            "{membership:?} is reachable through the mesh"
        );
    }
}

/// A host that knows a node's public key but is not a peer.
fn foreign_peer(attack: &Attack<'_>) -> (RunningProgram, TempDir) {
    let lab = attack.lab;
    let folder = tempdir().unwrap();
    let agent = std::path::Path::new(env!("CARGO_BIN_EXE_otherix-lab")).with_file_name("otherix-agent");
    let socket = folder.path().join("wgx.sock");
    let mesh = [agent.to_str().unwrap(), "mesh", "--name", "wgx", "--socket-dir", folder.path().to_str().unwrap()];
    let device = RunningProgram::start(&lab.namespace("outside"), &mesh);
    wait_for_blocking(DEADLINE, "the foreign device", || socket.exists());
    lab.sh("outside", "ip address add 10.42.99.99/32 dev wgx && ip link set wgx up");
    let before = lab.wg_peers(1);
    let MeshMembership { address, key, endpoint } = &attack.memberships[&1];
    let output = lab.python("outside", INTRUDER, &[socket.to_str().unwrap(), key, endpoint]);
    let (sent, received) = output.trim().split_once(' ').unwrap();
    assert!(sent.parse::<u64>().unwrap() > 0);
    assert_eq!(received, "0", "the node answers a foreign peer");
    lab.sh("outside", &format!("ip route replace {address} dev wgx"));
    for source in ["-", &attack.memberships[&2].address] {
        attack.inject("outside", 1, (address, source), &format!("{FOREIGN}foreign peer as {source}"));
    }
    assert!(!lab.succeeds(&["exec", "outside", "--", "ping", "-c1", "-W1", address]));
    assert_eq!(lab.wg_peers(1), before);
    (device, folder)
}

/// A removed node whose agent was killed: its device and its sessions remain.
fn removed_member(attack: &Attack<'_>, is_received: &dyn Fn(&str) -> bool) {
    let lab = attack.lab;
    lab.lab(&["up", "--nodes", "4"]);
    let MeshMembership { key, .. } = &lab.mesh_memberships(4)[&4];
    wait_for_blocking(DEADLINE, "a member's frames to be received", || {
        for node in [1, 2] {
            attack.inject("node-4", node, (&attack.memberships[&node].address, "-"), "member:node-4");
        }
        is_received("member:node-4")
    });
    lab.lab(&["kill", "node-4"]);
    lab.ok(&["node", "delete", "node-4"]);
    for node in 1..=3 {
        wait_for_blocking(DEADLINE, "the peer to be removed", || !lab.wg_peers(node).contains_key(key));
    }
    assert!(lab.wg_peers(4).contains_key(&attack.memberships[&1].key), "it still has its peers");
    attack.try_all_addresses("node-4");
    let address = &attack.memberships[&1].address;
    assert!(!lab.succeeds(&["exec", "node-4", "--", "ping", "-c1", "-W1", address]));
}
