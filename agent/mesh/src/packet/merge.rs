//! Merging of decrypted packets into GSO packets for the kernel. Merges what the kernel's GRO merges: consecutive
//! packets of one flow, of equal size except the last, and with correct checksums, so that segmentation restores the
//! packets (except the IDs of IPv4 packets that must not be fragmented).
//!
//! Packets of several flows are merged at a time. The packets of a flow keep their order, and a packet that cannot be
//! parsed is written after all packets before it.

use super::bytes::{copy, equal_at, get_u8, get_u16, get_u32, put_u8};
use super::layers::{ACK, DONT_FRAGMENT, Layers, PSH, TCP_FLAGS, TransportProtocol, UDP_LEN, insert_ipv4_options};
use super::virtio::{GsoType, HEADER_LEN, VirtioHeader};

/// Maximum length of an IP packet in bytes.
const PACKET_MAX: usize = 65_535;

/// Bytes before a packet in its buffer, for the virtio header and options of the outer IPv4 header.
const HEADROOM: usize = 64;

/// Length of the options that are inserted into the outer IPv4 header of a VXLAN packet, in bytes. The kernel requires
/// the outer transport header at offset 34 or more, which assumes an Ethernet header (`virtio_net_hdr_tnl_to_skb`).
const OPTIONS_LEN: usize = 16;

/// Maximum number of packets merged into one.
const PACKETS_MAX: u16 = 128;

/// Maximum number of flows that are merged at a time.
const RUNS_MAX: usize = 8;

/// Which GSO packets the kernel accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffloadSupport {
    pub(crate) tcp: bool,
    pub(crate) udp: bool,
    /// TCP in VXLAN.
    pub(crate) tunnel: bool,
}

#[derive(Debug)]
pub(crate) struct Merger {
    support: OffloadSupport,
    /// `HEADROOM` bytes, then the next packet.
    next: Vec<u8>,
    /// Oldest first.
    runs: Vec<PacketRun>,
    spare_buffers: Vec<Vec<u8>>,
}

/// Consecutive packets of one flow, to which the next can be added.
#[derive(Debug)]
struct PacketRun {
    /// `HEADROOM` bytes, then the first packet and the payloads of the others.
    buffer: Vec<u8>,
    /// Bytes of the merged packet.
    length: usize,
    /// Those of the first packet.
    layers: Layers,
    /// Bytes of the payload of the first packet.
    segment_size: usize,
    count: u16,
    /// The last packet was shorter or has PSH, so no other can follow.
    is_closed: bool,
}

impl Merger {
    pub(crate) fn new(support: OffloadSupport) -> Self {
        Self { support, next: vec![0; HEADROOM + PACKET_MAX + 1], runs: Vec::new(), spare_buffers: Vec::new() }
    }

    /// The buffer for the next packet; long enough for any.
    pub(crate) fn free_space(&mut self) -> &mut [u8] {
        self.next.get_mut(HEADROOM..).unwrap_or_default()
    }

    /// Adds the packet of this length that was written to [`free_space`](Self::free_space). Packets that must precede
    /// it are written first.
    pub(crate) fn push(&mut self, length: usize, mut write: impl FnMut(&[u8])) {
        let Some(packet) = self.next.get(HEADROOM..HEADROOM + length) else { return };
        let with_tunnels = self.support.tunnel;
        let layers = Layers::parse(packet, with_tunnels);
        let Some(layers) = layers.filter(|layers| !layers.is_unparsed_vxlan(packet, with_tunnels)) else {
            self.flush(&mut write);
            return self.write_alone(length, &mut write);
        };
        let run_index = self.runs.iter().position(|run| run.is_of_flow(packet, &layers));
        let is_mergeable = self.is_mergeable(packet, &layers);
        let is_alone = !is_mergeable || has_psh(packet, &layers);
        if let Some(index) = run_index {
            let is_added =
                is_mergeable && self.runs.get_mut(index).is_some_and(|run| run.add(packet, &layers).is_some());
            if !is_added || self.runs.get(index).is_some_and(|run| run.is_closed) {
                self.write_run(index, &mut write);
            }
            if is_added {
                return;
            }
        }
        if is_alone {
            return self.write_alone(length, &mut write);
        }
        if self.runs.len() >= RUNS_MAX {
            self.write_run(0, &mut write);
        }
        let Some(packet) = self.next.get(HEADROOM..HEADROOM + length) else { return };
        let mut buffer = self.spare_buffers.pop().unwrap_or_else(|| vec![0; HEADROOM + PACKET_MAX + 1]);
        if copy(&mut buffer, HEADROOM, packet).is_some() {
            let segment_size = length.saturating_sub(layers.payload);
            self.runs.push(PacketRun { buffer, length, layers, segment_size, count: 1, is_closed: false });
        }
    }

