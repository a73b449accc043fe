//! Overlays with NAT egress: each node lets its own guests out, and its gateway is not reached from other nodes.

use std::net::Ipv4Addr;

use otherix_agent::model::desired::{GATEWAY_MAC, Want};
use otherix_agent::model::ip::Gateway;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::value::MacAddress;
use otherix_testkit::netns::sh;

use super::topology::{Guest, OverlayNode, Placement, nodes, set_placement};
use crate::host::Host;
use crate::nat::REMOTE;
use crate::node::REPAIR;

const GATEWAY: &str = "10.1.0.254";
const MAC: &str = "02:6f:74:67:77:01";

/// Sends an ARP answer for the gateway, and asks for it.
const POISON: &str = "
import socket
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sender.bind((\"eth0\", 0))
own = \"525400000001\"
for operation, source, target in [(2, \"0a0100fe\", \"0a010002\"), (1, \"0a010001\", \"0a0100fe\")]:
    frame = f\"ffffffffffff {own} 0806 0001 0800 0604 000{operation} {own} {source} 000000000000 {target}\"
    sender.send(bytes.fromhex(frame))
";

/// Counts ARP about the gateway, and frames from its MAC address: at the VTEP before our tables, and from there to the
/// tap after them. What the node itself sends to its guest is not counted: it is the gateway (its bridge reports by
/// IGMP, for example, which multicast groups it is in).
fn count_at(vtep: &str, tap: &str) -> String {
    let about = |hook: &str| {
        format!(
            "{hook} @nh,112,32 0x0a0100fe counter\n{hook} @nh,192,32 0x0a0100fe counter
                {hook} ether saddr {MAC} counter\n{hook} ether daddr {MAC} counter"
        )
    };
    format!(
        "table bridge count {{
            chain arriving {{
                type filter hook prerouting priority -400;
                {}
            }}
            chain leaving {{
                type filter hook forward priority 400;
                {}
            }}
        }}",
        about(&format!("iifname {vtep}")),
        about(&format!("iifname {vtep} oifname {tap}")),
    )
}

/// Returns how many frames a chain has counted.
fn counted(node: &OverlayNode, chain: &str) -> u64 {
    let text = node.sh(&format!("nft list chain bridge count {chain}"));
    let counters = text.split("packets ").skip(1);
    counters.map(|rest| rest.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn settle(node: &OverlayNode, placement: &Placement, here: u16) {
    let placement = placement.clone();
    node.run(move |runtime, node| {
        set_placement(node, &[1], &placement, here);
        for network in node.desired.networks.values_mut() {
            let Want::Overlay(overlay) = &mut network.want else { unreachable!() };
            let subnet = "10.1.0.0/24".parse().unwrap();
            overlay.bridge.nat = Some(Gateway { address: GATEWAY.parse::<Ipv4Addr>().unwrap(), subnet });
            overlay.bridge.mac = MacAddress::try_from(GATEWAY_MAC).ok();
        }
        let pass = runtime.block_on(node.settle());
        assert!(pass.outcomes.iter().all(|outcome| outcome.outcome == Outcome::Ready), "{here}: {pass:?}");
    });
}

/// Starts nodes with a way out, through a host that has no route to guests.
fn nodes_with_uplinks() -> (Vec<OverlayNode>, Host) {
    let nodes = nodes(2);
    let outside = Host::new("outside");
    sh("ip link set outside master underlay");
    outside.sh(&format!("ip address add 192.0.2.99/24 dev eth0; ip address add {REMOTE}/32 dev lo"));
    nodes.iter().for_each(|node| drop(node.sh("ip route add default via 192.0.2.99")));
    (nodes, outside)
}

/// Attaches a guest that believes to have known the gateway for ever, as one that has been moved does.
fn attach(node: &OverlayNode, number: u16) -> Guest {
    let guest = node.guest(number, &format!("10.1.0.{number}"));
    guest.sh(&format!(
        "ip route add default via {GATEWAY}; ip neighbour add {GATEWAY} lladdr {MAC} nud permanent dev eth0"
    ));
    guest
}

#[test]
fn guests_of_two_nodes_reach_each_other_and_the_outside_through_their_own_node() {
    let (nodes, outside) = nodes_with_uplinks();
    let mut placement: Placement = [(1, (1, 1)), (2, (1, 2))].into();
    (1..).zip(&nodes).for_each(|(number, node)| settle(node, &placement, number));
    let (one, two) = (attach(&nodes[0], 1), attach(&nodes[1], 2));
    one.wait_until_reached("10.1.0.2");
    two.wait_until_reached("10.1.0.1");
    for guest in [&one, &two] {
        guest.wait_until_reached(GATEWAY);
        guest.wait_until_reached(REMOTE);
        assert!(guest.reaches_with(REMOTE, 1362), "packets of the whole MTU");
        guest.sh(&format!("ip neighbour del {GATEWAY} dev eth0"));
        guest.wait_until_reached(GATEWAY);
        guest.sh(&format!("ip neighbour show {GATEWAY} | grep -q {MAC}"));
    }
    // The outside has seen the nodes' addresses only.
    let seen = outside.sh("ip neighbour show dev eth0");
    assert!(seen.contains("192.0.2.1 ") && seen.contains("192.0.2.2 ") && !seen.contains("10.1.0."), "{seen}");
    assert!(outside.cannot_reach("10.1.0.1"));
    // Each node lets its own guests out, and not those of the other.
    nodes[1].sh("ip link set eth0 down");
    assert!(two.cannot_reach(REMOTE) && one.reaches_with(REMOTE, 100) && two.reaches_with("10.1.0.1", 100));
    // For a guest that moves, the gateway is where it was.
    drop(two);
    placement.insert(2, (1, 1));
    nodes[1].sh("ip link set eth0 up; ip route add default via 192.0.2.99");
    (1..).zip(&nodes).for_each(|(number, node)| settle(node, &placement, number));
    let two = attach(&nodes[0], 2);
    two.wait_until_reached(REMOTE);
    two.wait_until_reached("10.1.0.1");
}

#[test]
fn nothing_about_the_gateway_passes_between_nodes() {
    let (nodes, _outside) = nodes_with_uplinks();
    let placement: Placement = [(1, (1, 1)), (2, (1, 2))].into();
    (1..).zip(&nodes).for_each(|(number, node)| settle(node, &placement, number));
    let (one, two) = (attach(&nodes[0], 1), attach(&nodes[1], 2));
    one.wait_until_reached("10.1.0.2");
    let tap = otherix_schemas::nic::tap_name(crate::taps::nic(2));
    nodes[1].sh(&format!("nft '{}'", count_at("otvx1000", &tap)));
    let attack = || {
        one.sh(&format!("python3 -c \"{}\"", POISON.replace('"', "\\\"")));
        // The gateway's frames, and the node's own ARP for a guest that it does not have.
        one.sh(&format!("ip neighbour del {GATEWAY} dev eth0 || true"));
        nodes[0].sh("ip neighbour flush dev otb1000; ping -q -c 1 -W 0.2 10.1.0.2 || true");
        one.wait_until_reached("10.1.0.2");
    };
    attack();
    let none = (counted(&nodes[1], "arriving"), counted(&nodes[1], "leaving"));
    assert_eq!(none, (0, 0), "{}", nodes[1].sh("nft list table bridge count"));
    let delete =
        |node: &OverlayNode| node.sh("nft delete table bridge otherix; nft delete table bridge otherix_guests");
    delete(&nodes[0]);
    attack();
    let arrived = counted(&nodes[1], "arriving");
    let shown = nodes[1].sh("nft list chain bridge count arriving");
    assert!(arrived >= 3, "without the tables of the sender: {shown}");
    assert_eq!(counted(&nodes[1], "leaving"), 0, "the other node drops it");
    delete(&nodes[1]);
    attack();
    assert!(counted(&nodes[1], "leaving") > 0, "without any tables");
    for node in &nodes {
        node.run(|runtime, node| {
            runtime.block_on(node.run_until(REPAIR, || {
                let tables = sh("nft list tables");
                tables.contains("bridge otherix\n") && tables.contains("bridge otherix_guests")
            }));
            runtime.block_on(node.settle());
        });
    }
    let before = counted(&nodes[1], "arriving");
    attack();
    assert_eq!(counted(&nodes[1], "arriving"), before);
    two.wait_until_reached(GATEWAY);
}
