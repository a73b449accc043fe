//! Updates from the local socket, and the status of the device. An update of a peer does not affect other
//! peers, except that it may move allowed IPs.

use std::collections::HashSet;
use std::io;

use boringtun::noise::rate_limiter::RateLimiter;

use super::MeshDevice;
use crate::config::{AllowedIp, WgDeviceStatus, WgDeviceUpdate, WgPeerUpdate};
use crate::handshake_limit::COOKIELESS_PER_SECOND;
use crate::key::{WgPrivateKey, WgPublicKey};
use crate::peer::LocalKey;
use crate::udp::UdpSockets;

impl MeshDevice {
    /// Applies an update. Port and mark, which can fail, come first, so that a failed update has changed nothing.
    ///
    /// # Errors
    /// If the port is in use, or setting the mark is not permitted.
    pub(crate) fn apply(&mut self, update: WgDeviceUpdate) -> io::Result<()> {
        let WgDeviceUpdate { private_key, listen_port, fwmark, replace_peers, peers } = update;
        let fwmark = fwmark.unwrap_or(self.fwmark);
        match listen_port.filter(|port| *port != self.sockets.port()) {
            Some(port) => {
                let sockets = UdpSockets::bind(port)?;
                if fwmark != 0 {
                    sockets.set_mark(fwmark)?;
                }
                self.sockets = sockets;
            }
            None if fwmark != self.fwmark => self.sockets.set_mark(fwmark)?,
            None => {}
        }
        self.fwmark = fwmark;
        if let Some(key) = private_key {
            self.set_key(key);
        }
        if replace_peers {
            self.replace_peers(&peers);
        }
        for peer in peers {
            self.apply_peer(peer);
        }
        self.start_round();
        Ok(())
    }

    fn set_key(&mut self, key: Option<WgPrivateKey>) {
        if self.local_key.as_ref().map(|local| &local.private) == key.as_ref() {
            return;
        }
        self.key_generation += 1;
        self.local_key = key.map(|key| LocalKey::new(key, self.key_generation));
        let limit = COOKIELESS_PER_SECOND.into();
        self.rate_limiter = self.local_key.as_ref().map(|local| RateLimiter::new(&local.public.point(), limit));
        match &self.local_key {
            None => self.peers.clear_states(),
            // A device is not a peer of itself.
            Some(local) => {
                let public = local.public;
                self.remove(&public);
            }
        }
    }

    /// Removes all other peers, and resets the settings of these except the endpoint. Sessions remain: a preshared key
    /// that the update sets is not removed first.
    fn replace_peers(&mut self, peers: &[WgPeerUpdate]) {
        let kept: HashSet<WgPublicKey> = peers.iter().map(|peer| peer.public_key).collect();
        let with_preshared_key: HashSet<WgPublicKey> =
            peers.iter().filter(|peer| peer.preshared_key.is_some()).map(|peer| peer.public_key).collect();
        let all: Vec<(_, WgPublicKey)> = self.peers.iter().map(|(id, peer)| (id, peer.key)).collect();
        for (id, key) in all {
            if !kept.contains(&key) {
                self.remove(&key);
                continue;
            }
            self.allowed_ips.clear(id);
            if let Some(peer) = self.peers.get(id) {
                peer.set_keepalive(0);
                if !with_preshared_key.contains(&key) {
                    peer.set_preshared(None);
                }
            }
        }
    }

    fn remove(&mut self, key: &WgPublicKey) {
        if let Some(id) = self.peers.find(key) {
            self.allowed_ips.clear(id);
            self.peers.remove(id);
        }
    }

    fn apply_peer(&mut self, update: WgPeerUpdate) {
        let WgPeerUpdate {
            public_key,
            remove,
            update_only,
            preshared_key,
            endpoint,
            keepalive,
            replace_allowed_ips,
            allowed_ips,
        } = update;
        if remove {
            return self.remove(&public_key);
        }
        // A device is not a peer of itself.
        if self.local_key.as_ref().is_some_and(|local| local.public == public_key) {
            return;
        }
        let id = match self.peers.find(&public_key) {
            Some(id) => id,
            None if update_only => return,
            None => self.peers.add(public_key),
        };
        let Some(peer) = self.peers.get(id) else { return };
        if let Some(key) = preshared_key {
            peer.set_preshared(key);
        }
        if endpoint.is_some() {
            peer.endpoint = endpoint;
        }
        if let Some(seconds) = keepalive {
            peer.set_keepalive(seconds);
        }
        if replace_allowed_ips {
            self.allowed_ips.clear(id);
        }
        for AllowedIp { prefix, remove } in allowed_ips {
            if remove {
                self.allowed_ips.remove(prefix, id);
            } else {
                self.allowed_ips.insert(prefix, id);
            }
        }
    }

    /// Returns configuration and state.
    pub(crate) fn status(&self) -> WgDeviceStatus {
        WgDeviceStatus {
            private_key: self.local_key.as_ref().map(|local| local.private.clone()),
            listen_port: self.sockets.port(),
            fwmark: self.fwmark,
            peers: self.peers.iter().map(|(id, peer)| peer.status(self.allowed_ips.prefixes(id).collect())).collect(),
        }
    }
}
