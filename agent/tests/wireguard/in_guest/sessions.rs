//! A change of a peer affects no other peer, and no session of its own.

use otherix_mesh::config::{AllowedIp, WgDeviceUpdate, WgPeerUpdate};
use otherix_mesh::key::WgPresharedKey;
use otherix_mesh::prefix::Prefix;

use super::node::{Implementation, Node, Ping, absent_peer, in_guest, nodes};

/// Returns three nodes, the first of which has a session with each of the others.
fn connected_nodes() -> [Node; 3] {
    let nodes = nodes([Implementation::Kernel; 3]);
    let [first, second, third] = &nodes;
    first.set_peers([second.as_peer(), third.as_peer()]);
    for node in [second, third] {
        node.set_peers([first.as_peer()]);
        first.reaches(node);
    }
    nodes
}

#[test]
fn a_change_of_a_peer_keeps_its_session_and_those_of_others() {
    in_guest(|| {
        let nodes = connected_nodes();
        let [first, second, third] = &nodes;
        let before = (first.last_handshake(second), first.last_handshake(third));
        assert!(before.0.is_some() && before.1.is_some());
        let pings = [first.ping(second, 200), first.ping(third, 200)];
        let peer = || WgPeerUpdate::new(second.key.public());
        for number in 1..=20 {
            let prefix: Prefix = format!("10.43.{number}.0/24").parse().unwrap();
            first.set_peers([WgPeerUpdate {
                keepalive: Some(number),
                allowed_ips: vec![AllowedIp::from(prefix)],
                ..peer()
            }]);
            first.set_peers([absent_peer(number)]);
            first.set_peers([WgPeerUpdate { remove: true, ..absent_peer(number) }]);
            first.set_peers([WgPeerUpdate {
                preshared_key: Some(WgPresharedKey::from_hex(&"5".repeat(64)).unwrap()),
                ..peer()
            }]);
            first.set_peers([WgPeerUpdate { preshared_key: Some(None), keepalive: Some(0), ..peer() }]);
            // Replacing all peers keeps the sessions of those that remain.
            let private_key = Some(Some(first.key.clone()));
            let peers = vec![second.as_peer(), absent_peer(number), third.as_peer()];
            first.set(&WgDeviceUpdate {
                private_key,
                listen_port: Some(51820),
                replace_peers: true,
                peers,
                ..WgDeviceUpdate::default()
            });
        }
        let [to_second, to_third] = pings.map(Ping::sent_and_lost);
        assert_eq!(to_third, (200, 0), "the peer was not changed");
        // To remove a prefix of a peer, all its prefixes are replaced, and packets in between are lost.
        assert!(to_second.0 == 200 && to_second.1 <= 2, "{to_second:?}");
        assert_eq!((first.last_handshake(second), first.last_handshake(third)), before);
        assert_eq!(first.status().peers.len(), 3);
    });
}

#[test]
fn packets_of_a_removed_peer_are_dropped_until_it_is_added_again() {
    in_guest(|| {
        let nodes = connected_nodes();
        let [first, second, third] = &nodes;
        let before = first.last_handshake(third);
        let ping = first.ping(third, 200);
        first.set_peers([WgPeerUpdate { remove: true, ..WgPeerUpdate::new(second.key.public()) }]);
        assert_eq!(second.ping(first, 20).sent_and_lost(), (20, 20));
        first.set_peers([second.as_peer()]);
        first.reaches(second);
        second.reaches(first);
        assert_eq!(ping.sent_and_lost(), (200, 0));
        assert_eq!(first.last_handshake(third), before);
    });
}
