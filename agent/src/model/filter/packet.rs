//! A packet, and what rules read of it. Numbers are from linux/netfilter/nf_tables.h, linux/netfilter.h and
//! linux/netfilter/nf_conntrack_common.h.

use std::net::Ipv4Addr;

use super::Family;
use super::expression::Field;
use super::value::{Byte, Bytes, Mark};

/// A link, as rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub name: String,
    pub index: u32,
    pub group: Option<u32>,
    /// The bridge that it is a port of.
    pub bridge: Option<String>,
}

/// A packet at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub content: Content,
    /// Absent if the node sends it.
    pub input: Option<Device>,
    /// Absent if it is not known yet, or if the node receives it.
    pub output: Option<Device>,
    pub connection: Connection,
    /// It traverses the IPv4 filter although it is bridged.
    pub is_bridged: bool,
    /// The address of the node that is concerned.
    pub local: Option<Ipv4Addr>,
}

/// What a packet contains. Addresses that may be any are unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Ipv4 { source: Option<Ipv4Addr>, destination: Option<Ipv4Addr>, transport: Transport },
    Arp { is_reply: bool, sender: Option<Ipv4Addr>, target: Option<Ipv4Addr> },
}

/// The protocol above IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Echo { is_reply: bool },
    Tcp { source: u16, destination: u16, flags: u8 },
    Udp { source: u16, destination: u16 },
}

/// The connection that a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// It begins the connection.
    pub is_new: bool,
    pub is_reply: bool,
    /// The source of the connection is translated.
    pub has_source_nat: bool,
    /// Source and destination of the first packet.
    pub source: Option<Ipv4Addr>,
    pub destination: Option<Ipv4Addr>,
}

/// Whether the kernel knows the connection of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    Tracked,
    /// Not yet, or not at this hook.
    None,
    /// A rule exempted the packet.
    Exempt,
    Unknown,
}

/// A packet as a rule sees it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub packet: &'a Packet,
    /// Of the hook; at a link, of the table.
    pub family: Family,
    pub tracking: Tracking,
    pub mark: Mark,
    pub connection_mark: Mark,
}

const ETH_P_IP: u16 = 0x0800;
const ETH_P_ARP: u16 = 0x0806;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// `NF_CT_STATE_INVALID_BIT`, `NF_CT_STATE_BIT`, `NF_CT_STATE_UNTRACKED_BIT`.
const INVALID: u32 = 1;
const ESTABLISHED: u32 = 2;
const NEW: u32 = 8;
const UNTRACKED: u32 = 64;
/// `IPS_SEEN_REPLY`, `IPS_CONFIRMED`, `IPS_SRC_NAT`, `IPS_DST_NAT`.
const SEEN_REPLY: u32 = 2;
const CONFIRMED: u32 = 8;
const SOURCE_NAT: u32 = 16;
const DESTINATION_NAT: u32 = 32;
/// `RTN_UNICAST`, `RTN_LOCAL`.
const UNICAST: u32 = 1;
const LOCAL: u32 = 2;

impl Transport {
    /// The number of the protocol.
    pub fn protocol(self) -> u8 {
        match self {
            Self::Echo { .. } => ICMP,
            Self::Tcp { .. } => TCP,
            Self::Udp { .. } => UDP,
        }
    }

    /// Source and destination port.
    pub fn ports(self) -> Option<(u16, u16)> {
        match self {
            Self::Echo { .. } => None,
            Self::Tcp { source, destination, flags: _ } | Self::Udp { source, destination } => {
                Some((source, destination))
            }
        }
    }

    fn header(self) -> Bytes {
        let mut header = Bytes::default();
        match self {
            Self::Echo { is_reply } => {
                header.extend([Byte::new(if is_reply { 0 } else { 8 }), Byte::new(0)]);
                header.extend([Byte::UNKNOWN; 6]);
            }
            Self::Tcp { source, destination, flags } => {
                header.extend(ports(source, destination));
                header.extend([Byte::UNKNOWN; 9]);
                header.extend([Byte::new(flags)]);
                header.extend([Byte::UNKNOWN; 6]);
            }
            Self::Udp { source, destination } => {
                header.extend(ports(source, destination));
                header.extend([Byte::UNKNOWN; 4]);
            }
        }
        header
    }
}

