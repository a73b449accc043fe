//! Who is not of the mesh is not heard in an overlay.

use std::time::Duration;

use otherix_schemas::nic::tap_name;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::sh;
use otherix_testkit::wait::wait_for_blocking;
use otherix_tun::TapDevice;

use super::Host;
use super::world::{OverlayNode, Placement, world};
use crate::nat::nat;
use crate::taps::{frame, heard, mac, nic};

/// NIC 1 on node 1, NIC 2 on node 2.
fn two_nodes() -> Vec<OverlayNode> {
    let nodes = world(2);
    let placement: Placement = [(1, (1, 1)), (2, (1, 2))].into();
    (1..).zip(&nodes).for_each(|(number, node)| node.settle(&[1], &placement, number));
    nodes
}

/// A host on a wire of the world.
fn host(device: &str, wire: &str, address: &str) -> Host {
    let host = Host::new(device);
    sh(&format!("ip link set {device} master {wire}"));
    host.sh(&format!("ip addr add {address} dev eth0"));
    host
}

/// Has a host send a frame of NIC `from`, with a number, into the overlay of a node that it knows by this address.
fn inject(host: &Host, node: &str, from: u16, number: u8) {
    let bytes: String = frame(mac(from), number).iter().map(|byte| format!("{byte:02x}")).collect();
    host.sh(&format!(
        "ip link add vx type vxlan id 1000 remote {node} dstport 4789\nip link set vx up
        python3 -c 'import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind((\"vx\", 0))
for _ in range(3): s.send(bytes.fromhex(\"{bytes}\"))'
        ip link del vx"
    ));
}

/// Waits until the frame with this number is heard, and gives all that were.
fn hears(tap: &TapDevice, number: u8, mut again: impl FnMut()) -> Vec<u8> {
    let mut all = Vec::new();
    wait_for_blocking(Duration::from_secs(20), "the frame by the mesh", || {
        again();
        all.extend(heard(tap));
        all.contains(&number)
    });
    all
}

fn plugged_in(node: &OverlayNode, number: u16) -> TapDevice {
    node.run(move |_, _| TapDevice::attach(&tap_name(nic(number))).unwrap())
}

#[test]
fn a_host_of_the_underlay_is_not_heard() {
    let nodes = two_nodes();
    let tap = plugged_in(&nodes[0], 1);
    let outside = host("outside", "underlay", "192.0.2.99/24");
    // The same by the mesh is heard: nothing else keeps it out.
    let peer = host("peer", "mesh", "10.42.0.77/16");
    hears(&tap, 1, || inject(&peer, "10.42.0.1", 2, 1));
    outside.sh("ip route add 10.42.0.1 via 192.0.2.1");
    inject(&outside, "192.0.2.1", 2, 2);
    inject(&outside, "10.42.0.1", 2, 3);
    let all = hears(&tap, 4, || inject(&peer, "10.42.0.1", 2, 4));
    assert!(!all.contains(&2) && !all.contains(&3), "{all:?}");
    // A node that has the mesh, but not that NIC, says that it has.
    inject(&peer, "10.42.0.1", 9, 5);
    let all = hears(&tap, 6, || inject(&peer, "10.42.0.1", 2, 6));
    assert!(!all.contains(&5), "{all:?}");
}

#[test]
fn a_guest_behind_nat_is_not_heard_here_nor_there() {
    let nodes = two_nodes();
    nodes[0].run(|runtime, node| {
        sh("ip route add default via 192.0.2.2");
        node.want(9, nat(9));
        assert_eq!(runtime.block_on(node.outcome(9)), Outcome::Ready);
        // Others may have it forward by the mesh.
        sh("sysctl -qw net.ipv4.conf.otwg0.forwarding=1");
    });
    let guest = nodes[0].run(|_, _| {
        let guest = Host::new("guest");
        sh("ip link set guest master br-9");
        guest.sh("ip addr add 10.20.9.5/24 dev eth0; ip route add default via 10.20.9.1");
        guest
    });
    let (here, there) = (plugged_in(&nodes[0], 1), plugged_in(&nodes[1], 2));
    let peer = host("peer", "mesh", "10.42.0.77/16");
    hears(&here, 1, || inject(&peer, "10.42.0.1", 2, 1));
    hears(&there, 1, || inject(&peer, "10.42.0.2", 1, 1));
    assert!(guest.reaches("192.0.2.2"), "the outside");
    assert!(guest.is_kept_from("10.42.0.2"), "the mesh");
    for (number, node) in [(2, "10.20.9.1"), (3, "10.42.0.1"), (4, "192.0.2.1")] {
        inject(&guest, node, 2, number);
    }
    for (number, node) in [(5, "10.42.0.2"), (6, "192.0.2.2")] {
        inject(&guest, node, 1, number);
    }
    let all = hears(&here, 7, || inject(&peer, "10.42.0.1", 2, 7));
    assert!(!all.iter().any(|number| (2..=6).contains(number)), "{all:?}");
    let all = hears(&there, 7, || inject(&peer, "10.42.0.2", 1, 7));
    assert!(!all.iter().any(|number| (2..=6).contains(number)), "{all:?}");
}

#[test]
fn vxlan_does_not_leave_in_the_clear() {
    let nodes = two_nodes();
    let tap = plugged_in(&nodes[0], 1);
    let there = plugged_in(&nodes[1], 2);
    hears(&there, 1, || tap.write(&frame(mac(1), 1)).unwrap());
    // The mesh is down, and something else leads to where it led.
    nodes[0].sh("ip link set otwg0 down\nip route add 10.42.0.0/16 via 192.0.2.2 dev eth0");
    nodes[1].sh("nft delete table ip otherix");
    for _ in 0..5 {
        tap.write(&frame(mac(1), 2)).unwrap();
    }
    nodes[0].sh("ip route del 10.42.0.0/16 via 192.0.2.2 dev eth0\nip link set otwg0 up");
    let all = hears(&there, 3, || tap.write(&frame(mac(1), 3)).unwrap());
    assert!(!all.contains(&2), "{all:?}");
}
