//! Decodes the kernel's replies. Pure. Unknown attributes are ignored; known ones with an unexpected form are errors.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use otherix_mesh::config::{WgDeviceStatus, WgPeerStatus};
use otherix_mesh::key::{KEY_LEN, WgPresharedKey, WgPrivateKey, WgPublicKey};
use otherix_mesh::prefix::Prefix;
use otherix_netlink::generic::GENERIC_HEADER_LEN;
use otherix_netlink::{Attribute, MalformedAttribute};
use zeroize::Zeroizing;

use super::constants::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unexpected form of the {0}")]
pub struct DecodeError(&'static str);

/// Collects the status of a device from the messages of a reply.
#[derive(Debug, Default)]
pub(super) struct StatusDecoder {
    private_key: Option<WgPrivateKey>,
    listen_port: u16,
    fwmark: u32,
    peers: Vec<WgPeerStatus>,
}

impl StatusDecoder {
    /// Adds the payload of the next message. The first has the settings of the device, and each has some peers.
    pub(super) fn add(&mut self, body: &[u8]) -> Result<(), DecodeError> {
        for attribute in attributes(body.get(GENERIC_HEADER_LEN..).ok_or(DecodeError("generic netlink header"))?) {
            let attribute = attribute?;
            let value = attribute.value;
            match attribute.kind {
                WGDEVICE_A_PRIVATE_KEY => {
                    self.private_key = WgPrivateKey::from_bytes(&secret(value).ok_or(DecodeError("private key"))?);
                }
                WGDEVICE_A_LISTEN_PORT => {
                    self.listen_port = exact(value).map(u16::from_ne_bytes).ok_or(DecodeError("port"))?;
                }
                WGDEVICE_A_FWMARK => {
                    self.fwmark = exact(value).map(u32::from_ne_bytes).ok_or(DecodeError("firewall mark"))?;
                }
                WGDEVICE_A_PEERS => {
                    for entry in attributes(value) {
                        self.add_peer(peer(entry?.value)?);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A peer that does not fit into one message is continued in the next, with the rest of its allowed IPs only.
    fn add_peer(&mut self, peer: WgPeerStatus) {
        match self.peers.last_mut() {
            Some(last) if last.public_key == peer.public_key => last.allowed_ips.extend(peer.allowed_ips),
            Some(_) | None => self.peers.push(peer),
        }
    }

    pub(super) fn finish(self) -> WgDeviceStatus {
        let Self { private_key, listen_port, fwmark, peers } = self;
        WgDeviceStatus { private_key, listen_port, fwmark, peers }
    }
}

fn peer(value: &[u8]) -> Result<WgPeerStatus, DecodeError> {
    let mut public_key = None;
    let mut peer = WgPeerStatus::new(WgPublicKey::from_bytes([0; KEY_LEN]));
    for attribute in attributes(value) {
        let attribute = attribute?;
        let value = attribute.value;
        match attribute.kind {
            WGPEER_A_PUBLIC_KEY => public_key = exact(value).map(WgPublicKey::from_bytes),
            WGPEER_A_PRESHARED_KEY => {
                let key = secret(value).ok_or(DecodeError("peer's preshared key"))?;
                peer.preshared_key = WgPresharedKey::from_bytes(&key);
            }
            WGPEER_A_ENDPOINT => peer.endpoint = endpoint(value)?,
            WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL => {
                peer.keepalive = exact(value).map(u16::from_ne_bytes).ok_or(DecodeError("peer's keepalive"))?;
            }
            WGPEER_A_LAST_HANDSHAKE_TIME => peer.last_handshake = time(value)?,
            WGPEER_A_RX_BYTES => peer.rx_bytes = byte_count(value)?,
            WGPEER_A_TX_BYTES => peer.tx_bytes = byte_count(value)?,
            WGPEER_A_ALLOWEDIPS => {
                for entry in attributes(value) {
                    peer.allowed_ips.push(allowed_ip(entry?.value)?);
                }
            }
            _ => {}
        }
    }
    peer.public_key = public_key.ok_or(DecodeError("peer's public key"))?;
    Ok(peer)
}

/// `struct sockaddr_in` or `sockaddr_in6`; of no family if the peer has no endpoint.
fn endpoint(value: &[u8]) -> Result<Option<SocketAddr>, DecodeError> {
    const ERROR: DecodeError = DecodeError("peer's endpoint");
    let (family, rest) = value.split_first_chunk().ok_or(ERROR)?;
    let (port, rest) = rest.split_first_chunk().ok_or(ERROR)?;
    let port = u16::from_be_bytes(*port);
    match u16::from_ne_bytes(*family) {
        0 => Ok(None),
        AF_INET => {
            let octets = rest.first_chunk::<4>().ok_or(ERROR)?;
            Ok(Some(SocketAddrV4::new(Ipv4Addr::from(*octets), port).into()))
        }
        AF_INET6 => {
            let (flow, rest) = rest.split_first_chunk().ok_or(ERROR)?;
            let (octets, rest) = rest.split_first_chunk::<16>().ok_or(ERROR)?;
            let scope = rest.first_chunk().ok_or(ERROR)?;
            let (flow, scope) = (u32::from_be_bytes(*flow), u32::from_ne_bytes(*scope));
            Ok(Some(SocketAddrV6::new(Ipv6Addr::from(*octets), port, flow, scope).into()))
        }
        _ => Err(ERROR),
    }
}

/// `struct __kernel_timespec` since 1970; zero if there was no handshake.
fn time(value: &[u8]) -> Result<Option<SystemTime>, DecodeError> {
    const ERROR: DecodeError = DecodeError("peer's last handshake");
    let (seconds, rest) = value.split_first_chunk().ok_or(ERROR)?;
    let seconds = u64::try_from(i64::from_ne_bytes(*seconds)).map_err(|_| ERROR)?;
    let nanoseconds = exact(rest).map(i64::from_ne_bytes).and_then(|nanoseconds| u32::try_from(nanoseconds).ok());
    let nanoseconds = nanoseconds.filter(|nanoseconds| *nanoseconds < 1_000_000_000).ok_or(ERROR)?;
    if (seconds, nanoseconds) == (0, 0) {
        return Ok(None);
    }
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds)).map(Some).ok_or(ERROR)
}

fn byte_count(value: &[u8]) -> Result<u64, DecodeError> {
    exact(value).map(u64::from_ne_bytes).ok_or(DecodeError("peer's byte count"))
}

fn allowed_ip(value: &[u8]) -> Result<Prefix, DecodeError> {
    const ERROR: DecodeError = DecodeError("peer's allowed IP");
    let (mut family, mut address, mut length) = (None, None, None);
    for attribute in attributes(value) {
        let attribute = attribute?;
        match attribute.kind {
            WGALLOWEDIP_A_FAMILY => family = exact(attribute.value).map(u16::from_ne_bytes),
            WGALLOWEDIP_A_IPADDR => {
                let v4 = exact::<4>(attribute.value).map(IpAddr::from);
                address = v4.or_else(|| exact::<16>(attribute.value).map(IpAddr::from));
            }
            WGALLOWEDIP_A_CIDR_MASK => length = exact(attribute.value).map(u8::from_ne_bytes),
            _ => {}
        }
    }
    let (Some(address), Some(length)) = (address, length) else { return Err(ERROR) };
    if family != Some(if address.is_ipv4() { AF_INET } else { AF_INET6 }) {
        return Err(ERROR);
    }
    Prefix::new(address, length).map_err(|_| ERROR)
}

fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<Attribute<'_>, DecodeError>> {
    otherix_netlink::attributes(bytes)
        .map(|attribute| attribute.map_err(|MalformedAttribute| DecodeError("attributes")))
}

fn exact<const LENGTH: usize>(value: &[u8]) -> Option<[u8; LENGTH]> {
    value.try_into().ok()
}

/// Copies a key without leaving another copy in memory.
fn secret(value: &[u8]) -> Option<Zeroizing<[u8; KEY_LEN]>> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    if value.len() != key.len() {
        return None;
    }
    key.copy_from_slice(value);
    Some(key)
}
