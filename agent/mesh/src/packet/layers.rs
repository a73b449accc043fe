//! Where the parts of an IP packet lie, and the fields that a change of its length changes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::bytes::{get_u8, get_u16, put_u8, put_u16};
use super::checksum::{checksum, fold, sum};
use super::virtio;

/// Bytes of a header of UDP, VXLAN (RFC 7348), Ethernet.
pub(super) const UDP: usize = 8;
const VXLAN: usize = 8;
const ETHERNET: usize = 14;
pub(super) const VXLAN_PORT: u16 = 4789;
const DONT_FRAGMENT: u16 = 0x4000;

/// Flags of TCP, in the byte at 13.
pub(super) const FIN: u8 = 0x01;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const CWR: u8 = 0x80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Where its header has the checksum.
    pub(super) const fn checksum_at(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// Where the parts of a packet lie, from its beginning. A packet in a VXLAN has an outer IP header at 0 as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layers {
    /// The outer UDP header, in a VXLAN.
    pub(super) outer: Option<usize>,
    /// The (inner) IP header.
    pub(super) ip: usize,
    pub(super) v6: bool,
    pub(super) transport: Transport,
    /// The header of TCP or UDP.
    pub(super) at: usize,
    pub(super) payload: usize,
}

/// An IP header without options, extensions and fragments, whose length is the packet's and whose checksum is right.
struct Ip {
    v6: bool,
    protocol: u8,
    /// Where what it carries begins.
    next: usize,
}

fn ip(packet: &[u8], at: usize) -> Option<Ip> {
    let rest = packet.get(at..)?;
    match get_u8(rest, 0)? {
        0x45 if usize::from(get_u16(rest, 2)?) == rest.len()
            && get_u16(rest, 6)? & !DONT_FRAGMENT == 0
            && fold(sum(rest.get(..20)?)) == 0xffff =>
        {
            Some(Ip { v6: false, protocol: get_u8(rest, 9)?, next: at + 20 })
        }
        first if first >> 4 == 6 && usize::from(get_u16(rest, 4)?) + 40 == rest.len() => {
            Some(Ip { v6: true, protocol: get_u8(rest, 6)?, next: at + 40 })
        }
        _ => None,
    }
}

impl Layers {
    /// Of a packet that may be merged with others, which is a plain one; TCP in a VXLAN is looked for if `tunnels`.
    pub(super) fn of(packet: &[u8], tunnels: bool) -> Option<Self> {
        let outer = ip(packet, 0)?;
        if tunnels && !outer.v6 && outer.protocol == Transport::Udp.number() {
            let inner = Self::in_vxlan(packet, outer.next);
            if inner.is_some() {
                return inner;
            }
        }
        Self::plain(packet, None, 0, &outer)
    }

    /// Whether it is a VXLAN of whose content these layers do not tell, though `tunnels` are looked into.
    pub(super) fn hides_more(&self, packet: &[u8], tunnels: bool) -> bool {
        let port = get_u16(packet, self.at + 2);
        tunnels && self.outer.is_none() && self.transport == Transport::Udp && port == Some(VXLAN_PORT)
    }

    fn in_vxlan(packet: &[u8], udp: usize) -> Option<Self> {
        let vxlan = udp + UDP;
        // A VNI and nothing else; no checksum that would have to be made anew.
        let plain = get_u16(packet, udp + 2)? == VXLAN_PORT
            && usize::from(get_u16(packet, udp + 4)?) + udp == packet.len()
            && get_u16(packet, udp + 6)? == 0
            && get_u16(packet, vxlan)? == 0x0800
            && get_u16(packet, vxlan + 2)? == 0;
        let at = vxlan + VXLAN + ETHERNET;
        let kind = get_u16(packet, at - 2)?;
        let inner = ip(packet, at)?;
        let tcp = inner.protocol == Transport::Tcp.number() && kind == if inner.v6 { 0x86dd } else { 0x0800 };
        if plain && tcp { Self::plain(packet, Some(udp), at, &inner) } else { None }
    }

    fn plain(packet: &[u8], outer: Option<usize>, ip: usize, header: &Ip) -> Option<Self> {
        let Ip { v6, protocol, next: at } = *header;
        let (transport, length) = if protocol == Transport::Tcp.number() {
            (Transport::Tcp, tcp_length(packet, at)?)
        } else if protocol == Transport::Udp.number() && usize::from(get_u16(packet, at + 4)?) + at == packet.len() {
            (Transport::Udp, UDP)
        } else {
            return None;
        };
        let payload = at + length;
        if payload > packet.len() {
            return None;
        }
        Some(Self { outer, ip, v6, transport, at, payload })
    }

    /// Of a large packet of the kernel's, which says itself where its parts lie; they are checked to be within the packet and
    /// in order.
    pub(super) fn given(header: &virtio::Header, packet: &[u8]) -> Option<Self> {
        let at = usize::from(header.checksum_start);
        let (outer, ip) = if header.is_tunnel() {
            let (udp, ip) = (usize::from(header.outer_transport), usize::from(header.inner_network));
            (Some(udp).filter(|udp| *udp >= 20 && udp + UDP <= ip), ip)
        } else {
            (None, 0)
        };
        let v6 = match get_u8(packet, ip)? >> 4 {
            4 => false,
            6 => true,
            _ => return None,
        };
        let transport = if header.is_udp() { Transport::Udp } else { Transport::Tcp };
        let length = match transport {
            Transport::Tcp => tcp_length(packet, at)?,
            Transport::Udp => UDP,
        };
        let layers = Self { outer, ip, v6, transport, at, payload: at + length };
        let smallest = if v6 { 40 } else { 20 };
        let sound = header.is_tunnel() == outer.is_some() && ip + smallest <= at && layers.payload <= packet.len();
        if sound { Some(layers) } else { None }
    }

