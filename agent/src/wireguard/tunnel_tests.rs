use std::time::Duration;

use otherix_schemas::id::NodeId;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const PORT: u16 = 51820;

fn public(number: u8) -> value::MeshPublicKey {
    value::MeshPublicKey::try_from([number; 32]).unwrap()
}

fn place(peers: &[(u8, u8, u8)]) -> DesiredMeshDevice {
    let peers = peers.iter().map(|(key, address, endpoint)| {
        let neighbour = DesiredPeer {
            node: NodeId::new(Uuid::from_u128(u128::from(*key))),
            address: [10, 42, 0, *address].into(),
            endpoint: format!("192.0.2.{endpoint}:{PORT}").parse().unwrap(),
        };
        (public(*key), neighbour)
    });
    DesiredMeshDevice { address: [10, 42, 0, 1].into(), public_key: public(255), mtu: 1440, peers: peers.collect() }
}

/// A device that does what it is told, as `wg(8)` describes it.
fn tell(status: &mut WgDeviceStatus, config: &WgDeviceUpdate) {
    let WgDeviceUpdate { private_key, listen_port, fwmark, replace_peers, peers } = config.clone();
    assert!(!replace_peers);
    status.private_key = private_key.unwrap_or_else(|| status.private_key.clone());
    status.listen_port = listen_port.unwrap_or(status.listen_port);
    status.fwmark = fwmark.unwrap_or(status.fwmark);
    for change in peers {
        let before = status.peers.iter().position(|peer| peer.public_key == change.public_key);
        if change.remove {
            status.peers.remove(before.unwrap());
            continue;
        }
        let at = before.unwrap_or_else(|| {
            status.peers.push(WgPeerStatus::new(change.public_key));
            status.peers.len() - 1
        });
        for AllowedIp { prefix, remove } in &change.allowed_ips {
            assert!(!remove);
            status.peers.iter_mut().for_each(|peer| peer.allowed_ips.retain(|is| is != prefix));
        }
        let peer = &mut status.peers[at];
        if change.replace_allowed_ips {
            peer.allowed_ips.clear();
        }
        peer.allowed_ips.extend(change.allowed_ips.iter().map(|allowed| allowed.prefix));
        peer.endpoint = change.endpoint.or(peer.endpoint);
        peer.keepalive = change.keepalive.unwrap_or(peer.keepalive);
        peer.preshared_key = change.preshared_key.unwrap_or_else(|| peer.preshared_key.clone());
    }
}

fn nothing() -> WgDeviceStatus {
    WgDeviceStatus { private_key: None, listen_port: 0, fwmark: 0, peers: Vec::new() }
}

/// Tells it until there is nothing more to tell; gives what it was told.
fn settle(
    place: &DesiredMeshDevice,
    key: &WgPrivateKey,
    status: &mut WgDeviceStatus,
    told: &mut Told,
    current: bool,
) -> Vec<WgDeviceUpdate> {
    let mut all = Vec::new();
    while let Some(config) = change(place, (key, PORT), status, told, (SystemTime::now(), current)) {
        tell(status, &config);
        told.extend(super::told(&config));
        all.push(config);
        assert!(all.len() < 4, "{all:?}");
    }
    all
}

