//! Encodes requests of the WireGuard family. Pure. A change that does not fit into one message is split into several,
//! to be sent in order.

use std::net::{IpAddr, SocketAddr};

use otherix_mesh::key::{KEY_LEN, WgPublicKey};
use otherix_mesh::prefix::Prefix;
use otherix_netlink::generic::push_header;
use otherix_netlink::{Message, NLM_F_DUMP, Nest};

use super::constants::*;
use super::plan::{DeviceChange, PeerChange, SetPeer};

/// Largest message, in bytes. All peers of a message are one attribute, which must be shorter than 64 KiB.
const MESSAGE_SIZE: usize = 32 << 10;

/// Size of the largest allowed IP, in bytes: the nest with its family, address and prefix length.
const ALLOWED_IP_SIZE: usize = 4 + 8 + (4 + 16) + 8;

/// Size of the largest peer with one allowed IP, in bytes: its nest, two keys, flags, endpoint, keepalive, and the list
/// of allowed IPs.
const PEER_SIZE: usize = 4 + 2 * (4 + KEY_LEN) + 8 + (4 + 28) + 8 + 4 + ALLOWED_IP_SIZE;

/// Encodes the request for the status of a device.
pub(super) fn get(family: u16, name: &str) -> Message {
    request(family, NLM_F_DUMP, WG_CMD_GET_DEVICE, name)
}

/// Encodes the requests that apply a change.
pub(super) fn set(family: u16, name: &str, change: &DeviceChange) -> Vec<Message> {
    let DeviceChange { private_key, listen_port, fwmark, peers } = change;
    let mut message = request(family, 0, WG_CMD_SET_DEVICE, name);
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
    let mut messages = MessageSplitter { family, name, list, message, complete: Vec::new() };
    for peer in peers {
        match peer {
            PeerChange::Remove(key) => messages.remove(key),
            PeerChange::Set(peer) => messages.set(peer),
        }
    }
    messages.finish()
}

/// Begins a request about a device. Its buffer has its final capacity: growing would leave a copy of the keys.
fn request(family: u16, flags: u16, command: u8, name: &str) -> Message {
    let mut message = Message::with_capacity(family, flags, MESSAGE_SIZE);
    push_header(&mut message, command, WG_VERSION);
    message.put_string(WGDEVICE_A_IFNAME, name);
    message
}

fn remaining(message: &Message) -> usize {
    MESSAGE_SIZE.saturating_sub(message.len())
}

/// Splits the peers of a change into messages.
struct MessageSplitter<'a> {
    family: u16,
    name: &'a str,
    message: Message,
    /// The open list of peers.
    list: Nest,
    complete: Vec<Message>,
}

impl MessageSplitter<'_> {
    /// Begins another message unless this one has room for a peer.
    fn ensure_room(&mut self) {
        if remaining(&self.message) >= PEER_SIZE {
            return;
        }
        let mut next = request(self.family, 0, WG_CMD_SET_DEVICE, self.name);
        let list = std::mem::replace(&mut self.list, next.open(WGDEVICE_A_PEERS));
        let mut message = std::mem::replace(&mut self.message, next);
        message.close(list);
        self.complete.push(message);
    }

    fn finish(mut self) -> Vec<Message> {
        self.message.close(self.list);
        self.complete.push(self.message);
        self.complete
    }

    fn remove(&mut self, key: &WgPublicKey) {
        self.ensure_room();
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

    /// A peer whose allowed IPs do not fit into one message is continued in the next, with its key again.
    fn set(&mut self, peer: &SetPeer) {
        let SetPeer { public_key, update_only, preshared_key, endpoint, keepalive, replace_allowed_ips, allowed_ips } =
            peer;
        self.ensure_room();
        let flags = if *update_only { WGPEER_F_UPDATE_ONLY } else { 0 };
        let replace = if *replace_allowed_ips { WGPEER_F_REPLACE_ALLOWEDIPS } else { 0 };
        let mut peer = self.begin(public_key, flags | replace);
        if let Some(key) = preshared_key {
            self.message.put(WGPEER_A_PRESHARED_KEY, key.as_ref().map_or(&[0; KEY_LEN], |key| key.as_bytes()));
        }
        if let Some(endpoint) = endpoint {
            put_endpoint(&mut self.message, *endpoint);
        }
        if let Some(seconds) = keepalive {
            self.message.put(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, &seconds.to_ne_bytes());
        }
        let mut remaining_ips = allowed_ips.iter().peekable();
        while remaining_ips.peek().is_some() {
            let list = self.message.open(WGPEER_A_ALLOWEDIPS);
            while remaining(&self.message) >= ALLOWED_IP_SIZE
                && let Some(prefix) = remaining_ips.next()
            {
                put_allowed_ip(&mut self.message, *prefix);
            }
            self.message.close(list);
            if remaining_ips.peek().is_some() {
                self.message.close(peer);
                self.ensure_room();
                peer = self.begin(public_key, flags);
            }
        }
        self.message.close(peer);
    }
}

/// `struct sockaddr_in` or `sockaddr_in6`.
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
