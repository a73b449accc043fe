//! What is said to the kernel, as bytes: whole messages, but for their type, flags and number, which [`super::socket`] puts in.
//! Pure. A change that is too much for one message is spread over several, in order.

use std::net::{IpAddr, SocketAddr};

use zeroize::Zeroizing;

use super::plan::{Change, PeerChange, Put};
use super::wire::*;
use crate::mesh::key::{KEY_LEN, PublicKey};
use crate::mesh::prefix::Prefix;

/// A message. It may hold keys, and never grows, for text that grows leaves copies behind.
pub(super) type Message = Zeroizing<Vec<u8>>;

/// Bytes of a message at most. An attribute, and all peers of a message are one, has less than 64 KiB.
const LIMIT: usize = 32 << 10;

/// Bytes of the largest allowed IP: attributes of a family, an address and a length, in one.
const ALLOWED_IP: usize = 4 + 8 + (4 + 16) + 8;

/// Bytes of the largest peer, with one allowed IP: itself, two keys, flags, endpoint, keepalive, and the list of allowed IPs.
const PEER: usize = 4 + 2 * (4 + KEY_LEN) + 8 + (4 + 28) + 8 + 4 + ALLOWED_IP;

/// Set on attributes that hold attributes.
const NESTED: u16 = 0x8000;

/// The question which number a family has.
pub(super) fn family(name: &str) -> Message {
    let mut body = Body::new(CTRL_CMD_GETFAMILY, CTRL_VERSION);
    body.put(CTRL_ATTR_FAMILY_NAME, &[&terminated(name)]);
    body.0
}

/// The question what a device is.
pub(super) fn get(name: &str) -> Message {
    Body::of_device(WG_CMD_GET_DEVICE, name).0
}

/// What makes a change.
pub(super) fn set(name: &str, change: &Change) -> Vec<Message> {
    let Change { private_key, listen_port, fwmark, peers } = change;
    let mut body = Body::of_device(WG_CMD_SET_DEVICE, name);
    if let Some(key) = private_key {
        body.put(WGDEVICE_A_PRIVATE_KEY, &[key.as_ref().map_or(&[0; KEY_LEN], |key| key.as_bytes())]);
    }
    if let Some(port) = listen_port {
        body.put(WGDEVICE_A_LISTEN_PORT, &[&port.to_ne_bytes()]);
    }
    if let Some(mark) = fwmark {
        body.put(WGDEVICE_A_FWMARK, &[&mark.to_ne_bytes()]);
    }
    let mut messages = Messages { name, list: body.open(WGDEVICE_A_PEERS), body, full: Vec::new() };
    for peer in peers {
        match peer {
            PeerChange::Remove(key) => messages.remove(key),
            PeerChange::Put(peer) => messages.put(peer),
        }
    }
    messages.end()
}

/// A change spread over messages.
struct Messages<'a> {
    name: &'a str,
    body: Body,
    /// Where the list of peers begins.
    list: usize,
    full: Vec<Message>,
}

impl Messages<'_> {
    /// Begins another message unless there is room for one peer.
    fn make_room(&mut self) {
        if self.body.room() >= PEER {
            return;
        }
        let mut next = Body::of_device(WG_CMD_SET_DEVICE, self.name);
        let list = std::mem::replace(&mut self.list, next.open(WGDEVICE_A_PEERS));
        let mut body = std::mem::replace(&mut self.body, next);
        body.close(list);
        self.full.push(body.0);
    }

    fn end(mut self) -> Vec<Message> {
        self.body.close(self.list);
        self.full.push(self.body.0);
        self.full
    }

    fn remove(&mut self, key: &PublicKey) {
        self.make_room();
        let peer = self.begin(key, WGPEER_F_REMOVE_ME);
        self.body.close(peer);
    }

    fn begin(&mut self, key: &PublicKey, flags: u32) -> usize {
        let peer = self.body.open(0);
        self.body.put(WGPEER_A_PUBLIC_KEY, &[key.as_bytes()]);
        if flags != 0 {
            self.body.put(WGPEER_A_FLAGS, &[&flags.to_ne_bytes()]);
        }
        peer
    }

    /// A peer whose allowed IPs are too many for one message is continued in the next, where it is mentioned again.
    fn put(&mut self, peer: &Put) {
        let Put { public_key, update_only, preshared_key, endpoint, keepalive, replace, allowed_ips } = peer;
        self.make_room();
        let update = if *update_only { WGPEER_F_UPDATE_ONLY } else { 0 };
        let mut peer = self.begin(public_key, update | if *replace { WGPEER_F_REPLACE_ALLOWEDIPS } else { 0 });
        if let Some(key) = preshared_key {
            let key = key.as_ref().map_or(&[0; KEY_LEN], |key| key.as_bytes());
            self.body.put(WGPEER_A_PRESHARED_KEY, &[key]);
        }
        if let Some(endpoint) = endpoint {
            self.body.put_endpoint(*endpoint);
        }
        if let Some(seconds) = keepalive {
            self.body.put(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, &[&seconds.to_ne_bytes()]);
        }
        let mut left = allowed_ips.iter().peekable();
        while left.peek().is_some() {
            let list = self.body.open(WGPEER_A_ALLOWEDIPS);
            while self.body.room() >= ALLOWED_IP
                && let Some(prefix) = left.next()
            {
                self.body.put_allowed_ip(*prefix);
            }
            self.body.close(list);
            if left.peek().is_some() {
                self.body.close(peer);
                self.make_room();
                peer = self.begin(public_key, update);
            }
        }
        self.body.close(peer);
    }
}

