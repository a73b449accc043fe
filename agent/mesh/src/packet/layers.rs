//! The offsets of the headers of an IP packet, and the fields that depend on its length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::bytes::{get_u8, get_u16, put_u8, put_u16, shift};
use super::checksum::{checksum, fold, sum};
use super::virtio::VirtioHeader;

/// Lengths of headers in bytes.
pub(super) const UDP_LEN: usize = 8;
const VXLAN_LEN: usize = 8;
const ETHERNET_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;

/// The destination port of VXLAN (RFC 7348).
const VXLAN_PORT: u16 = 4789;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// The flags of a VXLAN header with a VNI and nothing else.
const VXLAN_VNI_ONLY: u16 = 0x0800;

/// The flag in the IPv4 fragment field that forbids fragmentation.
pub(super) const DONT_FRAGMENT: u16 = 0x4000;

/// The IPv4 option without effect (`IPOPT_NOOP`).
const NO_OPERATION: u8 = 1;

/// Offset of the flags in a TCP header, and flags.
pub(super) const TCP_FLAGS: usize = 13;
pub(super) const FIN: u8 = 0x01;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const CWR: u8 = 0x80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransportProtocol {
    Tcp,
    Udp,
}

impl TransportProtocol {
    const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// The offset of the checksum in the header.
    pub(super) const fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// The offsets of the headers of a packet. A VXLAN packet also has the outer IP header, at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layers {
    /// The outer UDP header of a VXLAN packet.
    pub(super) outer_udp: Option<usize>,
    /// The (inner) IP header.
    pub(super) ip: usize,
    /// Whether the (inner) packet is of IPv6.
    pub(super) v6: bool,
    pub(super) protocol: TransportProtocol,
    /// The (inner) TCP or UDP header.
    pub(super) transport: usize,
    pub(super) payload: usize,
}

/// A valid IP header without options or extensions, of a packet that is not a fragment and has the stated length.
struct IpHeader {
    v6: bool,
    protocol: u8,
    /// The offset of the IP payload.
    payload: usize,
}

fn parse_ip(packet: &[u8], offset: usize) -> Option<IpHeader> {
    let rest = packet.get(offset..)?;
    match get_u8(rest, 0)? {
        0x45 if usize::from(get_u16(rest, 2)?) == rest.len()
            && get_u16(rest, 6)? & !DONT_FRAGMENT == 0
            && fold(sum(rest.get(..IPV4_LEN)?)) == 0xffff =>
        {
            Some(IpHeader { v6: false, protocol: get_u8(rest, 9)?, payload: offset + IPV4_LEN })
        }
        first if first >> 4 == 6 && usize::from(get_u16(rest, 4)?) + IPV6_LEN == rest.len() => {
            Some(IpHeader { v6: true, protocol: get_u8(rest, 6)?, payload: offset + IPV6_LEN })
        }
        _ => None,
    }
}

impl Layers {
    /// Parses a packet as far as it can be merged with others. TCP in VXLAN is parsed if `with_tunnels`.
    pub(super) fn parse(packet: &[u8], with_tunnels: bool) -> Option<Self> {
        let outer = parse_ip(packet, 0)?;
        if with_tunnels && !outer.v6 && outer.protocol == TransportProtocol::Udp.number() {
            let inner = Self::parse_vxlan(packet, outer.payload);
            if inner.is_some() {
                return inner;
            }
        }
        Self::parse_transport(packet, None, 0, &outer)
    }

    /// Whether a VXLAN packet was parsed as plain UDP although `with_tunnels`.
    pub(super) fn is_unparsed_vxlan(&self, packet: &[u8], with_tunnels: bool) -> bool {
        let port = get_u16(packet, self.transport + 2);
        with_tunnels && self.outer_udp.is_none() && self.protocol == TransportProtocol::Udp && port == Some(VXLAN_PORT)
    }

    fn parse_vxlan(packet: &[u8], udp: usize) -> Option<Self> {
        let vxlan = udp + UDP_LEN;
        let ip = vxlan + VXLAN_LEN + ETHERNET_LEN;
        // Without a UDP checksum, which would have to be computed again.
        let is_plain_vxlan = get_u16(packet, udp + 2)? == VXLAN_PORT
            && usize::from(get_u16(packet, udp + 4)?) + udp == packet.len()
            && get_u16(packet, udp + 6)? == 0
            && get_u16(packet, vxlan)? == VXLAN_VNI_ONLY
            && get_u16(packet, vxlan + 2)? == 0;
        let ethertype = get_u16(packet, ip - 2)?;
        let inner = parse_ip(packet, ip)?;
        let is_tcp = inner.protocol == TransportProtocol::Tcp.number()
            && ethertype == if inner.v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
        if is_plain_vxlan && is_tcp { Self::parse_transport(packet, Some(udp), ip, &inner) } else { None }
    }

