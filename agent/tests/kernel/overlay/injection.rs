//! Hosts outside the mesh cannot inject frames into an overlay.

use std::time::Duration;

use otherix_schemas::nic::tap_name;
use otherix_schemas::outcome::Outcome;
use otherix_testkit::netns::{link, sh};
use otherix_testkit::wait::wait_for_blocking;
use otherix_tun::TapDevice;

use super::Host;
use super::topology::{Guest, OverlayNode, Placement, nodes};
use crate::nat::nat;
use crate::taps::{frame, mac, nic, received};

/// Returns two nodes with an overlay: NIC 1 is on node 1, NIC 2 on node 2.
fn two_nodes() -> Vec<OverlayNode> {
    let nodes = nodes(2);
    let placement: Placement = [(1, (1, 1)), (2, (1, 2))].into();
    (1..).zip(&nodes).for_each(|(number, node)| node.settle(&[1], &placement, number));
    nodes
}

/// Connects a host to the underlay or to the mesh.
fn host(device: &str, bridge: &str, address: &str) -> Host {
    let host = Host::new(device);
    sh(&format!("ip link set {device} master {bridge}"));
    host.sh(&format!("ip addr add {address} dev eth0"));
    host
}

/// Makes a host send a frame with the address of NIC `from`, as VXLAN of the overlay, to this address of a node.
fn inject(host: &Host, node: &str, from: u16, number: u8) {
    let bytes: String = frame(mac(from), number).iter().map(|byte| format!("{byte:02x}")).collect();
    host.sh(&format!(
        "ip link add vx type vxlan id 1000 remote {node} dstport 4789\nip link set vx up
        python3 -c 'import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind((\"vx\", 0))
for _ in range(3): s.send(bytes.fromhex(\"{bytes}\"))'
        ip link del vx"
    ));
}

/// Sends repeatedly until the frame with this number is received. Returns the numbers of all received frames.
fn receive_until(tap: &TapDevice, number: u8, mut send: impl FnMut()) -> Vec<u8> {
    let mut numbers = Vec::new();
    wait_for_blocking(Duration::from_secs(20), "the frame from the mesh", || {
        send();
        numbers.extend(received(tap));
        numbers.contains(&number)
    });
    numbers
}

fn attach(node: &OverlayNode, number: u16) -> TapDevice {
    node.run(move |_, _| TapDevice::attach(&tap_name(nic(number))).unwrap())
}

#[test]
fn frames_from_the_underlay_are_dropped() {
    let nodes = two_nodes();
    let tap = attach(&nodes[0], 1);
    let outside = host("outside", "underlay", "192.0.2.99/24");
    // The same frame from the mesh is received: nothing else prevents it.
    let peer = host("peer", "mesh", "10.42.0.77/16");
    receive_until(&tap, 1, || inject(&peer, "10.42.0.1", 2, 1));
    outside.sh("ip route add 10.42.0.1 via 192.0.2.1");
    inject(&outside, "192.0.2.1", 2, 2);
    inject(&outside, "10.42.0.1", 2, 3);
    let numbers = receive_until(&tap, 4, || inject(&peer, "10.42.0.1", 2, 4));
    assert!(!numbers.contains(&2) && !numbers.contains(&3), "{numbers:?}");
    // A frame from a node of the mesh, with the address of a NIC that is not on it.
    inject(&peer, "10.42.0.1", 9, 5);
    let numbers = receive_until(&tap, 6, || inject(&peer, "10.42.0.1", 2, 6));
    assert!(!numbers.contains(&5), "{numbers:?}");
}

#[test]
fn vxlan_of_other_programs_passes() {
    let nodes = two_nodes();
    let outside = host("outside", "underlay", "192.0.2.99/24");
    let create = |here: &str, other: &str, address: &str| {
        format!(
            "ip link add vx type vxlan id 4096 local {here} remote {other} dstport 4789
            ip addr add {address}/24 dev vx; ip link set vx up"
        )
    };
    nodes[0].sh(&create("192.0.2.1", "192.0.2.99", "172.31.9.1"));
    outside.sh(&create("192.0.2.99", "192.0.2.1", "172.31.9.2"));
    assert!(outside.reaches("172.31.9.1"));
    assert!(nodes[0].sh("ping -n -q -c 1 -W 5 172.31.9.2").contains(" 0% packet loss"));
}

#[test]
fn frames_from_a_guest_behind_nat_are_dropped_on_all_nodes() {
    let nodes = two_nodes();
    nodes[0].run(|runtime, node| {
        sh("ip route add default via 192.0.2.2");
        node.set_desired(9, nat(9));
        assert_eq!(runtime.block_on(node.outcome(9)), Outcome::Ready);
        // Another program may enable forwarding on the mesh device.
        sh("sysctl -qw net.ipv4.conf.otwg0.forwarding=1");
    });
    let guest = nodes[0].run(|_, _| {
        let guest = Host::new("guest");
        sh("ip link set guest master br-9");
        guest.sh("ip addr add 10.20.9.5/24 dev eth0; ip route add default via 10.20.9.1");
        guest
    });
    let (own, remote) = (attach(&nodes[0], 1), attach(&nodes[1], 2));
    let peer = host("peer", "mesh", "10.42.0.77/16");
    receive_until(&own, 1, || inject(&peer, "10.42.0.1", 2, 1));
    receive_until(&remote, 1, || inject(&peer, "10.42.0.2", 1, 1));
    assert!(guest.reaches("192.0.2.2"), "the outside");
    assert!(guest.cannot_reach("10.42.0.2"), "the mesh");
    for (number, node) in [(2, "10.20.9.1"), (3, "10.42.0.1"), (4, "192.0.2.1")] {
        inject(&guest, node, 2, number);
    }
    for (number, node) in [(5, "10.42.0.2"), (6, "192.0.2.2")] {
        inject(&guest, node, 1, number);
    }
    let numbers = receive_until(&own, 7, || inject(&peer, "10.42.0.1", 2, 7));
    assert!(!numbers.iter().any(|number| (2..=6).contains(number)), "{numbers:?}");
    let numbers = receive_until(&remote, 7, || inject(&peer, "10.42.0.2", 1, 7));
    assert!(!numbers.iter().any(|number| (2..=6).contains(number)), "{numbers:?}");
}

#[test]
fn vxlan_is_never_sent_unencrypted() {
    let nodes = two_nodes();
    let tap = attach(&nodes[0], 1);
    let remote = attach(&nodes[1], 2);
    receive_until(&remote, 1, || tap.write(&frame(mac(1), 1)).unwrap());
    // The mesh is down, and another route leads to its addresses.
    nodes[0].sh("ip link set otwg0 down\nip route add 10.42.0.0/16 via 192.0.2.2 dev eth0");
    nodes[1].sh("nft delete table ip otherix");
    for _ in 0..5 {
        tap.write(&frame(mac(1), 2)).unwrap();
    }
    nodes[0].sh("ip route del 10.42.0.0/16 via 192.0.2.2 dev eth0\nip link set otwg0 up");
    let numbers = receive_until(&remote, 3, || tap.write(&frame(mac(1), 3)).unwrap());
    assert!(!numbers.contains(&2), "{numbers:?}");
}

#[test]
fn guests_of_other_nodes_do_not_reach_a_node_that_has_an_address_on_the_overlay() {
    let nodes = two_nodes();
    let remote = nodes[1].guest(2, "10.1.0.2");
    let local = nodes[0].guest(1, "10.1.0.1");
    remote.wait_until_reached("10.1.0.1");
    // Someone gives the node an address.
    nodes[0].sh("ip addr add 10.1.0.100/24 dev otb1000");
    let bridge_mac = nodes[0].run(|_, _| link("otb1000").unwrap()["address"].as_str().unwrap().to_owned());
    remote.sh(&format!("ip neigh replace 10.1.0.100 dev eth0 lladdr {bridge_mac}"));
    // Datagrams reach the node, whatever it answers.
    let reaches_node = |guest: &Guest| {
        let received = || nodes[0].sh("nstat -asz UdpNoPorts | tail -n 1");
        let before = received();
        guest.sh("for n in 1 2 3; do echo hello > /dev/udp/10.1.0.100/9; done");
        guest.wait_until_reached("10.1.0.1");
        received() != before
    };
    let settle = || {
        nodes[0].run(|runtime, node| {
            node.reconciler.is_due();
            runtime.block_on(node.settle())
        })
    };
    settle();
    assert!(!reaches_node(&remote) && local.cannot_reach("10.1.0.100"));
    nodes[0].sh("ip link set otvx1000 group default");
    assert!(reaches_node(&remote), "in another group");
    settle();
    assert!(!reaches_node(&remote));
    nodes[0].sh("nft delete table bridge otherix_guests");
    assert!(reaches_node(&remote), "without the tables");
    settle();
    assert!(!reaches_node(&remote) && remote.reaches_with("10.1.0.1", 1362));
}
