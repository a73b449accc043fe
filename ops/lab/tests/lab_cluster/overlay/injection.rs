//! Hosts that are not members of the mesh cannot inject frames into an overlay, however well forged. A member sends the
//! same frames to show that they are well formed.

use std::collections::BTreeMap;

use otherix_testkit::wait::wait_for_blocking;
use otherix_testkit::{TempDir, tempdir};

use super::reach::OverlayGuests;
use super::tools::{Capture, Running};
use super::{OverlayGuest, Place};
use crate::lab::{DEADLINE, Lab};

const INJECT: &str = include_str!("inject.py");
const INTRUDER: &str = include_str!("intruder.py");

/// Prefix of the text of every frame that must not arrive.
const FOREIGN: &str = "foreign:";

/// A lab under attack.
struct Attack<'a> {
    lab: &'a Lab,
    vni: u64,
    places: BTreeMap<u32, Place>,
    victims: BTreeMap<u32, &'a OverlayGuest>,
}

impl Attack<'_> {
    /// Has somebody send what a guest of another node would, to a node at one of its addresses.
    fn inject(&self, from: &str, node: u32, (to, source): (&str, &str), text: &str) {
        let source_mac = &self.victims[&(node % 3 + 1)].mac;
        let vni = self.vni.to_string();
        // A failure to send is a success too.
        let inject = [to, source, &vni, &self.victims[&node].mac, source_mac, text];
        let interpreter = otherix_testkit::python::interpreter();
        let program = ["exec", from, "--", interpreter.to_str().unwrap(), "-c", INJECT];
        let _sent = self.lab.succeeds(&[&program[..], &inject].concat());
    }

    fn underlay_address(&self, node: u32) -> &str {
        self.places[&node].endpoint.split(':').next().unwrap()
    }

    /// Each node at its underlay's and its mesh's address, with one's own address, a node's and one of the mesh.
    fn try_everything(&self, from: &str) {
        for node in [1, 2] {
            let other = node % 3 + 1;
            for to in [self.underlay_address(node), &self.places[&node].address] {
                for source in ["-", self.underlay_address(other), &self.places[&other].address] {
                    self.inject(from, node, (to, source), &format!("{FOREIGN}{from} to {to} as {source}"));
                }
            }
        }
    }
}

pub(super) fn nobody_gets_in(lab: &Lab, vni: u64, guests: &OverlayGuests) {
    let victims = guests.values().map(|guest| (guest.node, guest)).collect();
    let attack = Attack { lab, vni, places: lab.places(3), victims };
    let ears = [("red-1", "10.50.0.11"), ("red-2", "10.50.0.12")]
        .map(|(guest, address)| (guest, address, Capture::start(lab, &format!("vm:{guest}"), "eth0")));
    let hears = |text: &str| ears.iter().all(|(_, _, capture)| capture.has(text));
    let member = || {
        for node in [1, 2] {
            attack.inject(
                &format!("node-{}", node % 3 + 1),
                node,
                (&attack.places[&node].address, "-"),
                "member:before",
            );
        }
        hears("member:before")
    };
    wait_for_blocking(DEADLINE, "a member's frames to be heard", member);

    hosts_of_the_underlay(&attack);
    a_guest_behind_nat(&attack);
    let _device = a_stranger_in_the_mesh(&attack);
    a_removed_member(&attack, &hears);

    let after = || {
        ears.iter().for_each(|(_, address, _)| lab.send("red-3", address, "member:after"));
        hears("member:after")
    };
    wait_for_blocking(DEADLINE, "who is in the network to be heard", after);
    for (guest, _, capture) in &ears {
        assert!(!capture.has(FOREIGN), "{guest} has heard: {:?}", capture.packets("udp dst port 9"));
    }
}