    fn parse_transport(packet: &[u8], outer_udp: Option<usize>, ip: usize, header: &IpHeader) -> Option<Self> {
        let IpHeader { v6, protocol, payload: transport } = *header;
        let (protocol, length) = if protocol == TransportProtocol::Tcp.number() {
            (TransportProtocol::Tcp, tcp_header_length(packet, transport)?)
        } else if protocol == TransportProtocol::Udp.number()
            && usize::from(get_u16(packet, transport + 4)?) + transport == packet.len()
        {
            (TransportProtocol::Udp, UDP_LEN)
        } else {
            return None;
        };
        let payload = transport + length;
        if payload > packet.len() {
            return None;
        }
        Some(Self { outer_udp, ip, v6, protocol, transport, payload })
    }

    /// The layers of a GSO packet, whose virtio header has the offsets. `None` if they are out of order or out of
    /// range.
    pub(super) fn from_virtio(header: &VirtioHeader, packet: &[u8]) -> Option<Self> {
        let transport = usize::from(header.checksum_start);
        let (outer_udp, ip) = if header.is_tunnel() {
            let (udp, ip) = (usize::from(header.outer_transport), usize::from(header.inner_network));
            (Some(udp).filter(|udp| *udp >= IPV4_LEN && udp + UDP_LEN <= ip), ip)
        } else {
            (None, 0)
        };
        let v6 = match get_u8(packet, ip)? >> 4 {
            4 => false,
            6 => true,
            _ => return None,
        };
        let (protocol, length) = if header.is_udp() {
            (TransportProtocol::Udp, UDP_LEN)
        } else {
            (TransportProtocol::Tcp, tcp_header_length(packet, transport)?)
        };
        let layers = Self { outer_udp, ip, v6, protocol, transport, payload: transport + length };
        let ip_header_min = if v6 { IPV6_LEN } else { IPV4_LEN };
        let is_valid = header.is_tunnel() == outer_udp.is_some()
            && ip + ip_header_min <= transport
            && layers.payload <= packet.len();
        if is_valid { Some(layers) } else { None }
    }

    /// Sets the length fields of IP and UDP headers and the checksums of IPv4 headers, and adds `id_increment` to the
    /// IDs of IPv4 headers.
    pub(super) fn set_lengths(&self, packet: &mut [u8], id_increment: u16) -> Option<()> {
        if let Some(udp) = self.outer_udp {
            let v6 = get_u8(packet, 0)? >> 4 == 6;
            set_ip_length(packet, 0, v6, id_increment)?;
            set_udp_length(packet, udp)?;
        }
        set_ip_length(packet, self.ip, self.v6, id_increment)?;
        if self.protocol == TransportProtocol::Udp {
            set_udp_length(packet, self.transport)?;
        }
        Some(())
    }

    /// Computes the transport checksum, and then that of the outer UDP header if it has one.
    pub(super) fn set_checksums(&self, packet: &mut [u8]) -> Option<()> {
        set_transport_checksum(packet, self.ip, self.v6, self.transport, self.protocol)?;
        match self.outer_udp {
            Some(udp) if get_u16(packet, udp + 6)? != 0 => {
                let v6 = get_u8(packet, 0)? >> 4 == 6;
                set_transport_checksum(packet, 0, v6, udp, TransportProtocol::Udp)
            }
            Some(_) | None => Some(()),
        }
    }

    /// Sets the transport checksum to the sum of the pseudo-header; the kernel completes it.
    pub(super) fn set_partial_checksum(&self, packet: &mut [u8]) -> Option<()> {
        let partial = fold(pseudo_header_sum(packet, self.ip, self.v6, self.transport, self.protocol)?);
        put_u16(packet, self.transport + self.protocol.checksum_offset(), partial)
    }

