//! Packets from the wire, put together again to a large one for the kernel. What is merged is what the kernel's own GRO merges:
//! packets of one flow that follow each other without a gap, of equal size but for the last, with right checksums, so
//! that cutting the large one gives the packets again (but for ids of IPv4 packets that may not be fragmented).
//!
//! Only neighbours are merged, so that nothing changes its order.

use super::bytes::{copy, get_u8, get_u16, get_u32, put_u8, same, shift};
use super::layers::{ACK, Layers, PSH, Transport, UDP, widen_ipv4};
use super::virtio::{HEADER, Header, Kind};

/// Longest IP packet.
const LONGEST: usize = 65_535;
/// Bytes before the packet: for the header, and for options of the outer IPv4 header.
const ROOM: usize = 64;
/// The kernel takes a packet in a tunnel only if its outer transport header is 34 bytes or more from its beginning
/// (`virtio_net_hdr_tnl_to_skb`, which has an Ethernet header in mind): options that say nothing make it so.
const OPTIONS: usize = 16;
/// Most packets in one.
const MOST: u16 = 128;

/// Which large packets the kernel takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Takes {
    pub(crate) tcp: bool,
    pub(crate) udp: bool,
    /// TCP in a VXLAN.
    pub(crate) tunnel: bool,
}

/// What is being put together.
#[derive(Debug)]
pub(crate) struct Merger {
    takes: Takes,
    /// `ROOM`, then what has been put together, then room for one more packet.
    buffer: Vec<u8>,
    /// Bytes of what has been put together.
    length: usize,
    run: Option<Run>,
}

/// A run of packets that more may be added to.
#[derive(Debug)]
struct Run {
    layers: Layers,
    /// Bytes of payload of its first packet.
    size: usize,
    count: u16,
    /// A shorter one, or one that says so, was the last.
    closed: bool,
}

impl Merger {
    pub(crate) fn new(takes: Takes) -> Self {
        Self { takes, buffer: vec![0; ROOM + 2 * (LONGEST + 1) + ROOM], length: 0, run: None }
    }

    /// Where the next packet is to be put: always enough for any.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.buffer.get_mut(ROOM + self.length..).unwrap_or_default()
    }

    /// Takes the packet of this length that has been put into the room. What cannot be merged with it is written first.
    pub(crate) fn push(&mut self, length: usize, mut write: impl FnMut(&[u8])) {
        let begin = ROOM + self.length;
        let Some(packet) = self.buffer.get(begin..begin + length).filter(|packet| packet.len() <= LONGEST) else {
            return;
        };
        let layers = self.mergeable(packet);
        if let Some(layers) = layers
            && self.join(&layers, length).is_some()
        {
            return;
        }
        if self.length > 0 {
            self.flush(&mut write);
            if shift(&mut self.buffer, begin..begin + length, ROOM).is_none() {
                return;
            }
        }
        self.length = length;
        self.run = layers.map(|layers| {
            let packet = self.buffer.get(ROOM..ROOM + length).unwrap_or_default();
            let closed = is_pushed(packet, &layers);
            Run { layers, size: length - layers.payload, count: 1, closed }
        });
    }

    /// Writes what has been put together.
    pub(crate) fn flush(&mut self, mut write: impl FnMut(&[u8])) {
        let (length, run) = (std::mem::take(&mut self.length), self.run.take());
        if length == 0 {
            return;
        }
        let written = match run {
            Some(run) if run.count > 1 => self.finish(length, &run),
            Some(_) | None => self.head(length, &Header::default(), 0),
        };
        if let Some(bytes) = written {
            write(bytes);
        }
    }

    /// Where the parts of a packet lie that may be merged at all.
    fn mergeable(&self, packet: &[u8]) -> Option<Layers> {
        let layers = Layers::of(packet, self.takes.tunnel)?;
        let taken = match layers.transport {
            Transport::Tcp => {
                let flags = get_u8(packet, layers.at + 13)?;
                self.takes.tcp && flags & !PSH == ACK
            }
            Transport::Udp => self.takes.udp,
        };
        if taken && packet.len() > layers.payload && layers.is_intact(packet) { Some(layers) } else { None }
    }

    /// Adds the packet in the room to the run, if it is its next.
    fn join(&mut self, layers: &Layers, length: usize) -> Option<()> {
        let run = self.run.as_mut().filter(|run| !run.closed && run.layers == *layers && run.count < MOST)?;
        let payload = length.checked_sub(layers.payload)?;
        let whole = self.buffer.get(ROOM..)?;
        let (first, rest) = whole.split_at_checked(self.length)?;
        let packet = rest.get(..length)?;
        // The kernel's lengths have 16 bits, also with the options.
        let fits = payload <= run.size && self.length + payload + OPTIONS <= LONGEST;
        if !fits || !is_next(first, packet, run) {
            return None;
        }
        run.closed = payload < run.size || is_pushed(packet, layers);
        run.count += 1;
        let pushed = is_pushed(packet, layers);
        let begin = ROOM + self.length;
        shift(&mut self.buffer, begin + layers.payload..begin + length, begin)?;
        self.length += payload;
        if pushed {
            let flags = get_u8(self.buffer.get(ROOM..)?, layers.at + 13)?;
            put_u8(self.buffer.get_mut(ROOM..)?, layers.at + 13, flags | PSH)?;
        }
        Some(())
    }

    /// Makes the run one large packet.
    fn finish(&mut self, length: usize, run: &Run) -> Option<&[u8]> {
        let Run { layers, size, .. } = *run;
        let packet = self.buffer.get_mut(ROOM..ROOM + length)?;
        layers.set_lengths(packet, 0)?;
        layers.set_partial_checksum(packet)?;
        let (kind, options) = match (layers.outer, layers.transport) {
            (Some(_), Transport::Tcp | Transport::Udp) => (Kind::Tunnel { v6: layers.v6 }, OPTIONS),
            (None, Transport::Tcp) => (Kind::Tcp { v6: layers.v6 }, 0),
            (None, Transport::Udp) => (Kind::Udp, 0),
        };
        let at = |offset: usize| u16::try_from(offset + options).ok();
        let checksum = (at(layers.at)?, u16::try_from(layers.transport.checksum_at()).ok()?);
        let mut header = Header::large(kind, at(layers.payload)?, u16::try_from(size).ok()?, checksum);
        if let Some(udp) = layers.outer {
            (header.outer_transport, header.inner_network) = (at(udp)?, at(layers.ip)?);
            widen_ipv4(self.buffer.get_mut(ROOM - options..ROOM + length)?, options)?;
        }
        self.head(length, &header, options)
    }

    /// What is written: the header, and the packet, which begins `before` bytes before its place.
    fn head(&mut self, length: usize, header: &Header, before: usize) -> Option<&[u8]> {
        let begin = ROOM.checked_sub(before + HEADER)?;
        copy(&mut self.buffer, begin, &header.bytes())?;
        self.buffer.get(begin..ROOM + length)
    }
}

