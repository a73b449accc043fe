//! Packets from the wire, put together again to a large one for the kernel. What is merged is what the kernel's own GRO merges:
//! packets of one flow that follow each other without a gap, of equal size but for the last, with right checksums, so
//! that cutting the large one gives the packets again (but for ids of IPv4 packets that may not be fragmented).
//!
//! Packets of several flows may be put together at a time. Those of one flow keep their order; what is not understood waits for
//! all before it.

use super::bytes::{copy, get_u8, get_u16, get_u32, put_u8, same};
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

/// Most flows that are put together at a time.
const RUNS: usize = 8;

/// What is being put together.
#[derive(Debug)]
pub(crate) struct Merger {
    takes: Takes,
    /// `ROOM`, then the packet that comes next.
    room: Vec<u8>,
    /// Oldest first.
    runs: Vec<Run>,
    spare: Vec<Vec<u8>>,
}

/// Packets of one flow that more may be added to.
#[derive(Debug)]
struct Run {
    /// `ROOM`, then the packets, the first with its headers, the others without.
    buffer: Vec<u8>,
    length: usize,
    layers: Layers,
    /// Bytes of payload of its first packet.
    size: usize,
    count: u16,
    /// A shorter one, or one that says so, was the last.
    closed: bool,
}

impl Merger {
    pub(crate) fn new(takes: Takes) -> Self {
        Self { takes, room: vec![0; ROOM + LONGEST + 1], runs: Vec::new(), spare: Vec::new() }
    }

    /// Where the next packet is to be put: always enough for any.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.room.get_mut(ROOM..).unwrap_or_default()
    }

    /// Takes the packet of this length that has been put into the room. What it must not overtake is written first.
    pub(crate) fn push(&mut self, length: usize, mut write: impl FnMut(&[u8])) {
        let Some(packet) = self.room.get(ROOM..ROOM + length) else { return };
        let layers =
            Layers::of(packet, self.takes.tunnel).filter(|layers| !layers.hides_more(packet, self.takes.tunnel));
        let Some(layers) = layers else {
            self.flush(&mut write);
            return self.write_alone(length, &mut write);
        };
        let at = self.runs.iter().position(|run| run.is_flow(packet, &layers));
        let mergeable = self.is_mergeable(packet, &layers);
        let alone = !mergeable || is_pushed(packet, &layers);
        if let Some(at) = at {
            let joined = mergeable && self.runs.get_mut(at).is_some_and(|run| run.join(packet, &layers).is_some());
            if !joined || self.runs.get(at).is_some_and(|run| run.closed) {
                self.write_run(at, &mut write);
            }
            if joined {
                return;
            }
        }
        if alone {
            return self.write_alone(length, &mut write);
        }
        if self.runs.len() >= RUNS {
            self.write_run(0, &mut write);
        }
        let Some(packet) = self.room.get(ROOM..ROOM + length) else { return };
        let mut buffer = self.spare.pop().unwrap_or_else(|| vec![0; ROOM + LONGEST + 1]);
        if copy(&mut buffer, ROOM, packet).is_some() {
            let size = length.saturating_sub(layers.payload);
            self.runs.push(Run { buffer, length, layers, size, count: 1, closed: false });
        }
    }

    /// Writes what has been put together.
    pub(crate) fn flush(&mut self, mut write: impl FnMut(&[u8])) {
        while !self.runs.is_empty() {
            self.write_run(0, &mut write);
        }
    }

    fn write_run(&mut self, at: usize, write: &mut impl FnMut(&[u8])) {
        let mut run = self.runs.remove(at);
        let written =
            if run.count > 1 { run.finish() } else { head(&mut run.buffer, run.length, &Header::default(), 0) };
        if let Some(bytes) = written {
            write(bytes);
        }
        self.spare.push(run.buffer);
    }

    fn write_alone(&mut self, length: usize, write: &mut impl FnMut(&[u8])) {
        if let Some(bytes) = head(&mut self.room, length, &Header::default(), 0) {
            write(bytes);
        }
    }

    /// Whether a packet may be merged with others at all.
    fn is_mergeable(&self, packet: &[u8], layers: &Layers) -> bool {
        let taken = match layers.transport {
            Transport::Tcp => self.takes.tcp && get_u8(packet, layers.at + 13).is_some_and(|flags| flags & !PSH == ACK),
            Transport::Udp => self.takes.udp,
        };
        taken && packet.len() > layers.payload && layers.is_intact(packet)
    }
}

impl Run {
    /// Whether a packet is of this flow, if not the next of it.
    fn is_flow(&self, packet: &[u8], layers: &Layers) -> bool {
        let Some(first) = self.buffer.get(ROOM..ROOM + self.length) else { return false };
        let ends = |ip: usize, v6: bool| if v6 { ip + 8..ip + 40 } else { ip + 12..ip + 20 };
        let mine = &self.layers;
        (mine.outer, mine.ip, mine.v6, mine.transport, mine.at)
            == (layers.outer, layers.ip, layers.v6, layers.transport, layers.at)
            && same(first, packet, layers.at..layers.at + 4)
            && same(first, packet, ends(layers.ip, layers.v6))
            && layers
                .outer
                .is_none_or(|udp| same(first, packet, ends(0, false)) && same(first, packet, udp + UDP..layers.ip))
    }

    /// Adds a packet of the flow, if it is the next.
    fn join(&mut self, packet: &[u8], layers: &Layers) -> Option<()> {
        let payload = packet.get(layers.payload..)?;
        let first = self.buffer.get(ROOM..ROOM + self.length)?;
        // The kernel's lengths have 16 bits, also with the options.
        let fits = payload.len() <= self.size && self.length + payload.len() + OPTIONS <= LONGEST;
        if self.closed || self.layers != *layers || self.count >= MOST || !fits || !is_next(first, packet, self) {
            return None;
        }
        copy(&mut self.buffer, ROOM + self.length, payload)?;
        let pushed = is_pushed(packet, layers);
        if pushed {
            let flags = get_u8(&self.buffer, ROOM + layers.at + 13)?;
            put_u8(&mut self.buffer, ROOM + layers.at + 13, flags | PSH)?;
        }
        self.closed = payload.len() < self.size || pushed;
        self.count += 1;
        self.length += payload.len();
        Some(())
    }

    /// Makes the run one large packet.
    fn finish(&mut self) -> Option<&[u8]> {
        let Self { layers, size, length, .. } = *self;
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
        head(&mut self.buffer, length, &header, options)
    }
}

/// What is written: the header, and the packet of this length, which begins `before` bytes before its place.
fn head<'a>(buffer: &'a mut [u8], length: usize, header: &Header, before: usize) -> Option<&'a [u8]> {
    let begin = ROOM.checked_sub(before + HEADER)?;
    copy(buffer, begin, &header.bytes())?;
    buffer.get(begin..ROOM + length)
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
