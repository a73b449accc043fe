use std::time::Duration;

use otherix_schemas::id::NodeId;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const PORT: u16 = 51820;

fn public(number: u8) -> value::MeshPublicKey {
    value::MeshPublicKey::try_from([number; 32]).unwrap()
}

/// The number of a peer's key, and the last octets of its mesh address and of its endpoint.
type PeerNumbers = (u8, u8, u8);

fn desired(peers: &[PeerNumbers]) -> DesiredMeshDevice {
    let peers = peers.iter().map(|(key, address, endpoint)| {
        let peer = DesiredPeer {
            node: NodeId::new(Uuid::from_u128(u128::from(*key))),
            address: [10, 42, 0, *address].into(),
            endpoint: format!("192.0.2.{endpoint}:{PORT}").parse().unwrap(),
        };
        (public(*key), peer)
    });
    DesiredMeshDevice { address: [10, 42, 0, 1].into(), public_key: public(255), mtu: 1440, peers: peers.collect() }
}

/// A device that applies changes as `wg(8)` describes them.
struct TestDevice {
    key: WgPrivateKey,
    status: WgDeviceStatus,
    configured: ConfiguredEndpoints,
}

impl TestDevice {
    fn new() -> Self {
        let status = WgDeviceStatus { private_key: None, listen_port: 0, fwmark: 0, peers: Vec::new() };
        Self { key: WgPrivateKey::generate().unwrap(), status, configured: ConfiguredEndpoints::new() }
    }

    fn apply(&mut self, config: &WgDeviceUpdate) {
        let WgDeviceUpdate { private_key, listen_port, fwmark, replace_peers, peers } = config.clone();
        let status = &mut self.status;
        assert!(!replace_peers);
        status.private_key = private_key.unwrap_or_else(|| status.private_key.clone());
        status.listen_port = listen_port.unwrap_or(status.listen_port);
        status.fwmark = fwmark.unwrap_or(status.fwmark);
        for change in peers {
            let existing = status.peers.iter().position(|peer| peer.public_key == change.public_key);
            if change.remove {
                status.peers.remove(existing.unwrap());
                continue;
            }
            let index = existing.unwrap_or_else(|| {
                status.peers.push(WgPeerStatus::new(change.public_key));
                status.peers.len() - 1
            });
            for AllowedIp { prefix, remove } in &change.allowed_ips {
                assert!(!remove);
                status.peers.iter_mut().for_each(|peer| peer.allowed_ips.retain(|other| other != prefix));
            }
            let peer = &mut status.peers[index];
            if change.replace_allowed_ips {
                peer.allowed_ips.clear();
            }
            peer.allowed_ips.extend(change.allowed_ips.iter().map(|allowed| allowed.prefix));
            peer.endpoint = change.endpoint.or(peer.endpoint);
            peer.keepalive = change.keepalive.unwrap_or(peer.keepalive);
            peer.preshared_key = change.preshared_key.unwrap_or_else(|| peer.preshared_key.clone());
        }
    }

    fn required_change(&self, desired: &DesiredMeshDevice, is_current: bool) -> Option<WgDeviceUpdate> {
        let Self { key, status, configured } = self;
        required_change(Inputs { desired, key, port: PORT, status, configured, now: SystemTime::now(), is_current })
    }

    /// Applies changes until none is required, and returns them.
    fn converge(&mut self, desired: &DesiredMeshDevice, is_current: bool) -> Vec<WgDeviceUpdate> {
        let mut changes = Vec::new();
        while let Some(config) = self.required_change(desired, is_current) {
            self.apply(&config);
            self.configured.extend(endpoints(&config));
            changes.push(config);
            assert!(changes.len() < 4, "{changes:?}");
        }
        changes
    }
}