fn ports(source: u16, destination: u16) -> impl Iterator<Item = Byte> {
    [source, destination].into_iter().flat_map(u16::to_be_bytes).map(Byte::new)
}

fn address(address: Option<Ipv4Addr>) -> [Byte; 4] {
    address.map_or([Byte::UNKNOWN; 4], |address| address.octets().map(Byte::new))
}

fn number(value: u32) -> Bytes {
    Bytes::known(&value.to_ne_bytes())
}

impl Content {
    fn ether_type(self) -> u16 {
        match self {
            Self::Ipv4 { .. } => ETH_P_IP,
            Self::Arp { .. } => ETH_P_ARP,
        }
    }

    fn network_header(self) -> Bytes {
        let mut header = Bytes::default();
        match self {
            Self::Ipv4 { source, destination, transport } => {
                header.extend([Byte::new(0x45), Byte::new(0)]);
                header.extend([Byte::UNKNOWN; 4]);
                // It is not fragmented.
                header.extend(Bytes::unknown(2).masked(&[0xe0, 0], &[0, 0]).iter());
                header.extend([Byte::UNKNOWN, Byte::new(transport.protocol()), Byte::UNKNOWN, Byte::UNKNOWN]);
                header.extend(address(source).into_iter().chain(address(destination)));
            }
            Self::Arp { is_reply, sender, target } => {
                let operation = if is_reply { 2 } else { 1 };
                header.extend([0, 1, 8, 0, 6, 4, 0, operation].map(Byte::new));
                header.extend([Byte::UNKNOWN; 6].into_iter().chain(address(sender)));
                header.extend([Byte::UNKNOWN; 6].into_iter().chain(address(target)));
            }
        }
        header
    }

    /// The protocol above IPv4, if it is IPv4.
    pub fn transport(self) -> Option<Transport> {
        match self {
            Self::Ipv4 { transport, .. } => Some(transport),
            Self::Arp { .. } => None,
        }
    }
}

