//! A large packet of the kernel's, cut into the packets that it stands for. Cut in place: each packet's headers are written
//! over the end of the one before, which has been handed on by then, so that no payload is moved.

use super::bytes::{copy, get_u8, get_u32, put_u8, put_u32};
use super::layers::{self, CWR, FIN, Layers, PSH, Transport};
use super::virtio::Header;

/// Most bytes of all headers together: two of IPv4 with options, UDP, VXLAN, Ethernet with tags, TCP with options, and room.
const HEADERS: usize = 512;

/// A packet that is not what its header says. It can only be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Hands on each packet that `packet` stands for, complete with lengths and checksums, in order.
///
/// # Errors
/// [`Malformed`]; some packets may have been handed on.
pub(crate) fn split(header: &Header, packet: &mut [u8], mut each: impl FnMut(&[u8])) -> Result<(), Malformed> {
    if header.is_large() {
        if !header.is_known() {
            return Err(Malformed);
        }
        return split_large(header, packet, &mut each).ok_or(Malformed);
    }
    if header.needs_checksum() {
        let (start, offset) = (usize::from(header.checksum_start), usize::from(header.checksum_offset));
        layers::complete(packet, start, offset).ok_or(Malformed)?;
    }
    each(packet);
    Ok(())
}

fn split_large(header: &Header, packet: &mut [u8], each: &mut impl FnMut(&[u8])) -> Option<()> {
    let layers = Layers::given(header, packet)?;
    let size = usize::from(header.segment);
    let length = packet.len().checked_sub(layers.payload)?;
    if size == 0 || length == 0 {
        return None;
    }
    let mut room = [0; HEADERS];
    let template = room.get_mut(..layers.payload)?;
    template.copy_from_slice(packet.get(..layers.payload)?);
    let count = length.div_ceil(size);
    for number in 0..count {
        let begin = number * size;
        let end = (begin + layers.payload + size).min(packet.len());
        let part = packet.get_mut(begin..end)?;
        copy(part, 0, template)?;
        layers.set_lengths(part, u16::try_from(number % 0x1_0000).ok()?)?;
        if layers.transport == Transport::Tcp {
            number_tcp(part, layers.at, begin, (number == 0, number + 1 == count))?;
        }
        layers.set_checksums(part)?;
        each(part);
    }
    Some(())
}

/// Sets what differs between the packets of one large TCP packet: the sequence number, and the flags that only the first or
/// the last has.
fn number_tcp(packet: &mut [u8], at: usize, offset: usize, (first, last): (bool, bool)) -> Option<()> {
    let sequence = get_u32(packet, at + 4)?;
    put_u32(packet, at + 4, sequence.wrapping_add(u32::try_from(offset).ok()?))?;
    let mut flags = get_u8(packet, at + 13)?;
    if !first {
        flags &= !CWR;
    }
    if !last {
        flags &= !(FIN | PSH);
    }
    put_u8(packet, at + 13, flags)
}