#[test]
fn a_new_device_gets_its_key_and_then_its_peers() {
    let mut device = TestDevice::new();
    let changes = device.converge(&desired(&[(2, 2, 2), (3, 3, 3)]), false);
    assert_eq!(changes.iter().map(|config| config.peers.len()).collect::<Vec<_>>(), [0, 2]);
    assert_eq!((device.status.private_key, device.status.listen_port), (Some(device.key), PORT));
    let peer = &device.status.peers[1];
    assert_eq!(peer.allowed_ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.42.0.3/32"]);
    assert_eq!((peer.endpoint.unwrap().to_string().as_str(), peer.keepalive), ("192.0.2.3:51820", 25));
}

#[test]
fn a_node_with_a_new_key_keeps_its_address() {
    let mut device = TestDevice::new();
    device.converge(&desired(&[(2, 2, 2), (3, 3, 3)]), true);
    let [config] = &device.converge(&desired(&[(4, 2, 2), (3, 3, 3)]), true)[..] else { panic!() };
    let changes: Vec<_> = config.peers.iter().map(|peer| (peer.public_key, peer.remove)).collect();
    assert_eq!(changes, [(device_key(public(4)), false), (device_key(public(2)), true)]);
}

#[test]
fn no_peer_is_removed_while_the_view_may_lag() {
    let mut device = TestDevice::new();
    device.converge(&desired(&[(2, 2, 2), (3, 3, 3)]), true);
    assert_eq!(device.converge(&desired(&[(3, 3, 3)]), false), []);
    assert_eq!(device.converge(&desired(&[(3, 3, 3)]), true).len(), 1);
    assert_eq!(device.status.peers.len(), 1);
}

#[test]
fn a_learned_endpoint_is_kept_until_another_is_decided_or_the_peer_is_silent() {
    let mut device = TestDevice::new();
    device.converge(&desired(&[(2, 2, 2)]), true);
    let roamed = Some("198.51.100.9:4000".parse().unwrap());
    (device.status.peers[0].endpoint, device.status.peers[0].last_handshake) = (roamed, Some(SystemTime::now()));
    assert_eq!(device.converge(&desired(&[(2, 2, 2)]), true), []);
    // As after a restart of the agent.
    device.configured.clear();
    assert_eq!(device.converge(&desired(&[(2, 2, 2)]), true), []);
    device.configured.insert(device_key(public(2)), "192.0.2.2:51820".parse().unwrap());
    device.converge(&desired(&[(2, 2, 7)]), true);
    assert_eq!(device.status.peers[0].endpoint.unwrap().to_string(), "192.0.2.7:51820");
    let long_ago = SystemTime::now() - Duration::from_secs(181);
    (device.status.peers[0].endpoint, device.status.peers[0].last_handshake) = (roamed, Some(long_ago));
    device.converge(&desired(&[(2, 2, 7)]), true);
    assert_eq!(device.status.peers[0].endpoint.unwrap().to_string(), "192.0.2.7:51820");
}

#[test]
fn after_a_change_of_the_own_key_every_peer_is_sent_a_packet() {
    let mut device = TestDevice::new();
    let desired = desired(&[(2, 2, 2), (3, 3, 3)]);
    device.converge(&desired, true);
    device.key = WgPrivateKey::generate().unwrap();
    let changes = device.converge(&desired, true);
    let keepalives = |config: &WgDeviceUpdate| config.peers.iter().map(|peer| peer.keepalive).collect::<Vec<_>>();
    assert_eq!(changes.iter().map(keepalives).collect::<Vec<_>>(), [[Some(0); 2], [Some(KEEPALIVE); 2]]);
    assert_eq!(device.status.private_key, Some(device.key));
}

#[test]
fn a_heartbeat_has_handshakes_and_byte_counts() {
    let mut device = TestDevice::new();
    let desired = desired(&[(2, 2, 2), (3, 3, 3)]);
    device.converge(&desired, true);
    device.status.peers[1].last_handshake = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    device.status.peers[1].rx_bytes = 9;
    let statuses: Vec<_> = peer_statuses(&desired, &device.status)
        .into_iter()
        .map(|peer| (peer.node_id.uuid().as_u128(), peer.last_handshake_at.map(|at| at.to_string()), peer.rx_bytes))
        .collect();
    assert_eq!(statuses, [(2, None, 0), (3, Some("2027-01-15T08:00:00.000000Z".to_owned()), 9)]);
}

proptest! {
    #[test]
    fn a_device_converges_from_any_state(
        before in prop::collection::btree_map(2..12_u8, (2..12_u8, 2..5_u8), 0..8),
        after in prop::collection::btree_map(2..12_u8, 2..5_u8, 0..8),
        is_altered in any::<bool>(),
    ) {
        let mut device = TestDevice::new();
        let before: Vec<_> = before.into_iter().map(|(key, (_, endpoint))| (key, key + 100, endpoint)).collect();
        device.converge(&desired(&before), true);
        if is_altered {
            let status = &mut device.status;
            (status.private_key, status.listen_port, status.fwmark) = (None, 1, 7);
            status.peers.iter_mut().for_each(|peer| peer.allowed_ips.clear());
        }
        let after: Vec<_> = after.into_iter().map(|(key, endpoint)| (key, key + 50, endpoint)).collect();
        device.converge(&desired(&after), true);
        let TestDevice { key, status, .. } = device;
        let peers = status.peers.into_iter();
        let mut actual: Vec<_> = peers.map(|peer| (peer.public_key, peer.endpoint, peer.allowed_ips)).collect();
        actual.sort();
        let mut expected: Vec<_> = desired(&after).peers.iter().map(|(key, peer)| {
            let endpoint = SocketAddr::V4(peer.endpoint.socket_addr());
            (device_key(*key), Some(endpoint), vec![Prefix::from(IpAddr::V4(peer.address))])
        }).collect();
        expected.sort();
        prop_assert_eq!(actual, expected);
        prop_assert_eq!((status.private_key, status.listen_port, status.fwmark), (Some(key), PORT, 0));
    }
}
