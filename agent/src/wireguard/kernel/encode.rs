//! Requests of the WireGuard family, as messages. Pure. A change that does not fit into one message is spread over several, in order.

use std::net::{IpAddr, SocketAddr};

use otherix_netlink::generic::push_header;
use otherix_netlink::{Message, NLM_F_DUMP, Nest};

use super::plan::{Change, PeerChange, Put};
use super::wire::*;
use otherix_mesh::key::{KEY_LEN, WgPublicKey};
use otherix_mesh::prefix::Prefix;

/// Bytes of a message at most. An attribute, and all peers of a message are one, has less than 64 KiB.
const LIMIT: usize = 32 << 10;

/// Bytes of the largest allowed IP: attributes of a family, an address and a length, in one.
const ALLOWED_IP: usize = 4 + 8 + (4 + 16) + 8;

/// Bytes of the largest peer, with one allowed IP: itself, two keys, flags, endpoint, keepalive, and the list of allowed IPs.
const PEER: usize = 4 + 2 * (4 + KEY_LEN) + 8 + (4 + 28) + 8 + 4 + ALLOWED_IP;

/// A request for the state of a device.
pub(super) fn get(family: u16, name: &str) -> Message {
    of_device(family, NLM_F_DUMP, WG_CMD_GET_DEVICE, name)
}

/// The requests that make a change.
pub(super) fn set(family: u16, name: &str, change: &Change) -> Vec<Message> {
    let Change { private_key, listen_port, fwmark, peers } = change;
    let mut message = of_device(family, 0, WG_CMD_SET_DEVICE, name);
    if let Some(key) = private_key {
        message.put(WGDEVICE_A_PRIVATE_KEY, key.as_ref().map_or(&[0; KEY_LEN], |key| key.as_bytes()));
    }
    if let Some(port) = listen_port {
        message.put(WGDEVICE_A_LISTEN_PORT, &port.to_ne_bytes());
    }
    if let Some(mark) = fwmark {
        message.put(WGDEVICE_A_FWMARK, &mark.to_ne_bytes());
    }
    let list = message.open(WGDEVICE_A_PEERS);
    let mut messages = Messages { family, name, list, message, full: Vec::new() };
    for peer in peers {
        match peer {
            PeerChange::Remove(key) => messages.remove(key),
            PeerChange::Put(peer) => messages.put(peer),
        }
    }
    messages.finish()
}

/// A request with the generic netlink header and the device's name. Its buffer never grows, for it may hold keys.
fn of_device(family: u16, flags: u16, command: u8, name: &str) -> Message {
    let mut message = Message::with_capacity(family, flags, LIMIT);
    push_header(&mut message, command, WG_VERSION);
    message.put_string(WGDEVICE_A_IFNAME, name);
    message
}

fn room(message: &Message) -> usize {
    LIMIT.saturating_sub(message.len())
}

/// A change that is spread over messages.
struct Messages<'a> {
    family: u16,
    name: &'a str,
    message: Message,
    /// The open list of peers.
    list: Nest,
    full: Vec<Message>,
}

impl Messages<'_> {
    /// Begins another message unless there is room for one peer.
    fn make_room(&mut self) {
        if room(&self.message) >= PEER {
            return;
        }
        let mut next = of_device(self.family, 0, WG_CMD_SET_DEVICE, self.name);
        let list = std::mem::replace(&mut self.list, next.open(WGDEVICE_A_PEERS));
        let mut message = std::mem::replace(&mut self.message, next);
        message.close(list);
        self.full.push(message);
    }

    fn finish(mut self) -> Vec<Message> {
        self.message.close(self.list);
        self.full.push(self.message);
        self.full
    }

    fn remove(&mut self, key: &WgPublicKey) {
        self.make_room();
        let peer = self.begin(key, WGPEER_F_REMOVE_ME);
        self.message.close(peer);
    }

    fn begin(&mut self, key: &WgPublicKey, flags: u32) -> Nest {
        let peer = self.message.open(0);
        self.message.put(WGPEER_A_PUBLIC_KEY, key.as_bytes());
        if flags != 0 {
            self.message.put(WGPEER_A_FLAGS, &flags.to_ne_bytes());
        }
        peer
    }

    /// A peer whose allowed IPs do not fit into one message is continued in the next, where it is named again.
    fn put(&mut self, peer: &Put) {
        let Put { public_key, update_only, preshared_key, endpoint, keepalive, replace, allowed_ips } = peer;
        self.make_room();
        let update = if *update_only { WGPEER_F_UPDATE_ONLY } else { 0 };
        let mut peer = self.begin(public_key, update | if *replace { WGPEER_F_REPLACE_ALLOWEDIPS } else { 0 });
        if let Some(key) = preshared_key {
            self.message.put(WGPEER_A_PRESHARED_KEY, key.as_ref().map_or(&[0; KEY_LEN], |key| key.as_bytes()));
        }
        if let Some(endpoint) = endpoint {
            put_endpoint(&mut self.message, *endpoint);
        }
        if let Some(seconds) = keepalive {
            self.message.put(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, &seconds.to_ne_bytes());
        }
        let mut left = allowed_ips.iter().peekable();
        while left.peek().is_some() {
            let list = self.message.open(WGPEER_A_ALLOWEDIPS);
            while room(&self.message) >= ALLOWED_IP
                && let Some(prefix) = left.next()
            {
                put_allowed_ip(&mut self.message, *prefix);
            }
            self.message.close(list);
            if left.peek().is_some() {
                self.message.close(peer);
                self.make_room();
                peer = self.begin(public_key, update);
            }
        }
        self.message.close(peer);
    }
}

/// As a `struct sockaddr_in` or `sockaddr_in6`.
fn put_endpoint(message: &mut Message, endpoint: SocketAddr) {
    let port = endpoint.port().to_be_bytes();
    match endpoint {
        SocketAddr::V4(v4) => {
            message.put_parts(WGPEER_A_ENDPOINT, &[&AF_INET.to_ne_bytes(), &port, &v4.ip().octets(), &[0; 8]]);
        }
        SocketAddr::V6(v6) => {
            let (flow, scope) = (v6.flowinfo().to_be_bytes(), v6.scope_id().to_ne_bytes());
            let parts: [&[u8]; 5] = [&AF_INET6.to_ne_bytes(), &port, &flow, &v6.ip().octets(), &scope];
            message.put_parts(WGPEER_A_ENDPOINT, &parts);
        }
    }
}

fn put_allowed_ip(message: &mut Message, prefix: Prefix) {
    message.nest(0, |entry| {
        match prefix.address() {
            IpAddr::V4(address) => {
                entry.put(WGALLOWEDIP_A_FAMILY, &AF_INET.to_ne_bytes()).put(WGALLOWEDIP_A_IPADDR, &address.octets())
            }
            IpAddr::V6(address) => {
                entry.put(WGALLOWEDIP_A_FAMILY, &AF_INET6.to_ne_bytes()).put(WGALLOWEDIP_A_IPADDR, &address.octets())
            }
        };
        entry.put(WGALLOWEDIP_A_CIDR_MASK, &[prefix.length()]);
    });
}
