//! Requests and answers, written.

use std::fmt::Write;
use std::time::UNIX_EPOCH;

use zeroize::Zeroizing;

use crate::config::{AllowedIp, WgDeviceStatus, WgDeviceUpdate, WgPeerStatus, WgPeerUpdate};

/// The request for a device's status.
pub const GET: &str = "get=1\n\n";

/// Text that may hold a secret, and has room for all that is to be written: text that grows leaves copies behind.
struct Text(Zeroizing<String>);

impl Text {
    fn new(peers: usize, allowed_ips: usize) -> Self {
        Self(Zeroizing::new(String::with_capacity(512 + peers * 640 + allowed_ips * 64)))
    }

    fn line(&mut self, key: &str, value: impl std::fmt::Display) {
        // Writing to a text does not fail.
        let _written = writeln!(self.0, "{key}={value}");
    }

    fn end(mut self) -> Zeroizing<String> {
        self.0.push('\n');
        self.0
    }
}

const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The request for a change.
#[must_use]
pub fn set(config: &WgDeviceUpdate) -> Zeroizing<String> {
    let WgDeviceUpdate { private_key, listen_port, fwmark, replace_peers, peers } = config;
    let mut text = Text::new(peers.len(), peers.iter().map(|peer| peer.allowed_ips.len()).sum());
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
        set_peer(&mut text, peer);
    }
    text.end()
}

fn set_peer(text: &mut Text, peer: &WgPeerUpdate) {
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

/// The answer to a request for a change: 0, or an error number of the kernel's, negative.
#[must_use]
pub fn answer(errno: i32) -> String {
    format!("errno={errno}\n\n")
}

/// The answer to a request for the status.
pub(crate) fn status(status: &WgDeviceStatus) -> Zeroizing<String> {
    let WgDeviceStatus { private_key, listen_port, fwmark, peers } = status;
    let mut text = Text::new(peers.len(), peers.iter().map(|peer| peer.allowed_ips.len()).sum());
    if let Some(key) = private_key {
        text.line("private_key", key.to_hex().as_str());
    }
    text.line("listen_port", listen_port);
    if *fwmark != 0 {
        text.line("fwmark", fwmark);
    }
    for peer in peers {
        status_peer(&mut text, peer);
    }
    text.line("errno", 0);
    text.end()
}

fn status_peer(text: &mut Text, peer: &WgPeerStatus) {
    let WgPeerStatus {
        public_key,
        preshared_key,
        endpoint,
        last_handshake,
        rx_bytes,
        tx_bytes,
        keepalive,
        allowed_ips,
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
    let since = last_handshake.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    text.line("last_handshake_time_sec", since.as_secs());
    text.line("last_handshake_time_nsec", since.subsec_nanos());
    text.line("tx_bytes", tx_bytes);
    text.line("rx_bytes", rx_bytes);
    text.line("persistent_keepalive_interval", keepalive);
    for prefix in allowed_ips {
        text.line("allowed_ip", prefix);
    }
}