    /// Writes all packets.
    pub(crate) fn flush(&mut self, mut write: impl FnMut(&[u8])) {
        while !self.runs.is_empty() {
            self.write_run(0, &mut write);
        }
    }

    fn write_run(&mut self, index: usize, write: &mut impl FnMut(&[u8])) {
        let mut run = self.runs.remove(index);
        let bytes = if run.count > 1 {
            run.finish()
        } else {
            prepend_header(&mut run.buffer, run.length, &VirtioHeader::default(), 0)
        };
        if let Some(bytes) = bytes {
            write(bytes);
        }
        self.spare_buffers.push(run.buffer);
    }

    fn write_alone(&mut self, length: usize, write: &mut impl FnMut(&[u8])) {
        if let Some(bytes) = prepend_header(&mut self.next, length, &VirtioHeader::default(), 0) {
            write(bytes);
        }
    }

    /// Whether a packet can be merged with others.
    fn is_mergeable(&self, packet: &[u8], layers: &Layers) -> bool {
        let is_supported = match layers.protocol {
            TransportProtocol::Tcp => {
                let flags = get_u8(packet, layers.transport + TCP_FLAGS);
                self.support.tcp && flags.is_some_and(|flags| flags & !PSH == ACK)
            }
            TransportProtocol::Udp => self.support.udp,
        };
        is_supported && packet.len() > layers.payload && layers.has_valid_checksum(packet)
    }
}

impl PacketRun {
    /// Whether a packet is of the same flow, but not necessarily the next.
    fn is_of_flow(&self, packet: &[u8], layers: &Layers) -> bool {
        let Some(first) = self.buffer.get(HEADROOM..HEADROOM + self.length) else { return false };
        let addresses = |ip: usize, v6: bool| if v6 { ip + 8..ip + 40 } else { ip + 12..ip + 20 };
        let own = &self.layers;
        (own.outer_udp, own.ip, own.v6, own.protocol, own.transport)
            == (layers.outer_udp, layers.ip, layers.v6, layers.protocol, layers.transport)
            && equal_at(first, packet, layers.transport..layers.transport + 4)
            && equal_at(first, packet, addresses(layers.ip, layers.v6))
            && layers.outer_udp.is_none_or(|udp| {
                equal_at(first, packet, addresses(0, false)) && equal_at(first, packet, udp + UDP_LEN..layers.ip)
            })
    }

    /// Adds a packet of the flow; `None` if it is not the next.
    fn add(&mut self, packet: &[u8], layers: &Layers) -> Option<()> {
        let payload = packet.get(layers.payload..)?;
        let first = self.buffer.get(HEADROOM..HEADROOM + self.length)?;
        // The length fields of the merged packet have 16 bits, including the options that may be inserted.
        let fits = payload.len() <= self.segment_size && self.length + payload.len() + OPTIONS_LEN <= PACKET_MAX;
        if self.is_closed
            || self.layers != *layers
            || self.count >= PACKETS_MAX
            || !fits
            || !follows(first, packet, layers, self.count)
        {
            return None;
        }
        copy(&mut self.buffer, HEADROOM + self.length, payload)?;
        let is_pushed = has_psh(packet, layers);
        if is_pushed {
            let flags = get_u8(&self.buffer, HEADROOM + layers.transport + TCP_FLAGS)?;
            put_u8(&mut self.buffer, HEADROOM + layers.transport + TCP_FLAGS, flags | PSH)?;
        }
        self.is_closed = payload.len() < self.segment_size || is_pushed;
        self.count += 1;
        self.length += payload.len();
        Some(())
    }

