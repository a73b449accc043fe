//! Computes the changes that a WireGuard device needs, from the decisions and its status. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::SystemTime;

use otherix_mesh::config::{AllowedIp, WgDeviceStatus, WgDeviceUpdate, WgPeerStatus, WgPeerUpdate};
use otherix_mesh::key::{WgPrivateKey, WgPublicKey};
use otherix_mesh::prefix::Prefix;
use otherix_schemas::node::{ESTABLISHED_WITHIN, MeshPeerStatus};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value;

use super::probe::PeerState;
use crate::model::mesh::{DesiredMeshDevice, DesiredPeer};

/// The keepalive interval in seconds: NATs on the path may drop a flow after 30 s (RFC 4787, 4.3, requires two minutes,
/// but few comply).
const KEEPALIVE: u16 = 25;

/// Most peers in a heartbeat: some 150 bytes each, and a NATS message has at most 1 MiB.
pub(super) const HEARTBEAT_PEERS: usize = 6_000;

/// Most peers that one pass renews: each begins a handshake.
const RENEWED_PEERS: usize = 32;

/// The endpoints that this process configured. The device replaces them by those that it receives packets from.
pub(super) type ConfiguredEndpoints = BTreeMap<WgPublicKey, SocketAddr>;

/// The inputs of [`required_change`].
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) desired: &'a DesiredMeshDevice,
    pub(super) key: &'a WgPrivateKey,
    pub(super) port: u16,
    pub(super) status: &'a WgDeviceStatus,
    pub(super) configured: &'a ConfiguredEndpoints,
    pub(super) now: SystemTime,
    /// The cluster view is current. If not, no peer is removed: it may be of a node that is not known yet.
    pub(super) is_current: bool,
}

/// Returns the change that the device needs next, if any. An endpoint that the device learned from a peer's packets is
/// kept while there is a recent handshake with the peer.
pub(super) fn required_change(inputs: Inputs<'_>) -> Option<WgDeviceUpdate> {
    let Inputs { desired, key, port, status, configured, now, is_current } = inputs;
    let WgDeviceStatus { private_key, listen_port, fwmark, peers } = status;
    // With a mark, policy routing could send the mesh's own packets elsewhere.
    let (listen_port, fwmark) = ((*listen_port != port).then_some(port), (*fwmark != 0).then_some(0));
    let mut config = WgDeviceUpdate { listen_port, fwmark, ..WgDeviceUpdate::default() };
    if private_key.as_ref() != Some(key) {
        config.private_key = Some(Some(key.clone()));
        // With a new key this node must initiate the handshakes: the other nodes expect that key already. The next
        // change enables keepalives again, and with them a packet to each peer.
        let paused = peers.iter().map(|peer| WgPeerUpdate { keepalive: Some(0), ..WgPeerUpdate::new(peer.public_key) });
        config.peers.extend(paused.filter(|_| private_key.is_some()));
        return Some(config);
    }
    let statuses: BTreeMap<_, _> = peers.iter().map(|peer| (peer.public_key, peer)).collect();
    for (key, peer) in &desired.peers {
        let key = device_key(*key);
        let (status, configured) = (statuses.get(&key).copied(), configured.get(&key).copied());
        config.peers.extend(peer_change(key, peer, status, configured, now));
    }
    let required: BTreeSet<_> = desired.peers.keys().map(|key| device_key(*key)).collect();
    // After those that are added: the address of a node with a new key has moved to that peer already.
    let removed = statuses.keys().filter(|key| is_current && !required.contains(key));
    config.peers.extend(removed.map(|key| WgPeerUpdate { remove: true, ..WgPeerUpdate::new(*key) }));
    (config != WgDeviceUpdate::default()).then_some(config)
}

/// Returns the change of one peer. `configured` is the endpoint that was configured last.
fn peer_change(
    key: WgPublicKey,
    desired: &DesiredPeer,
    status: Option<&WgPeerStatus>,
    configured: Option<SocketAddr>,
    now: SystemTime,
) -> Option<WgPeerUpdate> {
    let DesiredPeer { node: _, address, endpoint } = desired;
    let endpoint = SocketAddr::V4(endpoint.socket_addr());
    let allowed = Prefix::from(IpAddr::V4(*address));
    let unchanged = WgPeerUpdate::new(key);
    let mut change = unchanged.clone();
    let is_established = status.is_some_and(|status| is_recent(status.last_handshake, now));
    let is_decided_anew = configured.is_some_and(|configured| configured != endpoint);
    if status.is_none_or(|status| status.endpoint != Some(endpoint)) && (is_decided_anew || !is_established) {
        change.endpoint = Some(endpoint);
    }
    if status.is_none_or(|status| status.keepalive != KEEPALIVE) {
        change.keepalive = Some(KEEPALIVE);
    }
    if status.is_some_and(|status| status.preshared_key.is_some()) {
        change.preshared_key = Some(None);
    }
    if status.is_none_or(|status| status.allowed_ips != [allowed]) {
        change.replace_allowed_ips = true;
        change.allowed_ips = vec![AllowedIp::from(allowed)];
    }
    (change != unchanged || status.is_none()).then_some(change)
}

