//! What the kernel is to be told so that a device becomes what a [`WgDeviceUpdate`] says. Pure.
//!
//! The kernel's own ways are too coarse: `WGDEVICE_F_REPLACE_PEERS` ends every session, `WGPEER_F_REPLACE_ALLOWEDIPS` loses what
//! is sent while it lasts, and one allowed IP alone can be taken from a peer since Linux 6.16 only. So what is to go is found by
//! comparing with what the device is, and what stays is not mentioned.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

use otherix_mesh::config::{AllowedIp, WgDeviceStatus, WgDeviceUpdate, WgPeerUpdate};
use otherix_mesh::key::{WgPresharedKey, WgPrivateKey, WgPublicKey};
use otherix_mesh::prefix::Prefix;

/// What the kernel is told of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) private_key: Option<Option<WgPrivateKey>>,
    pub(super) listen_port: Option<u16>,
    pub(super) fwmark: Option<u32>,
    pub(super) peers: Vec<PeerChange>,
}

/// What it is told of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PeerChange {
    Remove(WgPublicKey),
    Put(Put),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) public_key: WgPublicKey,
    pub(super) update_only: bool,
    pub(super) preshared_key: Option<Option<WgPresharedKey>>,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) keepalive: Option<u16>,
    /// It loses all allowed IPs first.
    pub(super) replace: bool,
    /// What it is given.
    pub(super) allowed_ips: Vec<Prefix>,
}

/// Whether what is to be said depends on what the device is.
pub(super) fn needs_status(config: &WgDeviceUpdate) -> bool {
    let takes = |peer: &WgPeerUpdate| peer.replace_allowed_ips || peer.allowed_ips.iter().any(|allowed| allowed.remove);
    config.replace_peers || config.peers.iter().any(|peer| !peer.remove && takes(peer))
}

/// What is to be said to a device that is `as_is`, or may be anything if [`needs_status`] says so.
pub(super) fn plan(config: &WgDeviceUpdate, as_is: Option<&WgDeviceStatus>) -> Change {
    let WgDeviceUpdate { private_key, listen_port, fwmark, replace_peers, peers } = config;
    let mut table = as_is.map(Table::of).unwrap_or_default();
    let own = private_key.as_ref().map_or_else(|| as_is.and_then(|is| is.private_key.as_ref()), Option::as_ref);
    let own = own.map(WgPrivateKey::public);
    let mut changes = Vec::with_capacity(peers.len());
    let mut to_reset = HashSet::new();
    if *replace_peers {
        let named: HashSet<WgPublicKey> = peers.iter().map(|peer| peer.public_key).collect();
        for key in as_is.into_iter().flat_map(|is| &is.peers).map(|peer| peer.public_key) {
            if named.contains(&key) {
                to_reset.insert(key);
            } else {
                table.remove(&key);
                changes.push(PeerChange::Remove(key));
            }
        }
    }
    // A device is no peer of its own: the kernel skips it too.
    for peer in peers.iter().filter(|peer| Some(peer.public_key) != own) {
        changes.push(table.change(peer, to_reset.remove(&peer.public_key)));
    }
    Change { private_key: private_key.clone(), listen_port: *listen_port, fwmark: *fwmark, peers: changes }
}

/// Who has which allowed IPs, while one change follows the other. A prefix is one peer's at most.
#[derive(Default)]
struct Table {
    prefixes: HashMap<WgPublicKey, BTreeSet<Prefix>>,
    holders: HashMap<Prefix, WgPublicKey>,
}

impl Table {
    fn of(status: &WgDeviceStatus) -> Self {
        let mut table = Self::default();
        for peer in &status.peers {
            table.set(peer.public_key, peer.allowed_ips.iter().copied().collect());
        }
        table
    }

    fn remove(&mut self, key: &WgPublicKey) {
        for prefix in self.prefixes.remove(key).unwrap_or_default() {
            self.holders.remove(&prefix);
        }
    }

    /// The peer has these from here on, and nobody else has.
    fn set(&mut self, key: WgPublicKey, prefixes: BTreeSet<Prefix>) {
        self.remove(&key);
        for prefix in &prefixes {
            if let Some(before) = self.holders.insert(*prefix, key) {
                self.prefixes.entry(before).and_modify(|prefixes| _ = prefixes.remove(prefix));
            }
        }
        self.prefixes.insert(key, prefixes);
    }

    /// What is to be said of a peer. To be reset, it loses what is not given.
    fn change(&mut self, peer: &WgPeerUpdate, reset: bool) -> PeerChange {
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
        let has = self.prefixes.get(public_key);
        let is_there = has.is_some();
        let has = has.cloned().unwrap_or_default();
        let mut wants = if *replace_allowed_ips || reset { BTreeSet::new() } else { has.clone() };
        for AllowedIp { prefix, remove } in allowed_ips {
            if *remove {
                wants.remove(prefix);
            } else {
                wants.insert(*prefix);
            }
        }
        let replace = !has.is_subset(&wants);
        let given = wants.iter().filter(|prefix| replace || !has.contains(prefix)).copied().collect();
        if is_there || !update_only {
            self.set(*public_key, wants);
        }
        PeerChange::Put(Put {
            public_key: *public_key,
            update_only: *update_only,
            preshared_key: preshared_key.clone().or_else(|| reset.then_some(None)),
            endpoint: *endpoint,
            keepalive: keepalive.or_else(|| reset.then_some(0)),
            replace,
            allowed_ips: given,
        })
    }
}
