//! Overlays that allow spoofing: what is inside a guest is reached from other nodes.

use otherix_agent::model::desired::Want;

use super::topology::{Placement, nodes};
use crate::taps::bridge_json;

#[test]
fn other_mac_addresses_are_reached_across_nodes_where_spoofing_is_allowed() {
    let nodes = nodes(2);
    let placement: Placement = [(1, (1, 1)), (2, (1, 2))].into();
    (1..).zip(&nodes).for_each(|(number, node)| node.settle(&[1], &placement, number));
    let one = nodes[0].guest(1, "10.1.0.1");
    let two = nodes[1].guest(2, "10.1.0.2");
    one.wait_until_reached("10.1.0.2");
    two.sh("ip neighbour flush all");
    one.sh("ip link set eth0 address 02:11:22:33:44:55");
    assert!(one.cannot_reach("10.1.0.2"));
    let allow = |is_allowed: bool| {
        for node in &nodes {
            node.run(move |runtime, node| {
                for network in node.desired.networks.values_mut() {
                    let Want::Overlay(overlay) = &mut network.want else { unreachable!() };
                    overlay.bridge.allow_spoofing = is_allowed;
                }
                runtime.block_on(node.settle());
            });
        }
    };
    allow(true);
    one.wait_until_reached("10.1.0.2");
    two.wait_until_reached("10.1.0.1");
    nodes[1].run(|_, _| {
        let learned = bridge_json("fdb show br otb1000");
        assert!(!learned.iter().any(|entry| entry["mac"] == "02:11:22:33:44:55"), "nothing is learned");
    });
    allow(false);
    two.sh("ip neighbour flush all");
    assert!(one.cannot_reach("10.1.0.2"));
}