/// Whether the packet says that what was sent ends with it.
fn is_pushed(packet: &[u8], layers: &Layers) -> bool {
    layers.transport == Transport::Tcp && get_u8(packet, layers.at + 13).is_some_and(|flags| flags & PSH != 0)
}

/// Whether a packet follows those of a run, the headers of whose first are in `first`. Their parts lie alike.
fn is_next(first: &[u8], packet: &[u8], run: &Run) -> bool {
    let Run { layers, count, .. } = run;
    let outer = layers.outer.is_none_or(|udp| {
        same_ip(first, packet, 0, false, *count)
            && same(first, packet, udp..udp + 4)
            && same(first, packet, udp + UDP..layers.ip)
    });
    let at = layers.at;
    let transport = match layers.transport {
        // Ports; acknowledgement and length; window; urgent pointer and options. The checksum is between, and the flags,
        // of which only one may differ.
        Transport::Tcp => {
            same(first, packet, at..at + 4)
                && same(first, packet, at + 8..at + 13)
                && same(first, packet, at + 14..at + 16)
                && same(first, packet, at + 18..layers.payload)
                && follows(first, packet, layers)
        }
        // A checksum or none, as the first.
        Transport::Udp => {
            same(first, packet, at..at + 4)
                && (get_u16(first, at + 6) == Some(0)) == (get_u16(packet, at + 6) == Some(0))
        }
    };
    outer && same_ip(first, packet, layers.ip, layers.v6, *count) && transport
}

fn follows(first: &[u8], packet: &[u8], layers: &Layers) -> bool {
    let so_far = u32::try_from(first.len().saturating_sub(layers.payload)).unwrap_or(u32::MAX);
    let next = get_u32(first, layers.at + 4).map(|sequence| sequence.wrapping_add(so_far));
    next.is_some() && next == get_u32(packet, layers.at + 4)
}

/// Whether two IP headers are of one flow: all but lengths, checksum and id are equal. The ids go up one by one, unless the
/// packets may not be fragmented (RFC 6864: then they mean nothing).
fn same_ip(first: &[u8], packet: &[u8], at: usize, v6: bool, count: u16) -> bool {
    if v6 {
        return same(first, packet, at..at + 4) && same(first, packet, at + 6..at + 40);
    }
    let whole = get_u16(first, at + 6).is_some_and(|flags| flags & 0x4000 != 0);
    let id = get_u16(first, at + 4).map(|id| id.wrapping_add(count));
    same(first, packet, at..at + 2)
        && same(first, packet, at + 6..at + 10)
        && same(first, packet, at + 12..at + 20)
        && (whole || id == get_u16(packet, at + 4))
}
