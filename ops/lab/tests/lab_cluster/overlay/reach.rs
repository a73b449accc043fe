//! Connectivity and isolation of guests, and the traffic on the underlay.

use std::collections::BTreeMap;

use otherix_testkit::wait::wait_for_blocking;
use serde_json::json;

use super::injection;
use super::tools::Capture;
use super::{OverlayGuest, forwarding};
use crate::lab::{DEADLINE, Lab};

const NODES: u32 = 3;

/// Bytes in each direction of a call, and the number of calls.
const CALL_BYTES: u32 = 4 << 20;
const CALLS: usize = 4;

/// The traffic allowed on the underlay: the mesh, ARP, every node's connection to the control plane, and the kernels'
/// link-local IGMP and ICMPv6.
const ALLOWED: &str = "udp port 51820 or arp or (tcp port 4222 and host 10.99.0.1) or igmp \
                       or (ip6 protochain 58 and (src net fe80::/10 or src host ::))";

/// The payload of every ping, searched for in captures.
const MARKER: &str = "otherix!otherix!";

pub(super) type OverlayGuests = BTreeMap<&'static str, OverlayGuest>;

#[test]
fn lab_cluster_overlays_are_connected_and_isolated() {
    let lab = Lab::up("reach", NODES);
    let red = lab.overlay("red");
    let underlay = Capture::start(&lab, "underlay", "any");
    let blue = lab.overlay("blue");
    let guest = |name, network, node, number| (name, lab.overlay_guest(name, network, node, number));
    // The same addresses in both.
    let reds: OverlayGuests =
        [guest("red-1", "red", 1, 11), guest("red-2", "red", 2, 12), guest("red-3", "red", 3, 13)].into();
    let blues: OverlayGuests = [guest("blue-1", "blue", 1, 11), guest("blue-2", "blue", 2, 12)].into();

    every_pair_is_connected(&lab);
    networks_are_isolated(&lab);
    kernel_matches_decisions(&lab, &[(red, &reds), (blue, &blues)]);
    underlay_carries_no_clear_text(&lab, &underlay);
    drop(underlay);
    injection::assert_no_injection(&lab, red, &reds);
}

fn every_pair_is_connected(lab: &Lab) {
    for from in ["red-1", "red-2", "red-3"] {
        for to in ["10.50.0.11", "10.50.0.12", "10.50.0.13"] {
            wait_for_blocking(DEADLINE, &format!("{from} to reach {to}"), || lab.ping(from, &[to]));
        }
    }
    let fits = |size: &str| lab.ping("red-1", &["-Mdo", "-s", size, "10.50.0.12"]);
    assert!(fits("1362"), "a packet of 1390 bytes");
    assert!(!fits("1363"), "a packet of 1391 bytes, which must not be fragmented");
    let _servers = [lab.serve("red-2"), lab.serve("blue-2"), lab.serve("red-1")];
    let calls: [_; CALLS] = [("red-1", "red-2"), ("red-2", "red-1"), ("red-3", "red-2"), ("blue-1", "blue-2")];
    for (from, to) in calls {
        let address = if to.ends_with('1') { "10.50.0.11" } else { "10.50.0.12" };
        assert_eq!(lab.exchange(from, address, CALL_BYTES), to, "the server that answers {from}");
    }
}

fn networks_are_isolated(lab: &Lab) {
    assert!(!lab.ping("blue-1", &["10.50.0.13"]), "that guest is in the other network only");
    let (red, blue) = (Capture::start(lab, "vm:red-2", "eth0"), Capture::start(lab, "vm:blue-2", "eth0"));
    // Each resolves an unused address.
    let is_asked = |capture: &Capture, address: &str| !capture.packets(&format!("arp host {address}")).is_empty();
    wait_for_blocking(DEADLINE, "red-2 to receive the ARP request", || {
        lab.ping("red-1", &["10.50.0.98"]);
        is_asked(&red, "10.50.0.98")
    });
    wait_for_blocking(DEADLINE, "blue-2 to receive the ARP request", || {
        lab.ping("blue-1", &["10.50.0.99"]);
        is_asked(&blue, "10.50.0.99")
    });
    assert!(
        !is_asked(&red, "10.50.0.99") && !is_asked(&blue, "10.50.0.98"),
        "each receives only frames of its network"
    );
}

fn kernel_matches_decisions(lab: &Lab, overlays: &[(u64, &OverlayGuests)]) {
    let memberships = lab.mesh_memberships(NODES);
    for node in 1..=NODES {
        let member = &memberships[&node];
        for (vni, guests) in overlays {
            let expected = forwarding(node, guests.values(), &memberships);
            assert_eq!(lab.fdb(node, *vni), expected, "node-{node}, VNI {vni}");
            let vtep = lab.link(node, &format!("otvx{vni}")).unwrap();
            let data = &vtep["linkinfo"]["info_data"];
            assert_eq!((&vtep["mtu"], &vtep["master"]), (&json!(1390), &json!(format!("otb{vni}"))));
            assert_eq!((&data["id"], &data["port"], &data["learning"]), (&json!(vni), &json!(4789), &json!(false)));
            assert_eq!(data["local"], member.address.as_str());
        }
        let peers = memberships.iter().filter(|(other, _)| **other != node).map(|(_, membership)| {
            let allowed = format!("{}/32", membership.address);
            (membership.key.clone(), [membership.endpoint.clone(), allowed, "25".to_owned()])
        });
        assert_eq!(lab.wg_peers(node), peers.collect(), "node-{node}");
        assert_eq!(lab.link(node, "otwg0").unwrap()["mtu"], 1440);
    }
}

fn underlay_carries_no_clear_text(lab: &Lab, underlay: &Capture) {
    let pattern: String = MARKER.bytes().map(|byte| format!("{byte:02x}")).collect();
    let inside = Capture::start(lab, "node-1", "otwg0");
    wait_for_blocking(DEADLINE, "a ping to be seen in the mesh", || {
        lab.ping("red-1", &["-p", &pattern, "10.50.0.12"]);
        inside.contains(MARKER)
    });
    assert!(!inside.packets("udp port 4789").is_empty());
    let length = |packet: &String| packet.rsplit_once("length ").and_then(|(_, length)| length.parse::<u64>().ok());
    let carried: u64 = underlay.packets("udp port 51820").iter().filter_map(length).sum();
    println!("the underlay carried {carried} bytes of the mesh");
    assert!(carried > CALLS as u64 * 2 * u64::from(CALL_BYTES), "the capture sees the mesh: {carried} bytes");
    assert_eq!(underlay.packets(&format!("not ({ALLOWED})")), Vec::<String>::new());
    assert!(!underlay.contains(MARKER), "payloads are encrypted on the underlay");
}