/// Returns the endpoints that this change configures.
pub(super) fn endpoints(config: &WgDeviceUpdate) -> impl Iterator<Item = (WgPublicKey, SocketAddr)> {
    config.peers.iter().filter_map(|peer| Some((peer.public_key, peer.endpoint?)))
}

/// Returns the state of the peers for a heartbeat; if there are too many, those with the most recent handshakes.
pub(super) fn peer_statuses(desired: &DesiredMeshDevice, status: &WgDeviceStatus) -> Vec<MeshPeerStatus> {
    let statuses: BTreeMap<_, _> = status.peers.iter().map(|peer| (peer.public_key, peer)).collect();
    let peers = desired.peers.iter().filter_map(|(key, peer)| {
        let WgPeerStatus { last_handshake, rx_bytes, tx_bytes, .. } = statuses.get(&device_key(*key))?;
        Some(MeshPeerStatus {
            node_id: peer.node,
            last_handshake_at: last_handshake.and_then(timestamp),
            rx_bytes: *rx_bytes,
            tx_bytes: *tx_bytes,
        })
    });
    let mut peers: Vec<_> = peers.collect();
    if peers.len() > HEARTBEAT_PEERS {
        peers.sort_by_key(|peer| Reverse(peer.last_handshake_at));
        peers.truncate(HEARTBEAT_PEERS);
    }
    peers
}

/// Returns what the device knows of the peers, by their mesh address.
pub(super) fn peer_states(
    desired: &DesiredMeshDevice,
    status: &WgDeviceStatus,
    now: SystemTime,
) -> BTreeMap<Ipv4Addr, PeerState> {
    let statuses: BTreeMap<_, _> = status.peers.iter().map(|peer| (peer.public_key, peer)).collect();
    let states = desired.peers.iter().filter_map(|(key, peer)| {
        let WgPeerStatus { endpoint, last_handshake, rx_bytes, tx_bytes, has_old_clock, .. } =
            **statuses.get(&device_key(*key))?;
        let is_established = is_recent(last_handshake, now);
        Some((peer.address, PeerState { endpoint, is_established, has_old_clock, rx_bytes, tx_bytes }))
    });
    states.collect()
}

/// Returns the change that removes peers without a session from which nothing is received, so that the next change
/// adds them again: both sides then begin a handshake at once, and forget the time of the last one, which a clock that
/// was ahead may have put into the future.
pub(super) fn renewal(
    desired: &DesiredMeshDevice,
    status: &WgDeviceStatus,
    silent: &BTreeSet<Ipv4Addr>,
    now: SystemTime,
) -> Option<WgDeviceUpdate> {
    if silent.is_empty() {
        return None;
    }
    let peers = desired.peers.iter().filter(|(_, peer)| silent.contains(&peer.address));
    let keys: BTreeSet<_> = peers.map(|(key, _)| device_key(*key)).collect();
    let renewed = status.peers.iter().filter(|peer| !is_recent(peer.last_handshake, now));
    let renewed = renewed.filter(|peer| keys.contains(&peer.public_key)).take(RENEWED_PEERS);
    let peers = renewed.map(|peer| WgPeerUpdate { remove: true, ..WgPeerUpdate::new(peer.public_key) });
    let peers: Vec<_> = peers.collect();
    (!peers.is_empty()).then(|| WgDeviceUpdate { peers, ..WgDeviceUpdate::default() })
}

/// Converts a public key to the type of the device's protocols.
pub(super) fn device_key(key: value::MeshPublicKey) -> WgPublicKey {
    WgPublicKey::from_bytes(key.bytes())
}

fn is_recent(handshake: Option<SystemTime>, now: SystemTime) -> bool {
    // If the clock was set back, a handshake may be in the future.
    handshake.is_some_and(|time| now.duration_since(time).is_ok_and(|age| age < ESTABLISHED_WITHIN))
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Timestamp::from_unix_micros(i64::try_from(since_epoch.as_micros()).ok()?).ok()
}

#[cfg(test)]
#[path = "configuration_tests.rs"]
mod tests;
