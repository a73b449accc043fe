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
const CALL: u32 = 4 << 20;
const CALLS: usize = 4;

/// What may pass the underlay: the mesh, ARP, and every node's connection with the control plane. And the kernels' own
/// words on groups and IPv6 on each link, which go no farther.
const ALLOWED: &str = "udp port 51820 or arp or (tcp port 4222 and host 10.99.0.1) or igmp \
                       or (ip6 protochain 58 and (src net fe80::/10 or src host ::))";

/// A text in every ping, to be searched for in captures.
const MARK: &str = "otherix!otherix!";

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

    every_pair_is_reached(&lab);
    networks_stay_apart(&lab);
    decisions_are_in_the_kernel(&lab, &[(red, &reds), (blue, &blues)]);
    nothing_passes_in_the_clear(&lab, &underlay);
    drop(underlay);
    injection::nobody_gets_in(&lab, red, &reds);
}

fn every_pair_is_reached(lab: &Lab) {
    for from in ["red-1", "red-2", "red-3"] {
        for to in ["10.50.0.11", "10.50.0.12", "10.50.0.13"] {
            wait_for_blocking(DEADLINE, &format!("{from} to reach {to}"), || lab.ping(from, &[to]));
        }
    }
    let whole = |size: &str| lab.ping("red-1", &["-Mdo", "-s", size, "10.50.0.12"]);
    assert!(whole("1362"), "a packet of 1390 bytes");
    assert!(!whole("1363"), "a packet of 1391 bytes, which must not be fragmented");
    let _servers = [lab.serve("red-2"), lab.serve("blue-2"), lab.serve("red-1")];
    let calls: [_; CALLS] = [("red-1", "red-2"), ("red-2", "red-1"), ("red-3", "red-2"), ("blue-1", "blue-2")];
    for (from, to) in calls {
        let address = if to.ends_with('1') { "10.50.0.11" } else { "10.50.0.12" };
        assert_eq!(lab.exchange(from, address, CALL), to, "who answers {from}");
    }
}

fn networks_stay_apart(lab: &Lab) {
    assert!(!lab.ping("blue-1", &["10.50.0.13"]), "it is in the other network only");
    let (red, blue) = (Capture::start(lab, "vm:red-2", "eth0"), Capture::start(lab, "vm:blue-2", "eth0"));
    // Each resolves an unused address.
    let asked = |who: &Capture, address: &str| !who.packets(&format!("arp host {address}")).is_empty();
    wait_for_blocking(DEADLINE, "red-2 to be asked", || {
        lab.ping("red-1", &["10.50.0.98"]);
        asked(&red, "10.50.0.98")
    });
    wait_for_blocking(DEADLINE, "blue-2 to be asked", || {
        lab.ping("blue-1", &["10.50.0.99"]);
        asked(&blue, "10.50.0.99")
    });
    assert!(!asked(&red, "10.50.0.99") && !asked(&blue, "10.50.0.98"), "each hears its own network only");
}

fn decisions_are_in_the_kernel(lab: &Lab, overlays: &[(u64, &OverlayGuests)]) {
    let places = lab.places(NODES);
    for node in 1..=NODES {
        let own = &places[&node];
        for (vni, guests) in overlays {
            let wanted = forwarding(node, guests.values(), &places);
            assert_eq!(lab.fdb(node, *vni), wanted, "node-{node}, VNI {vni}");
            let vtep = lab.link(node, &format!("otvx{vni}")).unwrap();
            let data = &vtep["linkinfo"]["info_data"];
            assert_eq!((&vtep["mtu"], &vtep["master"]), (&json!(1390), &json!(format!("otb{vni}"))));
            assert_eq!((&data["id"], &data["port"], &data["learning"]), (&json!(vni), &json!(4789), &json!(false)));
            assert_eq!(data["local"], own.address.as_str());
        }
        let peers = places.iter().filter(|(other, _)| **other != node).map(|(_, place)| {
            let allowed = format!("{}/32", place.address);
            (place.key.clone(), [place.endpoint.clone(), allowed, "25".to_owned()])
        });
        assert_eq!(lab.wg_peers(node), peers.collect(), "node-{node}");
        assert_eq!(lab.link(node, "otwg0").unwrap()["mtu"], 1440);
    }
}

fn nothing_passes_in_the_clear(lab: &Lab, underlay: &Capture) {
    let pattern: String = MARK.bytes().map(|byte| format!("{byte:02x}")).collect();
    let inside = Capture::start(lab, "node-1", "otwg0");
    wait_for_blocking(DEADLINE, "a ping to be seen in the mesh", || {
        lab.ping("red-1", &["-p", &pattern, "10.50.0.12"]);
        inside.has(MARK)
    });
    assert!(!inside.packets("udp port 4789").is_empty());
    let length = |packet: &String| packet.rsplit_once("length ").and_then(|(_, length)| length.parse::<u64>().ok());
    let carried: u64 = underlay.packets("udp port 51820").iter().filter_map(length).sum();
    println!("the underlay carried {carried} bytes of the mesh");
    assert!(carried > CALLS as u64 * 2 * u64::from(CALL), "the capture sees the mesh: {carried} bytes");
    assert_eq!(underlay.packets(&format!("not ({ALLOWED})")), Vec::<String>::new());
    assert!(!underlay.has(MARK), "what the mesh carries is not to be read");
}
