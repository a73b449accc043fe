//! Computes the requests with which a device becomes what a [`WgDeviceUpdate`] describes. Pure.
//!
//! The kernel's own flags are too coarse: `WGDEVICE_F_REPLACE_PEERS` ends every session,
//! `WGPEER_F_REPLACE_ALLOWEDIPS` drops packets that are sent meanwhile, and a single allowed IP can be removed since
//! Linux 6.16 only. What to remove is therefore computed from the device's status, and what stays is not sent.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

use otherix_mesh::config::{AllowedIp, WgDeviceStatus, WgDeviceUpdate, WgPeerUpdate};
use otherix_mesh::key::{WgPresharedKey, WgPrivateKey, WgPublicKey};
use otherix_mesh::prefix::Prefix;

/// A change of a device as the kernel is sent it. `Some(None)` removes a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeviceChange {
    pub(super) private_key: Option<Option<WgPrivateKey>>,
    pub(super) listen_port: Option<u16>,
    pub(super) fwmark: Option<u32>,
    pub(super) peers: Vec<PeerChange>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PeerChange {
    Remove(WgPublicKey),
    /// Adds or changes a peer.
    Set(SetPeer),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetPeer {
    pub(super) public_key: WgPublicKey,
    pub(super) update_only: bool,
    pub(super) preshared_key: Option<Option<WgPresharedKey>>,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) keepalive: Option<u16>,
    /// Remove all allowed IPs before adding those below.
    pub(super) replace_allowed_ips: bool,
    /// Allowed IPs to add.
    pub(super) allowed_ips: Vec<Prefix>,
}

/// Whether [`plan`] needs the device's status.
pub(super) fn needs_status(config: &WgDeviceUpdate) -> bool {
    let removes =
        |peer: &WgPeerUpdate| peer.replace_allowed_ips || peer.allowed_ips.iter().any(|allowed| allowed.remove);
    config.replace_peers || config.peers.iter().any(|peer| !peer.remove && removes(peer))
}

/// Computes the change. `status` is required if [`needs_status`].
pub(super) fn plan(config: &WgDeviceUpdate, status: Option<&WgDeviceStatus>) -> DeviceChange {
    let WgDeviceUpdate { private_key, listen_port, fwmark, replace_peers, peers } = config;
    let mut table = status.map(AllowedIpTable::of).unwrap_or_default();
    let own = private_key.as_ref().map_or_else(|| status.and_then(|s| s.private_key.as_ref()), Option::as_ref);
    let own = own.map(WgPrivateKey::public);
    let mut changes = Vec::with_capacity(peers.len());
    let mut to_reset = HashSet::new();
    if *replace_peers {
        let kept: HashSet<WgPublicKey> = peers.iter().map(|peer| peer.public_key).collect();
        for key in status.into_iter().flat_map(|status| &status.peers).map(|peer| peer.public_key) {
            if kept.contains(&key) {
                to_reset.insert(key);
            } else {
                table.remove(&key);
                changes.push(PeerChange::Remove(key));
            }
        }
    }
    // Like the kernel, ignores a peer with the device's own key.
    for peer in peers.iter().filter(|peer| Some(peer.public_key) != own) {
        changes.push(table.apply(peer, to_reset.remove(&peer.public_key)));
    }
    DeviceChange { private_key: private_key.clone(), listen_port: *listen_port, fwmark: *fwmark, peers: changes }
}

/// The allowed IPs of the peers, as changes are applied in order. A prefix belongs to one peer at most.
#[derive(Default)]
struct AllowedIpTable {
    prefixes: HashMap<WgPublicKey, BTreeSet<Prefix>>,
    owners: HashMap<Prefix, WgPublicKey>,
}

impl AllowedIpTable {
    fn of(status: &WgDeviceStatus) -> Self {
        let mut table = Self::default();
        for peer in &status.peers {
            table.set(peer.public_key, peer.allowed_ips.iter().copied().collect());
        }
        table
    }

    fn remove(&mut self, key: &WgPublicKey) {
        for prefix in self.prefixes.remove(key).unwrap_or_default() {
            self.owners.remove(&prefix);
        }
    }

    /// Sets the allowed IPs of a peer, and removes them from all others.
    fn set(&mut self, key: WgPublicKey, prefixes: BTreeSet<Prefix>) {
        self.remove(&key);
        for prefix in &prefixes {
            if let Some(previous) = self.owners.insert(*prefix, key) {
                self.prefixes.entry(previous).and_modify(|prefixes| _ = prefixes.remove(prefix));
            }
        }
        self.prefixes.insert(key, prefixes);
    }

    /// Applies a change of a peer, and returns what the kernel is to be sent. With `reset`, settings that the change
    /// does not contain return to their defaults.
    fn apply(&mut self, peer: &WgPeerUpdate, reset: bool) -> PeerChange {
        let WgPeerUpdate {
            public_key,
            remove,
            update_only,
            preshared_key,
            endpoint,
            keepalive,
            replace_allowed_ips,
            allowed_ips,
        } = peer;
        if *remove {
            self.remove(public_key);
            return PeerChange::Remove(*public_key);
        }
        let current = self.prefixes.get(public_key);
        let exists = current.is_some();
        let current = current.cloned().unwrap_or_default();
        let mut required = if *replace_allowed_ips || reset { BTreeSet::new() } else { current.clone() };
        for AllowedIp { prefix, remove } in allowed_ips {
            if *remove {
                required.remove(prefix);
            } else {
                required.insert(*prefix);
            }
        }
        let replace = !current.is_subset(&required);
        let added = required.iter().filter(|prefix| replace || !current.contains(prefix)).copied().collect();
        if exists || !update_only {
            self.set(*public_key, required);
        }
        PeerChange::Set(SetPeer {
            public_key: *public_key,
            update_only: *update_only,
            preshared_key: preshared_key.clone().or_else(|| reset.then_some(None)),
            endpoint: *endpoint,
            keepalive: keepalive.or_else(|| reset.then_some(0)),
            replace_allowed_ips: replace,
            allowed_ips: added,
        })
    }
}
