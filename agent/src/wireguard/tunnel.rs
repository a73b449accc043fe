//! What a WireGuard device is to be told, from what is decided and what it is. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use otherix_schemas::node::{ESTABLISHED_WITHIN, MeshPeerStatus};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value;

use crate::model::mesh::{DesiredMeshDevice, DesiredPeer};
use otherix_mesh::config::{AllowedIp, WgDeviceStatus, WgDeviceUpdate, WgPeerStatus, WgPeerUpdate};
use otherix_mesh::key::{WgPrivateKey, WgPublicKey};
use otherix_mesh::prefix::Prefix;

/// After so many seconds of silence something is sent: NATs on the way forget a flow after 30 s at the earliest (RFC 4787, 4.3,
/// asks for two minutes, few keep to it).
const KEEPALIVE: u16 = 25;

/// Most peers in a sign of life: some 150 bytes each, and a message of NATS has 1 MiB at most.
pub(super) const HEARTBEAT_PEERS: usize = 6_000;

/// The endpoints that the device has been told by this process. Where a peer has been heard from since is the device's to say.
pub(super) type Told = BTreeMap<WgPublicKey, SocketAddr>;

/// What is to be told: nothing, if the device is as it must be.
///
/// While the view may not be `current`, no peer is removed: it may be of a node that is not known yet. An endpoint that the
/// device has from a peer's own messages stays while the peer is heard.
pub(super) fn change(
    place: &DesiredMeshDevice,
    (key, port): (&WgPrivateKey, u16),
    status: &WgDeviceStatus,
    told: &Told,
    (now, current): (SystemTime, bool),
) -> Option<WgDeviceUpdate> {
    let WgDeviceStatus { private_key, listen_port, fwmark, peers } = status;
    // A mark would have policy routing send the mesh's own packets somewhere else.
    let (listen_port, fwmark) = ((*listen_port != port).then_some(port), (*fwmark != 0).then_some(0));
    let mut config = WgDeviceUpdate { listen_port, fwmark, ..WgDeviceUpdate::default() };
    if private_key.as_ref() != Some(key) {
        config.private_key = Some(Some(key.clone()));
        // What it says with its new key it must say first: the other nodes know that key already. The next change gives each peer
        // its keepalive back, and with it a message.
        let silent = peers.iter().map(|peer| WgPeerUpdate { keepalive: Some(0), ..WgPeerUpdate::new(peer.public_key) });
        config.peers.extend(silent.filter(|_| private_key.is_some()));
        return Some(config);
    }
    let is: BTreeMap<_, _> = peers.iter().map(|peer| (peer.public_key, peer)).collect();
    for (key, neighbour) in &place.peers {
        let key = device_key(*key);
        config.peers.extend(peer(key, neighbour, is.get(&key).copied(), told.get(&key).copied(), now));
    }
    let wanted: BTreeSet<_> = place.peers.keys().map(|key| device_key(*key)).collect();
    // Behind those that are added: who has another key now has its address already.
    let gone = is.keys().filter(|key| current && !wanted.contains(key));
    config.peers.extend(gone.map(|key| WgPeerUpdate { remove: true, ..WgPeerUpdate::new(*key) }));
    (config != WgDeviceUpdate::default()).then_some(config)
}

fn peer(
    key: WgPublicKey,
    neighbour: &DesiredPeer,
    is: Option<&WgPeerStatus>,
    told: Option<SocketAddr>,
    now: SystemTime,
) -> Option<WgPeerUpdate> {
    let DesiredPeer { node: _, address, endpoint } = neighbour;
    let endpoint = SocketAddr::V4(endpoint.socket_addr());
    let allowed = Prefix::from(IpAddr::V4(*address));
    let mut peer = WgPeerUpdate::new(key);
    let nothing = peer.clone();
    let is_heard = is.is_some_and(|is| is_established(is.last_handshake, now));
    let decided_anew = told.is_some_and(|told| told != endpoint);
    if is.is_none_or(|is| is.endpoint != Some(endpoint)) && (decided_anew || !is_heard) {
        peer.endpoint = Some(endpoint);
    }
    if is.is_none_or(|is| is.keepalive != KEEPALIVE) {
        peer.keepalive = Some(KEEPALIVE);
    }
    if is.is_some_and(|is| is.preshared_key.is_some()) {
        peer.preshared_key = Some(None);
    }
    if is.is_none_or(|is| is.allowed_ips != [allowed]) {
        peer.replace_allowed_ips = true;
        peer.allowed_ips = vec![AllowedIp::from(allowed)];
    }
    (peer != nothing || is.is_none()).then_some(peer)
}

/// The endpoints that this tells of.
pub(super) fn told(config: &WgDeviceUpdate) -> impl Iterator<Item = (WgPublicKey, SocketAddr)> {
    config.peers.iter().filter_map(|peer| Some((peer.public_key, peer.endpoint?)))
}

/// How the peers fare, for a sign of life; those that are heard first, if there are too many.
pub(super) fn peers(place: &DesiredMeshDevice, status: &WgDeviceStatus) -> Vec<MeshPeerStatus> {
    let is: BTreeMap<_, _> = status.peers.iter().map(|peer| (peer.public_key, peer)).collect();
    let said = place.peers.iter().filter_map(|(key, neighbour)| {
        let WgPeerStatus { last_handshake, rx_bytes, tx_bytes, .. } = is.get(&device_key(*key))?;
        Some(MeshPeerStatus {
            node_id: neighbour.node,
            last_handshake_at: last_handshake.and_then(timestamp),
            rx_bytes: *rx_bytes,
            tx_bytes: *tx_bytes,
        })
    });
    let mut said: Vec<_> = said.collect();
    if said.len() > HEARTBEAT_PEERS {
        said.sort_by_key(|peer| std::cmp::Reverse(peer.last_handshake_at));
        said.truncate(HEARTBEAT_PEERS);
    }
    said
}

/// The key as the device's protocols have it.
pub(super) fn device_key(key: value::MeshPublicKey) -> WgPublicKey {
    WgPublicKey::from_bytes(key.bytes())
}

fn is_established(last: Option<SystemTime>, now: SystemTime) -> bool {
    // One that is in the future is of a clock that was set back.
    last.is_some_and(|last| now.duration_since(last).is_ok_and(|age| age < ESTABLISHED_WITHIN))
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Timestamp::from_unix_micros(i64::try_from(since.as_micros()).ok()?).ok()
}

#[cfg(test)]
#[path = "tunnel_tests.rs"]
mod tests;
