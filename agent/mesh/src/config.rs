//! Configuration changes and status of a WireGuard device. Pure.

use std::net::SocketAddr;
use std::time::SystemTime;

use super::key::{WgPresharedKey, WgPrivateKey, WgPublicKey};
use super::prefix::Prefix;

/// Changes of a device. `None` leaves a setting as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WgDeviceUpdate {
    /// `Some(None)` removes the key, which ends all sessions.
    pub private_key: Option<Option<WgPrivateKey>>,
    /// The UDP port; 0 for any free port.
    pub listen_port: Option<u16>,
    /// The mark of sent packets, for policy routing; 0 for none.
    pub fwmark: Option<u32>,
    /// Remove the peers that are not in `peers`. Those that are keep their session and endpoint, and have their other
    /// settings reset to the defaults before the changes.
    pub replace_peers: bool,
    /// Peers to add, change or remove, in this order.
    pub peers: Vec<WgPeerUpdate>,
}

/// Changes of a peer, which is added if it does not exist. `None` leaves a setting as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WgPeerUpdate {
    pub public_key: WgPublicKey,
    /// Remove the peer; the other settings are ignored.
    pub remove: bool,
    /// Do nothing if the peer does not exist.
    pub update_only: bool,
    /// Takes effect with the next handshake; `Some(None)` removes the key.
    pub preshared_key: Option<Option<WgPresharedKey>>,
    /// Replaced when an authentic message arrives from another address.
    pub endpoint: Option<SocketAddr>,
    /// The persistent keepalive interval in seconds; 0 disables keepalives.
    pub keepalive: Option<u16>,
    /// Remove all allowed IPs before `allowed_ips` are applied.
    pub replace_allowed_ips: bool,
    /// Allowed IPs to add or remove, in this order.
    pub allowed_ips: Vec<AllowedIp>,
}

impl WgPeerUpdate {
    /// An update that changes nothing but adds the peer if it does not exist.
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

/// An allowed IP to add to a peer or to remove from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowedIp {
    pub prefix: Prefix,
    /// Remove it from the peer instead of adding it.
    pub remove: bool,
}

impl From<Prefix> for AllowedIp {
    fn from(prefix: Prefix) -> Self {
        Self { prefix, remove: false }
    }
}

/// Configuration and state of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WgDeviceStatus {
    pub private_key: Option<WgPrivateKey>,
    /// The UDP port.
    pub listen_port: u16,
    /// The mark of sent packets; 0 for none.
    pub fwmark: u32,
    pub peers: Vec<WgPeerStatus>,
}

/// Configuration and state of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WgPeerStatus {
    pub public_key: WgPublicKey,
    pub preshared_key: Option<WgPresharedKey>,
    /// As configured, or the source of the last authentic message.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake completed.
    pub last_handshake: Option<SystemTime>,
    /// Bytes of authentic WireGuard messages received.
    pub rx_bytes: u64,
    /// Bytes of WireGuard messages sent.
    pub tx_bytes: u64,
    /// The persistent keepalive interval in seconds; 0 if disabled.
    pub keepalive: u16,
    pub allowed_ips: Vec<Prefix>,
    /// The last handshake that it initiated was not accepted, because it states an earlier time than one before: its
    /// clock was set back. Only [`crate`]'s device tells.
    pub has_old_clock: bool,
}

impl WgPeerStatus {
    /// The status of a peer with default settings and without sessions.
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
            has_old_clock: false,
        }
    }
}
