//! What a change disturbs: nothing but what it is about.

use otherix_mesh::config::{AllowedIp, WgDeviceUpdate, WgPeerUpdate};
use otherix_mesh::key::WgPresharedKey;
use otherix_mesh::prefix::Prefix;

use super::world::{Engine, Node, in_guest, nodes, stranger};

/// Three nodes whose first has a session with each of the others.
fn three() -> [Node; 3] {
    let nodes = nodes([Engine::Kernel; 3]);
    let [one, other, third] = &nodes;
    one.change([other.as_peer(), third.as_peer()]);
    for node in [other, third] {
        node.change([one.as_peer()]);
        one.reaches(node);
    }
    nodes
}

#[test]
fn a_change_of_one_peer_leaves_the_others_sessions_and_its_own() {
    in_guest(|| {
        let nodes = three();
        let [one, other, third] = &nodes;
        let before = (one.handshake(other), one.handshake(third));
        assert!(before.0.is_some() && before.1.is_some());
        let pings = [one.ping(other, 200), one.ping(third, 200)];
        let peer = || WgPeerUpdate::new(other.key.public());
        for number in 1..=20 {
            let prefix: Prefix = format!("10.43.{number}.0/24").parse().unwrap();
            one.change([WgPeerUpdate {
                keepalive: Some(number),
                allowed_ips: vec![AllowedIp::from(prefix)],
                ..peer()
            }]);
            one.change([stranger(number)]);
            one.change([WgPeerUpdate { remove: true, ..stranger(number) }]);
            one.change([WgPeerUpdate {
                preshared_key: Some(WgPresharedKey::from_hex(&"5".repeat(64)).unwrap()),
                ..peer()
            }]);
            one.change([WgPeerUpdate { preshared_key: Some(None), keepalive: Some(0), ..peer() }]);
            // Everything anew, as the agent does; the session of who is named stays.
            let private_key = Some(Some(one.key.clone()));
            let peers = vec![other.as_peer(), stranger(number), third.as_peer()];
            one.set(&WgDeviceUpdate {
                private_key,
                listen_port: Some(51820),
                replace_peers: true,
                peers,
                ..WgDeviceUpdate::default()
            });
        }
        let [to_other, to_third] = pings.map(super::world::Ping::lost);
        assert_eq!(to_third, (200, 0), "nothing of it was changed");
        // For a moment a prefix is not its own when another of its prefixes is taken from it.
        assert!(to_other.0 == 200 && to_other.1 <= 2, "{to_other:?}");
        assert_eq!((one.handshake(other), one.handshake(third)), before);
        assert_eq!(one.get().peers.len(), 3);
    });
}

#[test]
fn a_removed_peer_gets_nothing_in_and_comes_back() {
    in_guest(|| {
        let nodes = three();
        let [one, other, third] = &nodes;
        let before = one.handshake(third);
        let ping = one.ping(third, 200);
        one.change([WgPeerUpdate { remove: true, ..WgPeerUpdate::new(other.key.public()) }]);
        assert_eq!(other.ping(one, 20).lost(), (20, 20));
        one.change([other.as_peer()]);
        one.reaches(other);
        other.reaches(one);
        assert_eq!(ping.lost(), (200, 0));
        assert_eq!(one.handshake(third), before);
    });
}