#[test]
fn a_new_device_gets_its_key_and_then_its_peers() {
    let (key, mut status, mut told) = (WgPrivateKey::generate().unwrap(), nothing(), Told::new());
    let configs = settle(&place(&[(2, 2, 2), (3, 3, 3)]), &key, &mut status, &mut told, false);
    assert_eq!(configs.iter().map(|config| config.peers.len()).collect::<Vec<_>>(), [0, 2]);
    assert_eq!((status.private_key, status.listen_port), (Some(key), PORT));
    let peer = &status.peers[1];
    assert_eq!(peer.allowed_ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.42.0.3/32"]);
    assert_eq!((peer.endpoint.unwrap().to_string().as_str(), peer.keepalive), ("192.0.2.3:51820", 25));
}

#[test]
fn a_node_with_another_key_keeps_its_address() {
    let (key, mut status, mut told) = (WgPrivateKey::generate().unwrap(), nothing(), Told::new());
    settle(&place(&[(2, 2, 2), (3, 3, 3)]), &key, &mut status, &mut told, true);
    let [config] = &settle(&place(&[(4, 2, 2), (3, 3, 3)]), &key, &mut status, &mut told, true)[..] else { panic!() };
    let told: Vec<_> = config.peers.iter().map(|peer| (peer.public_key, peer.remove)).collect();
    assert_eq!(told, [(device_key(public(4)), false), (device_key(public(2)), true)]);
}

#[test]
fn no_peer_is_removed_while_the_view_may_lag() {
    let (key, mut status, mut told) = (WgPrivateKey::generate().unwrap(), nothing(), Told::new());
    settle(&place(&[(2, 2, 2), (3, 3, 3)]), &key, &mut status, &mut told, true);
    assert_eq!(settle(&place(&[(3, 3, 3)]), &key, &mut status, &mut told, false), []);
    assert_eq!(settle(&place(&[(3, 3, 3)]), &key, &mut status, &mut told, true).len(), 1);
    assert_eq!(status.peers.len(), 1);
}

#[test]
fn where_a_peer_is_heard_from_counts_until_it_is_decided_anew() {
    let (key, mut status, mut told) = (WgPrivateKey::generate().unwrap(), nothing(), Told::new());
    settle(&place(&[(2, 2, 2)]), &key, &mut status, &mut told, true);
    let roamed = Some("198.51.100.9:4000".parse().unwrap());
    (status.peers[0].endpoint, status.peers[0].last_handshake) = (roamed, Some(SystemTime::now()));
    assert_eq!(settle(&place(&[(2, 2, 2)]), &key, &mut status, &mut told, true), []);
    // To an agent that begins anew, too.
    assert_eq!(settle(&place(&[(2, 2, 2)]), &key, &mut status, &mut Told::new(), true), []);
    settle(&place(&[(2, 2, 7)]), &key, &mut status, &mut told, true);
    assert_eq!(status.peers[0].endpoint.unwrap().to_string(), "192.0.2.7:51820");
    let long_ago = SystemTime::now() - Duration::from_secs(181);
    (status.peers[0].endpoint, status.peers[0].last_handshake) = (roamed, Some(long_ago));
    settle(&place(&[(2, 2, 7)]), &key, &mut status, &mut told, true);
    assert_eq!(status.peers[0].endpoint.unwrap().to_string(), "192.0.2.7:51820");
}

#[test]
fn another_key_of_our_own_makes_every_peer_hear_of_it_at_once() {
    let (first, mut status, mut told) = (WgPrivateKey::generate().unwrap(), nothing(), Told::new());
    let place = place(&[(2, 2, 2), (3, 3, 3)]);
    settle(&place, &first, &mut status, &mut told, true);
    let second = WgPrivateKey::generate().unwrap();
    let configs = settle(&place, &second, &mut status, &mut told, true);
    let keepalives = |config: &WgDeviceUpdate| config.peers.iter().map(|peer| peer.keepalive).collect::<Vec<_>>();
    assert_eq!(configs.iter().map(keepalives).collect::<Vec<_>>(), [[Some(0); 2], [Some(KEEPALIVE); 2]]);
    assert_eq!(status.private_key, Some(second));
}

#[test]
fn a_sign_of_life_has_those_that_are_heard() {
    let (key, mut status, mut told) = (WgPrivateKey::generate().unwrap(), nothing(), Told::new());
    let place = place(&[(2, 2, 2), (3, 3, 3)]);
    settle(&place, &key, &mut status, &mut told, true);
    status.peers[1].last_handshake = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    status.peers[1].rx_bytes = 9;
    let said: Vec<_> = peers(&place, &status)
        .into_iter()
        .map(|peer| (peer.node_id.uuid().as_u128(), peer.last_handshake_at.map(|at| at.to_string()), peer.rx_bytes))
        .collect();
    assert_eq!(said, [(2, None, 0), (3, Some("2027-01-15T08:00:00.000000Z".to_owned()), 9)]);
}

proptest! {
    /// Whatever is decided, and whatever others have done to the device: it ends as decided, and all stays.
    #[test]
    fn the_device_ends_as_it_was_decided(
        before in prop::collection::btree_map(2..12_u8, (2..12_u8, 2..5_u8), 0..8),
        after in prop::collection::btree_map(2..12_u8, 2..5_u8, 0..8),
        meddled in any::<bool>(),
    ) {
        let (key, mut status, mut told) = (WgPrivateKey::generate().unwrap(), nothing(), Told::new());
        let before: Vec<_> = before.into_iter().map(|(key, (_, endpoint))| (key, key + 100, endpoint)).collect();
        settle(&place(&before), &key, &mut status, &mut told, true);
        if meddled {
            (status.private_key, status.listen_port, status.fwmark) = (None, 1, 7);
            status.peers.iter_mut().for_each(|peer| peer.allowed_ips.clear());
        }
        let after: Vec<_> = after.into_iter().map(|(key, endpoint)| (key, key + 50, endpoint)).collect();
        settle(&place(&after), &key, &mut status, &mut told, true);
        let mut is: Vec<_> = status.peers.iter().map(|peer| (peer.public_key, peer.endpoint, peer.allowed_ips.clone())).collect();
        is.sort();
        let mut wanted: Vec<_> = place(&after).peers.iter().map(|(key, neighbour)| {
            let endpoint = SocketAddr::V4(neighbour.endpoint.socket_addr());
            (device_key(*key), Some(endpoint), vec![Prefix::from(IpAddr::V4(neighbour.address))])
        }).collect();
        wanted.sort();
        prop_assert_eq!(is, wanted);
        prop_assert_eq!((status.private_key, status.listen_port, status.fwmark), (Some(key), PORT, 0));
    }
}
