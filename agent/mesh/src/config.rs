//! What a device is told, and what it tells. Pure.

use std::net::SocketAddr;
use std::time::SystemTime;

use super::key::{WgPresharedKey, WgPrivateKey, WgPublicKey};
use super::prefix::Prefix;

/// What is to change of a device. What is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WgDeviceUpdate {
    /// The device's own key; `Some(None)` takes it away, and with it every session.
    pub private_key: Option<Option<WgPrivateKey>>,
    /// The UDP port; 0 for any that is free.
    pub listen_port: Option<u16>,
    /// The mark of packets sent, for routing policy; 0 for none.
    pub fwmark: Option<u32>,
    /// Whether peers that are not named are removed. Those that are named keep their session, and lose every setting that
    /// is not given.
    pub replace_peers: bool,
    /// Peers to add, change or remove, in order.
    pub peers: Vec<WgPeerUpdate>,
}

/// What is to change of a peer. What is `None` stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WgPeerUpdate {
    /// Who it is.
    pub public_key: WgPublicKey,
    /// Whether it is removed; nothing else of it matters then.
    pub remove: bool,
    /// Whether it is only changed if it is there, and not added.
    pub update_only: bool,
    /// A secret mixed into the next handshakes; `Some(None)` for none.
    pub preshared_key: Option<Option<WgPresharedKey>>,
    /// Where it is, until it is heard from elsewhere.
    pub endpoint: Option<SocketAddr>,
    /// After so many seconds of silence something is sent; 0 for never.
    pub keepalive: Option<u16>,
    /// Whether it loses the allowed IPs that it has.
    pub replace_allowed_ips: bool,
    /// Allowed IPs that it is given, or that are taken from it.
    pub allowed_ips: Vec<AllowedIp>,
}

impl WgPeerUpdate {
    /// A peer of which nothing changes yet: added as it is, it has neither endpoint nor allowed IPs.
    #[must_use]
    pub const fn new(public_key: WgPublicKey) -> Self {
        Self {
            public_key,
            remove: false,
            update_only: false,
            preshared_key: None,
            endpoint: None,
            keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }
}

/// A change of one allowed IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowedIp {
    /// The addresses.
    pub prefix: Prefix,
    /// Whether they are taken from the peer, instead of given to it.
    pub remove: bool,
}

impl From<Prefix> for AllowedIp {
    fn from(prefix: Prefix) -> Self {
        Self { prefix, remove: false }
    }
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WgDeviceStatus {
    /// Its own key, if it has been given one.
    pub private_key: Option<WgPrivateKey>,
    /// The UDP port.
    pub listen_port: u16,
    /// The mark of packets sent; 0 for none.
    pub fwmark: u32,
    /// Its peers.
    pub peers: Vec<WgPeerStatus>,
}

/// What a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WgPeerStatus {
    /// Who it is.
    pub public_key: WgPublicKey,
    /// The secret mixed into handshakes.
    pub preshared_key: Option<WgPresharedKey>,
    /// Where it was told to be, or was last heard from.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake was completed.
    pub last_handshake: Option<SystemTime>,
    /// Bytes of WireGuard messages received from it that were authentic.
    pub rx_bytes: u64,
    /// Bytes of WireGuard messages sent to it.
    pub tx_bytes: u64,
    /// After so many seconds of silence something is sent; 0 for never.
    pub keepalive: u16,
    /// Its allowed IPs.
    pub allowed_ips: Vec<Prefix>,
}

impl WgPeerStatus {
    /// A peer of which nothing else is known.
    #[must_use]
    pub const fn new(public_key: WgPublicKey) -> Self {
        Self {
            public_key,
            preshared_key: None,
            endpoint: None,
            last_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
            keepalive: 0,
            allowed_ips: Vec::new(),
        }
    }
}
