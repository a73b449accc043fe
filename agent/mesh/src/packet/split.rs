//! Segmentation of a GSO packet into the packets that it stands for. Works in place: the headers of each packet
//! overwrite the end of the previous one, which has been passed on by then, so that no payload is moved.

use super::bytes::{copy, get_u8, get_u32, put_u8, put_u32};
use super::layers::{CWR, FIN, Layers, PSH, TCP_FLAGS, TransportProtocol, complete_checksum};
use super::virtio::VirtioHeader;

/// Maximum length of all headers in bytes: two IPv4 headers with options, UDP, VXLAN, Ethernet with tags, TCP with
/// options, and a reserve.
const HEADERS_MAX: usize = 512;

/// A packet that does not match its virtio header and must be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MalformedPacket;

/// Passes each packet that `packet` stands for to `on_packet`, in order and with correct lengths and checksums.
///
/// # Errors
/// [`MalformedPacket`]; some packets may have been passed on.
pub(crate) fn split(
    header: &VirtioHeader,
    packet: &mut [u8],
    mut on_packet: impl FnMut(&[u8]),
) -> Result<(), MalformedPacket> {
    if header.is_gso() {
        if !header.is_supported() {
            return Err(MalformedPacket);
        }
        return segment(header, packet, &mut on_packet).ok_or(MalformedPacket);
    }
    if header.needs_checksum() {
        let (start, offset) = (usize::from(header.checksum_start), usize::from(header.checksum_offset));
        complete_checksum(packet, start, offset).ok_or(MalformedPacket)?;
    }
    on_packet(packet);
    Ok(())
}

fn segment(header: &VirtioHeader, packet: &mut [u8], on_packet: &mut impl FnMut(&[u8])) -> Option<()> {
    let layers = Layers::from_virtio(header, packet)?;
    let size = usize::from(header.segment_size);
    let length = packet.len().checked_sub(layers.payload)?;
    if size == 0 || length == 0 {
        return None;
    }
    let mut buffer = [0; HEADERS_MAX];
    let headers = buffer.get_mut(..layers.payload)?;
    headers.copy_from_slice(packet.get(..layers.payload)?);
    let count = length.div_ceil(size);
    for number in 0..count {
        let begin = number * size;
        let end = (begin + layers.payload + size).min(packet.len());
        let segment = packet.get_mut(begin..end)?;
        copy(segment, 0, headers)?;
        layers.set_lengths(segment, u16::try_from(number % 0x1_0000).ok()?)?;
        if layers.protocol == TransportProtocol::Tcp {
            let (is_first, is_last) = (number == 0, number + 1 == count);
            update_tcp(segment, layers.transport, begin, is_first, is_last)?;
        }
        layers.set_checksums(segment)?;
        on_packet(segment);
    }
    Some(())
}

/// Sets the TCP fields that differ between segments: the sequence number, and the flags that only the first or the last
/// segment has.
fn update_tcp(segment: &mut [u8], tcp: usize, payload_offset: usize, is_first: bool, is_last: bool) -> Option<()> {
    let sequence = get_u32(segment, tcp + 4)?;
    put_u32(segment, tcp + 4, sequence.wrapping_add(u32::try_from(payload_offset).ok()?))?;
    let mut flags = get_u8(segment, tcp + TCP_FLAGS)?;
    if !is_first {
        flags &= !CWR;
    }
    if !is_last {
        flags &= !(FIN | PSH);
    }
    put_u8(segment, tcp + TCP_FLAGS, flags)
}