/// The control plane's host, the host outside, and a node that goes around the mesh.
fn hosts_of_the_underlay(attack: &Attack<'_>) {
    for node in [1, 2] {
        let (mesh, by) = (&attack.places[&node].address, attack.underlay_address(node));
        for host in ["underlay", "outside"] {
            attack.lab.sh(host, &format!("ip route replace {mesh} via {by}"));
        }
    }
    attack.try_everything("underlay");
    attack.try_everything("outside");
    let (to, own) = (attack.underlay_address(1), &attack.places[&3].address);
    for source in ["-", own] {
        attack.inject("node-3", 1, (to, source), &format!("{FOREIGN}node-3 to {to} as {source}"));
    }
}

fn a_guest_behind_nat(attack: &Attack<'_>) {
    let lab = attack.lab;
    lab.nat_network("nat", "10.20.0.0/24");
    lab.guest_of("nat-1", &["--network", "nat", "--node", "node-1"], "10.20.0.5/24");
    assert!(lab.ping("nat-1", &["203.0.113.1"]), "it reaches the outside");
    attack.try_everything("vm:nat-1");
    attack.inject("vm:nat-1", 1, ("10.20.0.1", "-"), &format!("{FOREIGN}nat-1 to its gateway"));
    for place in attack.places.values() {
        assert!(
            !lab.ping("nat-1", &[&place.address]) || place == &attack.places[&1],
            "{place:?} is reached by the mesh"
        );
    }
}

/// A host that knows a node's public key but is not a peer.
fn a_stranger_in_the_mesh(attack: &Attack<'_>) -> (Running, TempDir) {
    let lab = attack.lab;
    let folder = tempdir().unwrap();
    let agent = std::path::Path::new(env!("CARGO_BIN_EXE_otherix-lab")).with_file_name("otherix-agent");
    let socket = folder.path().join("wgx.sock");
    let mesh = [agent.to_str().unwrap(), "mesh", "--name", "wgx", "--socket-dir", folder.path().to_str().unwrap()];
    let device = Running::start(&lab.namespace("outside"), &mesh);
    wait_for_blocking(DEADLINE, "the stranger's device", || socket.exists());
    lab.sh("outside", "ip address add 10.42.99.99/32 dev wgx && ip link set wgx up");
    let before = lab.wg_peers(1);
    let Place { address, key, endpoint } = &attack.places[&1];
    let said = lab.python("outside", INTRUDER, &[socket.to_str().unwrap(), key, endpoint]);
    let (sent, received) = said.trim().split_once(' ').unwrap();
    assert!(sent.parse::<u64>().unwrap() > 0);
    assert_eq!(received, "0", "the node answers a stranger");
    lab.sh("outside", &format!("ip route replace {address} dev wgx"));
    for source in ["-", &attack.places[&2].address] {
        attack.inject("outside", 1, (address, source), &format!("{FOREIGN}a stranger as {source}"));
    }
    assert!(!lab.succeeds(&["exec", "outside", "--", "ping", "-c1", "-W1", address]));
    assert_eq!(lab.wg_peers(1), before);
    (device, folder)
}

/// A removed node that does not comply: its agent is dead, its device and sessions remain.
fn a_removed_member(attack: &Attack<'_>, hears: &dyn Fn(&str) -> bool) {
    let lab = attack.lab;
    lab.lab(&["up", "--nodes", "4"]);
    let Place { key, .. } = &lab.places(4)[&4];
    wait_for_blocking(DEADLINE, "a member's frames to be heard", || {
        for node in [1, 2] {
            attack.inject("node-4", node, (&attack.places[&node].address, "-"), "member:node-4");
        }
        hears("member:node-4")
    });
    lab.lab(&["kill", "node-4"]);
    lab.ok(&["node", "delete", "node-4"]);
    for node in 1..=3 {
        wait_for_blocking(DEADLINE, "the node to be no peer", || !lab.wg_peers(node).contains_key(key));
    }
    assert!(lab.wg_peers(4).contains_key(&attack.places[&1].key), "it still has its peers");
    attack.try_everything("node-4");
    let address = &attack.places[&1].address;
    assert!(!lab.succeeds(&["exec", "node-4", "--", "ping", "-c1", "-W1", address]));
}