impl View<'_> {
    /// Returns what a field of the packet has; `None` if the rule ends because it does not exist.
    pub fn load(&self, field: Field) -> Option<Bytes> {
        match field {
            Field::Meta(key) => self.meta(key),
            Field::Payload { base, offset, length } => self.payload(base, offset, length),
            Field::Connection { key, is_reply } => self.connection(key, is_reply),
            Field::Fib { result, flags } => Some(self.fib(result, flags)),
        }
    }

    fn is_frame(&self) -> bool {
        match self.family {
            Family::Bridge | Family::Netdev => true,
            Family::Ip | Family::Inet | Family::Arp => false,
        }
    }

    fn meta(&self, key: u32) -> Option<Bytes> {
        let Packet { content, input, output, .. } = self.packet;
        let index = |device: &Option<Device>| number(device.as_ref().map_or(0, |device| device.index));
        let name = |device: &Option<Device>| Bytes::name(device.as_ref().map_or("", |device| &device.name));
        let group = |device: &Option<Device>| Some(device.as_ref()?.group.map_or(Bytes::unknown(4), number));
        let bridge = |device: &Option<Device>| Some(Bytes::name(device.as_ref()?.bridge.as_deref()?));
        const ETHERNET: u16 = 1;
        let kind = |device: &Option<Device>| device.as_ref().map(|_| Bytes::known(&ETHERNET.to_ne_bytes()));
        match key {
            1 => Some(Bytes::known(&content.ether_type().to_be_bytes())),
            3 => Some(self.mark.bytes()),
            4 => Some(index(input)),
            5 => Some(index(output)),
            6 => Some(name(input)),
            7 => Some(name(output)),
            8 => kind(input),
            9 => kind(output),
            // Of the socket: the node's own packets have none that is known.
            10 | 11 if input.is_some() => None,
            15 => Some(Bytes::known(&[self.protocol_family()])),
            16 => Some(Bytes::known(&[content.transport()?.protocol()])),
            17 => bridge(input),
            18 => bridge(output),
            // `PACKET_HOST`.
            19 if !self.is_frame() => Some(Bytes::known(&[0])),
            21 => group(input),
            22 => group(output),
            _ => Some(Bytes::unknown(16)),
        }
    }

    /// `NFPROTO_*`.
    fn protocol_family(&self) -> u8 {
        match self.family {
            Family::Ip | Family::Inet => 2,
            Family::Arp => 3,
            Family::Netdev => 5,
            Family::Bridge => 7,
        }
    }

    fn payload(&self, base: u32, offset: usize, length: usize) -> Option<Bytes> {
        let content = self.packet.content;
        match base {
            0 => {
                let mut header = Bytes::unknown(12);
                header.extend(content.ether_type().to_be_bytes().map(Byte::new));
                Some(header.slice(offset, length))
            }
            1 => Some(content.network_header().slice(offset, length)),
            2 => Some(content.transport()?.header().slice(offset, length)),
            _ => Some(Bytes::unknown(length)),
        }
    }

    /// `NF_CT_STATE_*`.
    pub fn state(&self) -> Option<u32> {
        match self.tracking {
            Tracking::Tracked if self.packet.connection.is_new => Some(NEW),
            Tracking::Tracked => Some(ESTABLISHED),
            Tracking::None => Some(INVALID),
            Tracking::Exempt => Some(UNTRACKED),
            Tracking::Unknown => None,
        }
    }

    fn connection(&self, key: u32, is_reply: Option<bool>) -> Option<Bytes> {
        const STATE: u32 = 0;
        if key == STATE {
            return Some(self.state().map_or(Bytes::unknown(4), number));
        }
        match self.tracking {
            Tracking::Tracked => {}
            Tracking::None | Tracking::Exempt => return None,
            Tracking::Unknown => return Some(Bytes::unknown(16)),
        }
        let Connection { is_new, has_source_nat, source, destination, .. } = self.packet.connection;
        let of_direction = |original, reply| match is_reply {
            Some(true) if has_source_nat => None,
            Some(true) => reply,
            Some(false) | None => original,
        };
        match key {
            1 => Some(Bytes::known(&[u8::from(self.packet.connection.is_reply)])),
            2 => Some(self.status(is_new, has_source_nat)),
            3 => Some(self.connection_mark.bytes()),
            // The source address, of a direction.
            8 | 19 => Some(Bytes::default()).map(|mut bytes| {
                bytes.extend(address(of_direction(source, destination)));
                bytes
            }),
            9 | 20 if is_reply != Some(true) || !has_source_nat => Some(Bytes::default()).map(|mut bytes| {
                bytes.extend(address(of_direction(destination, source)));
                bytes
            }),
            10 => Some(Bytes::known(&[self.packet.content.transport()?.protocol()])),
            16 => Some(Bytes::known(&[0; 2])),
            _ => Some(Bytes::unknown(16)),
        }
    }

    /// `IPS_*`, as far as it is known.
    fn status(&self, is_new: bool, has_source_nat: bool) -> Bytes {
        let known = SEEN_REPLY | CONFIRMED | SOURCE_NAT | DESTINATION_NAT;
        let mut status = if is_new { 0 } else { SEEN_REPLY | CONFIRMED };
        if has_source_nat {
            status |= SOURCE_NAT;
        }
        Bytes::unknown(4).replaced(&known.to_ne_bytes(), &number(status))
    }

    /// Whether an address is one of the node.
    pub fn is_local(&self, address: Ipv4Addr) -> bool {
        self.packet.local == Some(address)
    }

    fn fib(&self, result: u32, flags: u32) -> Bytes {
        const SOURCE: u32 = 1;
        const PRESENT: u32 = 32;
        const INDEX: u32 = 1;
        const NAME: u32 = 2;
        const TYPE: u32 = 3;
        let Content::Ipv4 { source, destination, .. } = self.packet.content else { return Bytes::unknown(16) };
        let is_source = flags & SOURCE != 0;
        if result == TYPE {
            let address = if is_source { source } else { destination };
            return address
                .map_or(Bytes::unknown(4), |address| number(if self.is_local(address) { LOCAL } else { UNICAST }));
        }
        // Packets of ours are received on the link that leads to their source.
        match &self.packet.input {
            Some(_) if flags & PRESENT != 0 && is_source => number(1),
            Some(input) if is_source && !self.is_frame() && !self.packet.is_bridged => match result {
                INDEX => number(input.index),
                NAME => Bytes::name(&input.name),
                _ => Bytes::unknown(16),
            },
            Some(_) | None => Bytes::unknown(16),
        }
    }
}
