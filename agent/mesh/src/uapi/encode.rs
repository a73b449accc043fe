//! Encoding of requests and answers.

use std::fmt::Write;
use std::time::UNIX_EPOCH;

use zeroize::Zeroizing;

use crate::config::{AllowedIp, WgDeviceStatus, WgDeviceUpdate, WgPeerStatus, WgPeerUpdate};

/// The request for configuration and status.
pub const GET_REQUEST: &str = "get=1\n\n";

/// Text that may contain secrets. It is allocated with its final capacity, because a reallocation would leave a copy of
/// the content in memory.
struct UapiText(Zeroizing<String>);

impl UapiText {
    fn new(peers: usize, allowed_ips: usize) -> Self {
        Self(Zeroizing::new(String::with_capacity(512 + peers * 640 + allowed_ips * 64)))
    }

    fn line(&mut self, key: &str, value: impl std::fmt::Display) {
        // Writing to a `String` does not fail.
        let _ok = writeln!(self.0, "{key}={value}");
    }

    fn finish(mut self) -> Zeroizing<String> {
        self.0.push('\n');
        self.0
    }
}

/// Stands for no key.
const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Encodes a request for a change.
#[must_use]
pub fn encode_set_request(update: &WgDeviceUpdate) -> Zeroizing<String> {
    let WgDeviceUpdate { private_key, listen_port, fwmark, replace_peers, peers } = update;
    let mut text = UapiText::new(peers.len(), peers.iter().map(|peer| peer.allowed_ips.len()).sum());
    text.line("set", 1);
    match private_key {
        Some(Some(key)) => text.line("private_key", key.to_hex().as_str()),
        Some(None) => text.line("private_key", ZEROS),
        None => {}
    }
    if let Some(port) = listen_port {
        text.line("listen_port", port);
    }
    if let Some(mark) = fwmark {
        text.line("fwmark", mark);
    }
    if *replace_peers {
        text.line("replace_peers", true);
    }
    for peer in peers {
        encode_peer_update(&mut text, peer);
    }
    text.finish()
}

fn encode_peer_update(text: &mut UapiText, peer: &WgPeerUpdate) {
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
    text.line("public_key", public_key.to_hex());
    for (key, set) in [("remove", remove), ("update_only", update_only)] {
        if *set {
            text.line(key, true);
        }
    }
    match preshared_key {
        Some(Some(key)) => text.line("preshared_key", key.to_hex().as_str()),
        Some(None) => text.line("preshared_key", ZEROS),
        None => {}
    }
    if let Some(endpoint) = endpoint {
        text.line("endpoint", endpoint);
    }
    if let Some(seconds) = keepalive {
        text.line("persistent_keepalive_interval", seconds);
    }
    if *replace_allowed_ips {
        text.line("replace_allowed_ips", true);
    }
    for AllowedIp { prefix, remove } in allowed_ips {
        text.line("allowed_ip", format_args!("{}{prefix}", if *remove { "-" } else { "" }));
    }
}

/// Encodes the answer to a request for a change: 0, or a negative error number.
#[must_use]
pub fn encode_set_answer(errno: i32) -> String {
    format!("errno={errno}\n\n")
}

/// Encodes the answer to a request for the status.
pub(crate) fn encode_status(status: &WgDeviceStatus) -> Zeroizing<String> {
    let WgDeviceStatus { private_key, listen_port, fwmark, peers } = status;
    let mut text = UapiText::new(peers.len(), peers.iter().map(|peer| peer.allowed_ips.len()).sum());
    if let Some(key) = private_key {
        text.line("private_key", key.to_hex().as_str());
    }
    text.line("listen_port", listen_port);
    if *fwmark != 0 {
        text.line("fwmark", fwmark);
    }
    for peer in peers {
        encode_peer_status(&mut text, peer);
    }
    text.line("errno", 0);
    text.finish()
}

fn encode_peer_status(text: &mut UapiText, peer: &WgPeerStatus) {
    let WgPeerStatus {
        public_key,
        preshared_key,
        endpoint,
        last_handshake,
        rx_bytes,
        tx_bytes,
        keepalive,
        allowed_ips,
        has_old_clock,
    } = peer;
    text.line("public_key", public_key.to_hex());
    text.line(
        "preshared_key",
        preshared_key.as_ref().map_or(Zeroizing::new(ZEROS.to_owned()), |key| key.to_hex()).as_str(),
    );
    text.line("protocol_version", 1);
    if let Some(endpoint) = endpoint {
        text.line("endpoint", endpoint);
    }
    let handshake = last_handshake.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    text.line("last_handshake_time_sec", handshake.as_secs());
    text.line("last_handshake_time_nsec", handshake.subsec_nanos());
    text.line("tx_bytes", tx_bytes);
    text.line("rx_bytes", rx_bytes);
    text.line("persistent_keepalive_interval", keepalive);
    if *has_old_clock {
        // Not part of the protocol; `wg` ignores it.
        text.line("has_old_clock", true);
    }
    for prefix in allowed_ips {
        text.line("allowed_ip", prefix);
    }
}
