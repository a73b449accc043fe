//! Ethernet frames with ARP, ICMP echo and UDP, as far as a guest's requests and the answers to them have them.

use std::net::Ipv4Addr;

pub(crate) type Mac = [u8; 6];

pub(crate) const BROADCAST: Mac = [0xff; 6];

/// `ETH_P_IP` and `ETH_P_ARP`.
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const ARP: u16 = 0x0806;
/// `IPPROTO_ICMP` and `IPPROTO_UDP`.
pub(crate) const ICMP: u8 = 1;
pub(crate) const UDP: u8 = 17;
/// The type of an echo request; that of a reply is 0.
pub(crate) const ECHO_REQUEST: u8 = 8;
/// The ports of DHCP.
pub(crate) const SERVER: u16 = 67;
const CLIENT: u16 = 68;
/// The port of DNS.
pub(crate) const DNS: u16 = 53;

/// Hardware type Ethernet, protocol IPv4, and the lengths of their addresses.
const ARP_OF_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: [u8; 2] = [0, 1];
const ARP_REPLY: [u8; 2] = [0, 2];

/// The size of headers in bytes, without options.
const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// The headers of a datagram in an answer.
pub(crate) const HEADERS: usize = IPV4_HEADER + UDP_HEADER;

/// Time to live of answers. They are never forwarded: the guest is on the link.
const TTL: u8 = 64;

/// A packet of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    Arp {
        sender: Ipv4Addr,
        target: Ipv4Addr,
    },
    /// `rest` is what follows type, code and checksum.
    Echo {
        source: Ipv4Addr,
        destination: Ipv4Addr,
        rest: &'a [u8],
    },
    /// A datagram to port 67.
    Dhcp {
        message: &'a [u8],
    },
}

impl<'a> Request<'a> {
    /// Returns the request in a frame with this source, if it is one. Checksums are not compared: those of guests are
    /// filled in later, if at all.
    pub(crate) fn parse(frame: &'a [u8], source: Mac) -> Option<Self> {
        let (_, rest) = frame.split_first_chunk::<6>()?;
        let (from, rest) = rest.split_first_chunk::<6>()?;
        let (kind, packet) = rest.split_first_chunk::<2>()?;
        if *from != source {
            return None;
        }
        match u16::from_be_bytes(*kind) {
            ARP => Self::parse_arp(packet, source),
            IPV4 => Self::parse_ipv4(packet),
            _ => None,
        }
    }

    fn parse_arp(packet: &[u8], source: Mac) -> Option<Self> {
        let packet = packet.strip_prefix(&ARP_OF_IPV4)?.strip_prefix(&ARP_REQUEST)?;
        let (hardware, rest) = packet.split_first_chunk::<6>()?;
        let (sender, rest) = rest.split_first_chunk::<4>()?;
        let (_, rest) = rest.split_first_chunk::<6>()?;
        let (target, _) = rest.split_first_chunk::<4>()?;
        (*hardware == source).then(|| Self::Arp { sender: (*sender).into(), target: (*target).into() })
    }

    fn parse_ipv4(packet: &'a [u8]) -> Option<Self> {
        let Ipv4 { protocol, source, destination, payload } = Ipv4::parse(packet)?;
        match protocol {
            ICMP => {
                let ([kind, code, _, _], rest) = payload.split_first_chunk::<4>()?;
                (*kind == ECHO_REQUEST && *code == 0).then_some(Self::Echo { source, destination, rest })
            }
            UDP => {
                let (_, to, message) = parse_udp(payload)?;
                (to == SERVER).then_some(Self::Dhcp { message })
            }
            _ => None,
        }
    }
}

/// A packet that is no fragment.
struct Ipv4<'a> {
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    payload: &'a [u8],
}

impl<'a> Ipv4<'a> {
    fn parse(packet: &'a [u8]) -> Option<Self> {
        let (header, _) = packet.split_first_chunk::<IPV4_HEADER>()?;
        let [version, _, size @ ..] = *header;
        let [a, b, _, _, flags, offset, _, protocol, _, _, s1, s2, s3, s4, d1, d2, d3, d4] = size;
        let (length, total) = (usize::from(version & 0xf) * 4, usize::from(u16::from_be_bytes([a, b])));
        // More fragments follow, or it is not the first one.
        if version >> 4 != 4 || length < IPV4_HEADER || u16::from_be_bytes([flags, offset]) & 0x3fff != 0 {
            return None;
        }
        let payload = packet.get(length..total)?;
        let (source, destination) = (Ipv4Addr::new(s1, s2, s3, s4), Ipv4Addr::new(d1, d2, d3, d4));
        Some(Self { protocol, source, destination, payload })
    }
}