    /// Completes the GSO packet, and returns it with its virtio header.
    fn finish(&mut self) -> Option<&[u8]> {
        let Self { layers, segment_size, length, .. } = *self;
        let packet = self.buffer.get_mut(HEADROOM..HEADROOM + length)?;
        layers.set_lengths(packet, 0)?;
        layers.set_partial_checksum(packet)?;
        let (gso_type, options) = match (layers.outer_udp, layers.protocol) {
            (Some(_), TransportProtocol::Tcp | TransportProtocol::Udp) => {
                (GsoType::Tunnel { v6: layers.v6 }, OPTIONS_LEN)
            }
            (None, TransportProtocol::Tcp) => (GsoType::Tcp { v6: layers.v6 }, 0),
            (None, TransportProtocol::Udp) => (GsoType::Udp, 0),
        };
        let shifted = |offset: usize| u16::try_from(offset + options).ok();
        let checksum = (shifted(layers.transport)?, u16::try_from(layers.protocol.checksum_offset()).ok()?);
        let mut header =
            VirtioHeader::gso(gso_type, shifted(layers.payload)?, u16::try_from(segment_size).ok()?, checksum);
        if let Some(udp) = layers.outer_udp {
            (header.outer_transport, header.inner_network) = (shifted(udp)?, shifted(layers.ip)?);
            insert_ipv4_options(self.buffer.get_mut(HEADROOM - options..HEADROOM + length)?, options)?;
        }
        prepend_header(&mut self.buffer, length, &header, options)
    }
}

/// Writes the virtio header before the packet of this length, which starts `options` bytes before `HEADROOM`, and
/// returns both.
fn prepend_header<'a>(buffer: &'a mut [u8], length: usize, header: &VirtioHeader, options: usize) -> Option<&'a [u8]> {
    let begin = HEADROOM.checked_sub(options + HEADER_LEN)?;
    copy(buffer, begin, &header.bytes())?;
    buffer.get(begin..HEADROOM + length)
}

/// Whether a packet has the PSH flag: the sender has no more data for now.
fn has_psh(packet: &[u8], layers: &Layers) -> bool {
    layers.protocol == TransportProtocol::Tcp
        && get_u8(packet, layers.transport + TCP_FLAGS).is_some_and(|flags| flags & PSH != 0)
}

/// Whether a packet follows `count` packets that have been merged in `first`, with equal layers.
fn follows(first: &[u8], packet: &[u8], layers: &Layers, count: u16) -> bool {
    let is_outer_equal = layers.outer_udp.is_none_or(|udp| {
        ip_follows(first, packet, 0, false, count)
            && equal_at(first, packet, udp..udp + 4)
            && equal_at(first, packet, udp + UDP_LEN..layers.ip)
    });
    let transport = layers.transport;
    let is_transport_next = match layers.protocol {
        // All fields except sequence number, flags and checksum. Of the flags only PSH may differ.
        TransportProtocol::Tcp => {
            equal_at(first, packet, transport..transport + 4)
                && equal_at(first, packet, transport + 8..transport + TCP_FLAGS)
                && equal_at(first, packet, transport + 14..transport + 16)
                && equal_at(first, packet, transport + 18..layers.payload)
                && is_next_sequence(first, packet, layers)
        }
        // The ports, and whether there is a checksum.
        TransportProtocol::Udp => {
            equal_at(first, packet, transport..transport + 4)
                && (get_u16(first, transport + 6) == Some(0)) == (get_u16(packet, transport + 6) == Some(0))
        }
    };
    is_outer_equal && ip_follows(first, packet, layers.ip, layers.v6, count) && is_transport_next
}

fn is_next_sequence(first: &[u8], packet: &[u8], layers: &Layers) -> bool {
    let merged = u32::try_from(first.len().saturating_sub(layers.payload)).unwrap_or(u32::MAX);
    let next = get_u32(first, layers.transport + 4).map(|sequence| sequence.wrapping_add(merged));
    next.is_some() && next == get_u32(packet, layers.transport + 4)
}

/// Whether an IP header equals that of the first packet except for length, checksum and ID. The IDs must be
/// consecutive, unless fragmentation is forbidden, when they are meaningless (RFC 6864).
fn ip_follows(first: &[u8], packet: &[u8], ip: usize, v6: bool, count: u16) -> bool {
    if v6 {
        return equal_at(first, packet, ip..ip + 4) && equal_at(first, packet, ip + 6..ip + 40);
    }
    let is_id_meaningless = get_u16(first, ip + 6).is_some_and(|flags| flags & DONT_FRAGMENT != 0);
    let next_id = get_u16(first, ip + 4).map(|id| id.wrapping_add(count));
    equal_at(first, packet, ip..ip + 2)
        && equal_at(first, packet, ip + 6..ip + 10)
        && equal_at(first, packet, ip + 12..ip + 20)
        && (is_id_meaningless || next_id == get_u16(packet, ip + 4))
}