    /// Whether the transport checksum is correct. UDP over IPv4 may have none.
    pub(super) fn has_valid_checksum(&self, packet: &[u8]) -> bool {
        let Some(segment) = packet.get(self.transport..) else { return false };
        let is_omitted = self.protocol == TransportProtocol::Udp
            && get_u16(segment, TransportProtocol::Udp.checksum_offset()) == Some(0);
        if is_omitted {
            return !self.v6;
        }
        pseudo_header_sum(packet, self.ip, self.v6, self.transport, self.protocol)
            .is_some_and(|pseudo_header| fold(pseudo_header + sum(segment)) == 0xffff)
    }
}

/// `None` if the length is below that of a TCP header without options.
fn tcp_header_length(packet: &[u8], offset: usize) -> Option<usize> {
    let length = usize::from(get_u8(packet, offset + 12)? >> 4) * 4;
    if length < 20 { None } else { Some(length) }
}

fn set_udp_length(packet: &mut [u8], offset: usize) -> Option<()> {
    let length = u16::try_from(packet.len().checked_sub(offset)?).ok()?;
    put_u16(packet, offset + 4, length)
}

fn set_ip_length(packet: &mut [u8], offset: usize, v6: bool, id_increment: u16) -> Option<()> {
    let length = packet.len().checked_sub(offset)?;
    if v6 {
        return put_u16(packet, offset + 4, u16::try_from(length.checked_sub(IPV6_LEN)?).ok()?);
    }
    put_u16(packet, offset + 2, u16::try_from(length).ok()?)?;
    let id = get_u16(packet, offset + 4)?;
    put_u16(packet, offset + 4, id.wrapping_add(id_increment))?;
    let header_length = usize::from(get_u8(packet, offset)? & 0x0f) * 4;
    put_u16(packet, offset + 10, 0)?;
    let value = checksum(sum(packet.get(offset..offset + header_length)?));
    put_u16(packet, offset + 10, value)
}

fn set_transport_checksum(
    packet: &mut [u8],
    ip: usize,
    v6: bool,
    transport: usize,
    protocol: TransportProtocol,
) -> Option<()> {
    put_u16(packet, transport + protocol.checksum_offset(), 0)?;
    let value = checksum(pseudo_header_sum(packet, ip, v6, transport, protocol)? + sum(packet.get(transport..)?));
    // RFC 768: zero stands for no checksum.
    let value = if value == 0 && protocol == TransportProtocol::Udp { 0xffff } else { value };
    put_u16(packet, transport + protocol.checksum_offset(), value)
}

/// The sum of the pseudo-header: addresses, protocol, length of the transport header and payload.
fn pseudo_header_sum(packet: &[u8], ip: usize, v6: bool, transport: usize, protocol: TransportProtocol) -> Option<u64> {
    let addresses = if v6 { packet.get(ip + 8..ip + 40)? } else { packet.get(ip + 12..ip + 20)? };
    let length = u32::try_from(packet.len().checked_sub(transport)?).ok()?;
    Some(sum(addresses) + u64::from(protocol.number()) + u64::from(length))
}

/// Completes a partial checksum: that of the bytes from `start`, in the field at `start + offset`.
pub(super) fn complete_checksum(packet: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let value = checksum(sum(packet.get(start..)?));
    let value = if value == 0 && offset == TransportProtocol::Udp.checksum_offset() { 0xffff } else { value };
    put_u16(packet, start + offset, value)
}

/// The source and destination address of an IP packet.
pub(crate) fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match get_u8(packet, 0)? >> 4 {
        4 => {
            let address = |at: usize| packet.get(at..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets));
            Some((address(12)?.into(), address(16)?.into()))
        }
        6 => {
            let address = |at: usize| packet.get(at..)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets));
            Some((address(8)?.into(), address(24)?.into()))
        }
        _ => None,
    }
}

/// Extends the IPv4 header of a packet by `length` bytes of no-operation options. The packet starts at `length` in
/// `buffer`, and at 0 afterwards. `length` must be a multiple of 4.
pub(super) fn insert_ipv4_options(buffer: &mut [u8], length: usize) -> Option<()> {
    shift(buffer, length..length + IPV4_LEN, 0)?;
    buffer.get_mut(IPV4_LEN..IPV4_LEN + length)?.fill(NO_OPERATION);
    let header_words = u8::try_from((IPV4_LEN + length) / 4).ok()?;
    put_u8(buffer, 0, 0x40 | header_words)?;
    set_ip_length(buffer, 0, false, 0)
}
