//! Changes from the local socket, and what the device tells of itself. A change touches the peers that it names and no others.

use std::collections::HashSet;
use std::io;

use boringtun::noise::rate_limiter::RateLimiter;

use super::Device;
use crate::config::{AllowedIp, WgDeviceStatus, WgDeviceUpdate, WgPeerUpdate};
use crate::key::{WgPrivateKey, WgPublicKey};
use crate::load::FREE;
use crate::peer::Own;
use crate::system::udp::Sockets;

impl Device {
    /// Makes the change. What can be refused comes first: refused, it has changed nothing.
    ///
    /// # Errors
    /// If the port is taken, or the mark not permitted.
    pub(crate) fn apply(&mut self, config: WgDeviceUpdate) -> io::Result<()> {
        let WgDeviceUpdate { private_key, listen_port, fwmark, replace_peers, peers } = config;
        let mark = fwmark.unwrap_or(self.mark);
        match listen_port.filter(|port| *port != self.sockets.port()) {
            Some(port) => {
                let sockets = Sockets::bind(port)?;
                if mark != 0 {
                    sockets.set_mark(mark)?;
                }
                self.sockets = sockets;
            }
            None if mark != self.mark => self.sockets.set_mark(mark)?,
            None => {}
        }
        self.mark = mark;
        if let Some(key) = private_key {
            self.set_key(key);
        }
        if replace_peers {
            self.keep_only(&peers);
        }
        for peer in peers {
            self.apply_peer(peer);
        }
        self.hurry();
        Ok(())
    }

    fn set_key(&mut self, key: Option<WgPrivateKey>) {
        if self.own.as_ref().map(|own| &own.private) == key.as_ref() {
            return;
        }
        self.generation += 1;
        self.own = key.map(|key| Own::new(key, self.generation));
        self.gate = self.own.as_ref().map(|own| RateLimiter::new(&own.public.point(), FREE.into()));
        match &self.own {
            None => self.peers.drop_states(),
            Some(own) => {
                let public = own.public;
                self.remove(&public);
            }
        }
    }

    /// Removes the peers that are not named; takes from the others what a new peer would not have. Their sessions and
    /// where they are stay.
    fn keep_only(&mut self, peers: &[WgPeerUpdate]) {
        let named: HashSet<WgPublicKey> = peers.iter().map(|peer| peer.public_key).collect();
        let given: HashSet<WgPublicKey> =
            peers.iter().filter(|peer| peer.preshared_key.is_some()).map(|peer| peer.public_key).collect();
        let all: Vec<(_, WgPublicKey)> = self.peers.iter().map(|(id, peer)| (id, peer.key)).collect();
        for (id, key) in all {
            if !named.contains(&key) {
                self.remove(&key);
                continue;
            }
            self.allowed.clear(id);
            if let Some(peer) = self.peers.get(id) {
                peer.set_keepalive(0);
                if !given.contains(&key) {
                    peer.set_preshared(None);
                }
            }
        }
    }

    fn remove(&mut self, key: &WgPublicKey) {
        if let Some(id) = self.peers.find(key) {
            self.allowed.clear(id);
            self.peers.remove(id);
        }
    }

    fn apply_peer(&mut self, change: WgPeerUpdate) {
        let WgPeerUpdate {
            public_key,
            remove,
            update_only,
            preshared_key,
            endpoint,
            keepalive,
            replace_allowed_ips,
            allowed_ips,
        } = change;
        if remove {
            return self.remove(&public_key);
        }
        // A device is no peer of its own.
        if self.own.as_ref().is_some_and(|own| own.public == public_key) {
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
            self.allowed.clear(id);
        }
        for AllowedIp { prefix, remove } in allowed_ips {
            if remove {
                self.allowed.remove(prefix, id);
            } else {
                self.allowed.insert(prefix, id);
            }
        }
    }

    /// What the device is.
    pub(crate) fn status(&self) -> WgDeviceStatus {
        WgDeviceStatus {
            private_key: self.own.as_ref().map(|own| own.private.clone()),
            listen_port: self.sockets.port(),
            fwmark: self.mark,
            peers: self.peers.iter().map(|(id, peer)| peer.status(self.allowed.of(id).collect())).collect(),
        }
    }
}