/// A message being written, behind room for its netlink header.
struct Body(Message);

impl Body {
    fn new(command: u8, version: u8) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT));
        bytes.resize(NETLINK_HEADER, 0);
        bytes.extend([command, version, 0, 0]);
        Self(bytes)
    }

    fn of_device(command: u8, name: &str) -> Self {
        let mut body = Self::new(command, WG_VERSION);
        body.put(WGDEVICE_A_IFNAME, &[&terminated(name)]);
        body
    }

    fn room(&self) -> usize {
        LIMIT.saturating_sub(self.0.len())
    }

    /// Adds an attribute, its value in parts.
    fn put(&mut self, kind: u16, parts: &[&[u8]]) {
        let start = self.0.len();
        self.begin(kind);
        parts.iter().for_each(|part| self.0.extend_from_slice(part));
        self.close(start);
    }

    /// Begins an attribute that holds attributes, until [`Self::close`] is given what this gives.
    fn open(&mut self, kind: u16) -> usize {
        let start = self.0.len();
        self.begin(kind | NESTED);
        start
    }

    fn begin(&mut self, kind: u16) {
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
    }

    /// Ends an attribute: its length is known now. The next one begins at a multiple of four.
    fn close(&mut self, start: usize) {
        let length = u16::try_from(self.0.len().saturating_sub(start)).unwrap_or(u16::MAX);
        if let Some(place) = self.0.get_mut(start..).and_then(|attribute| attribute.first_chunk_mut()) {
            *place = length.to_ne_bytes();
        }
        let end = self.0.len().next_multiple_of(4);
        self.0.resize(end, 0);
    }

    /// As a `struct sockaddr_in` or `sockaddr_in6`.
    fn put_endpoint(&mut self, endpoint: SocketAddr) {
        let port = endpoint.port().to_be_bytes();
        match endpoint {
            SocketAddr::V4(v4) => {
                self.put(WGPEER_A_ENDPOINT, &[&AF_INET.to_ne_bytes(), &port, &v4.ip().octets(), &[0; 8]]);
            }
            SocketAddr::V6(v6) => {
                let (flow, scope) = (v6.flowinfo().to_be_bytes(), v6.scope_id().to_ne_bytes());
                self.put(WGPEER_A_ENDPOINT, &[&AF_INET6.to_ne_bytes(), &port, &flow, &v6.ip().octets(), &scope]);
            }
        }
    }

    fn put_allowed_ip(&mut self, prefix: Prefix) {
        let entry = self.open(0);
        match prefix.address() {
            IpAddr::V4(address) => {
                self.put(WGALLOWEDIP_A_FAMILY, &[&AF_INET.to_ne_bytes()]);
                self.put(WGALLOWEDIP_A_IPADDR, &[&address.octets()]);
            }
            IpAddr::V6(address) => {
                self.put(WGALLOWEDIP_A_FAMILY, &[&AF_INET6.to_ne_bytes()]);
                self.put(WGALLOWEDIP_A_IPADDR, &[&address.octets()]);
            }
        }
        self.put(WGALLOWEDIP_A_CIDR_MASK, &[&[prefix.length()]]);
        self.close(entry);
    }
}

fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}