/// Returns the ports and the payload of a datagram.
fn parse_udp(datagram: &[u8]) -> Option<(u16, u16, &[u8])> {
    let ([f1, f2, t1, t2, l1, l2, _, _], _) = datagram.split_first_chunk::<UDP_HEADER>()?;
    let payload = datagram.get(UDP_HEADER..usize::from(u16::from_be_bytes([*l1, *l2])))?;
    Some((u16::from_be_bytes([*f1, *f2]), u16::from_be_bytes([*t1, *t2]), payload))
}

/// A datagram of a guest, with the addresses and ports of both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram<'a> {
    pub(crate) from: (Ipv4Addr, u16),
    pub(crate) to: (Ipv4Addr, u16),
    pub(crate) payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Returns the datagram in a frame with these addresses, if it is one.
    pub(crate) fn parse(frame: &'a [u8], destination: Mac, source: Mac) -> Option<Self> {
        let packet = frame.strip_prefix(&destination)?.strip_prefix(&source)?.strip_prefix(&IPV4.to_be_bytes())?;
        let packet = Ipv4::parse(packet).filter(|packet| packet.protocol == UDP)?;
        let (from, to, payload) = parse_udp(packet.payload)?;
        Some(Self { from: (packet.source, from), to: (packet.destination, to), payload })
    }
}

/// The addresses of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) from: (Mac, Ipv4Addr),
    pub(crate) to: (Mac, Ipv4Addr),
}

/// Returns the frame that says which MAC address the sender's address has.
pub(crate) fn arp_reply(addresses: Addresses) -> Vec<u8> {
    let Addresses { from, to } = addresses;
    let mut packet = [ARP_OF_IPV4.as_slice(), &ARP_REPLY].concat();
    for (mac, address) in [from, to] {
        packet.extend(mac);
        packet.extend(address.octets());
    }
    ethernet(to.0, from.0, ARP, &packet)
}

/// Returns the frame that answers an echo request with this rest.
pub(crate) fn echo_reply(addresses: Addresses, rest: &[u8]) -> Vec<u8> {
    let checksum = checksum(&[&[0; 4], rest]).to_be_bytes();
    ipv4(addresses, ICMP, &[&[0, 0], checksum.as_slice(), rest].concat())
}

/// Returns the frame of a DHCP server's message.
pub(crate) fn dhcp_reply(addresses: Addresses, message: &[u8]) -> Vec<u8> {
    udp(addresses, (SERVER, CLIENT), message)
}

/// Returns the frame of a datagram from the first port to the second.
pub(crate) fn udp(addresses: Addresses, (from, to): (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(UDP_HEADER + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let [from, to] = [from.to_be_bytes(), to.to_be_bytes()];
    let pseudo = [&addresses.from.1.octets()[..], &addresses.to.1.octets(), &[0, UDP], &length].concat();
    let sum = match checksum(&[&pseudo, &from, &to, &length, &[0, 0], payload]) {
        // Zero would mean that there is none.
        0 => u16::MAX,
        sum => sum,
    };
    ipv4(addresses, UDP, &[&from[..], &to, &length, &sum.to_be_bytes(), payload].concat())
}

fn ipv4(addresses: Addresses, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let Addresses { from, to } = addresses;
    let [a, b] = u16::try_from(IPV4_HEADER + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    // Version and length of the header; not to be fragmented.
    let begin = [0x45, 0, a, b, 0, 0, 0x40, 0, TTL, protocol];
    let ends = [from.1.octets(), to.1.octets()].concat();
    let sum = checksum(&[&begin, &[0, 0], &ends]).to_be_bytes();
    ethernet(to.0, from.0, IPV4, &[&begin, &sum[..], &ends, payload].concat())
}

fn ethernet(destination: Mac, source: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&destination[..], &source, &kind.to_be_bytes(), payload].concat()
}

/// Returns the checksum of IP over parts that have an even number of bytes, except the last.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for chunk in parts.iter().flat_map(|part| part.chunks(2)) {
        let word = match *chunk {
            [a, b] => u16::from_be_bytes([a, b]),
            [a] => u16::from_be_bytes([a, 0]),
            _ => 0,
        };
        sum += u32::from(word);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}