    /// Sets the lengths and the checksums of IP and outer UDP to a packet's length, and the numbers (ids) of IPv4 to
    /// `number` above what they are.
    pub(super) fn set_lengths(&self, packet: &mut [u8], number: u16) -> Option<()> {
        if let Some(udp) = self.outer {
            let v6 = get_u8(packet, 0)? >> 4 == 6;
            set_ip(packet, 0, v6, number)?;
            let length = u16::try_from(packet.len().checked_sub(udp)?).ok()?;
            put_u16(packet, udp + 4, length)?;
        }
        set_ip(packet, self.ip, self.v6, number)?;
        if self.transport == Transport::Udp {
            let length = u16::try_from(packet.len().checked_sub(self.at)?).ok()?;
            put_u16(packet, self.at + 4, length)?;
        }
        Some(())
    }

    /// Computes the checksum of TCP or UDP, and then that of the outer UDP header if it has one.
    pub(super) fn set_checksums(&self, packet: &mut [u8]) -> Option<()> {
        set_transport(packet, self.ip, self.v6, self.at, self.transport)?;
        match self.outer {
            Some(udp) if get_u16(packet, udp + 6)? != 0 => {
                let v6 = get_u8(packet, 0)? >> 4 == 6;
                set_transport(packet, 0, v6, udp, Transport::Udp)
            }
            Some(_) | None => Some(()),
        }
    }

    /// Sets the checksum of TCP or UDP to that of the pseudo-header alone: the kernel completes it.
    pub(super) fn set_partial_checksum(&self, packet: &mut [u8]) -> Option<()> {
        let partial = fold(pseudo(packet, self.ip, self.v6, self.at, self.transport)?);
        put_u16(packet, self.at + self.transport.checksum_at(), partial)
    }

    /// Whether the checksum of TCP or UDP is right; over IPv4 UDP may have none.
    pub(super) fn is_intact(&self, packet: &[u8]) -> bool {
        let Some(content) = packet.get(self.at..) else { return false };
        let none = self.transport == Transport::Udp && get_u16(content, Transport::Udp.checksum_at()) == Some(0);
        if none {
            return !self.v6;
        }
        pseudo(packet, self.ip, self.v6, self.at, self.transport)
            .is_some_and(|pseudo| fold(pseudo + sum(content)) == 0xffff)
    }
}

fn tcp_length(packet: &[u8], at: usize) -> Option<usize> {
    let length = usize::from(get_u8(packet, at + 12)? >> 4) * 4;
    if length < 20 { None } else { Some(length) }
}

fn set_ip(packet: &mut [u8], at: usize, v6: bool, number: u16) -> Option<()> {
    let length = packet.len().checked_sub(at)?;
    if v6 {
        return put_u16(packet, at + 4, u16::try_from(length.checked_sub(40)?).ok()?);
    }
    put_u16(packet, at + 2, u16::try_from(length).ok()?)?;
    let id = get_u16(packet, at + 4)?;
    put_u16(packet, at + 4, id.wrapping_add(number))?;
    let header = usize::from(get_u8(packet, at)? & 0x0f) * 4;
    put_u16(packet, at + 10, 0)?;
    let value = checksum(sum(packet.get(at..at + header)?));
    put_u16(packet, at + 10, value)
}

fn set_transport(packet: &mut [u8], ip: usize, v6: bool, at: usize, transport: Transport) -> Option<()> {
    put_u16(packet, at + transport.checksum_at(), 0)?;
    let value = checksum(pseudo(packet, ip, v6, at, transport)? + sum(packet.get(at..)?));
    // RFC 768: zero says that there is none.
    let value = if value == 0 && transport == Transport::Udp { 0xffff } else { value };
    put_u16(packet, at + transport.checksum_at(), value)
}

/// The sum of the pseudo-header: addresses, protocol, length from the transport header on.
fn pseudo(packet: &[u8], ip: usize, v6: bool, at: usize, transport: Transport) -> Option<u64> {
    let addresses = if v6 { packet.get(ip + 8..ip + 40)? } else { packet.get(ip + 12..ip + 20)? };
    let length = u32::try_from(packet.len().checked_sub(at)?).ok()?;
    Some(sum(addresses) + u64::from(transport.number()) + u64::from(length))
}

/// Computes the checksum that the kernel left to be completed: over everything from `start`, at `start + offset`.
pub(super) fn complete(packet: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let value = checksum(sum(packet.get(start..)?));
    let value = if value == 0 && offset == Transport::Udp.checksum_at() { 0xffff } else { value };
    put_u16(packet, start + offset, value)
}

/// Source and destination of an IP packet.
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

/// Puts `by` bytes of options that say nothing (NOP) into the IPv4 header at 0, whose packet begins `by` bytes further on in
/// `room`. `by` is a multiple of 4.
pub(super) fn widen_ipv4(room: &mut [u8], by: usize) -> Option<()> {
    super::bytes::shift(room, by..by + 20, 0)?;
    room.get_mut(20..20 + by)?.fill(1);
    let words = u8::try_from((20 + by) / 4).ok()?;
    put_u8(room, 0, 0x40 | words)?;
    set_ip(room, 0, false, 0)
}
