//! The probes: ICMP echo requests, which the other node's kernel answers even while its agent does not run. Pure.
//!
//! ICMP header (8 bytes) with [`IDENTIFIER`], then the flags and the rest of the token, and in larger ones the sender's
//! UDP port of VXLAN; zeros up to the probe's size. The smallest probe is 32 bytes, which WireGuard does not pad.

use std::net::Ipv4Addr;

/// Size of an IPv4 header without options, in bytes.
const IP_HEADER: usize = 20;

/// Size of an ICMP header, in bytes.
const ICMP_HEADER: usize = 8;

/// Size of the smallest probe, in bytes, including the IP header.
pub(super) const SMALLEST: u16 = 32;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

/// The identifier of our echo requests.
const IDENTIFIER: [u8; 2] = *b"ot";

/// What a probe states about its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// Its last small probe was answered.
    pub(super) small_passes: bool,
    /// Its last full-size probe was answered.
    pub(super) full_passes: bool,
    /// Its full-size probes are not answered.
    pub(super) full_fails: bool,
}

impl Flags {
    const SMALL_PASSES: u8 = 1;
    const FULL_PASSES: u8 = 2;
    const FULL_FAILS: u8 = 4;

    const fn encode(self) -> u8 {
        let Self { small_passes, full_passes, full_fails } = self;
        (if small_passes { Self::SMALL_PASSES } else { 0 })
            | (if full_passes { Self::FULL_PASSES } else { 0 })
            | (if full_fails { Self::FULL_FAILS } else { 0 })
    }

    const fn decode(byte: u8) -> Self {
        Self {
            small_passes: byte & Self::SMALL_PASSES != 0,
            full_passes: byte & Self::FULL_PASSES != 0,
            full_fails: byte & Self::FULL_FAILS != 0,
        }
    }
}

/// A random number of five bytes, by which the reply is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token([u8; 5]);

impl Token {
    pub(super) const fn new(random: u64) -> Self {
        let [a, b, c, d, e, ..] = random.to_le_bytes();
        Self([a, b, c, d, e])
    }
}

/// A received probe, or the reply to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) from: Ipv4Addr,
    /// In bytes, including the IP header.
    pub(super) size: u16,
    pub(super) message: Message,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A probe of the other node, with its UDP port of VXLAN if it has space for that.
    Request(Flags, Option<u16>),
    /// The reply to the probe of this node with this token.
    Reply(Token),
}

/// Encodes a probe of `size` bytes, at least [`SMALLEST`], without its IP header.
pub(super) fn encode(size: u16, token: Token, flags: Flags, vxlan_port: u16) -> Vec<u8> {
    let [sequence_high, sequence_low, rest @ ..] = token.0;
    let mut packet = vec![ECHO_REQUEST, 0, 0, 0];
    packet.extend(IDENTIFIER);
    packet.extend([sequence_high, sequence_low, flags.encode()]);
    packet.extend(rest);
    packet.extend(vxlan_port.to_be_bytes());
    packet.resize(usize::from(size.max(SMALLEST)) - IP_HEADER, 0);
    let checksum = checksum(&packet).to_be_bytes();
    packet.iter_mut().skip(2).zip(checksum).for_each(|(to, byte)| *to = byte);
    packet
}

/// Decodes a received packet with its IP header. `None` if it is no probe, or is damaged.
pub(super) fn decode(packet: &[u8]) -> Option<Received> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let from = Ipv4Addr::from(packet.get(12..16).and_then(|source| <[u8; 4]>::try_from(source).ok())?);
    let icmp = packet.get(header..).filter(|_| header >= IP_HEADER)?;
    let (&[kind, _, _, _, high, low, first, second, flags, ..], Some(rest)) =
        (icmp.first_chunk::<9>()?, icmp.get(ICMP_HEADER + 1..ICMP_HEADER + 4))
    else {
        return None;
    };
    let rest = <[u8; 3]>::try_from(rest).ok()?;
    if [high, low] != IDENTIFIER || checksum(icmp) != 0 {
        return None;
    }
    let [c, d, e] = rest;
    let message = match kind {
        ECHO_REQUEST => {
            let port = icmp.get(ICMP_HEADER + 4..).and_then(<[u8]>::first_chunk);
            let port = port.map(|port| u16::from_be_bytes(*port)).filter(|port| *port != 0);
            Message::Request(Flags::decode(flags), port)
        }
        ECHO_REPLY => Message::Reply(Token([first, second, c, d, e])),
        _ => return None,
    };
    Some(Received { from, size: u16::try_from(packet.len()).ok()?, message })
}

/// The Internet checksum (RFC 1071); 0 for a packet that contains its own.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum = words.fold(0, u32::wrapping_add);
    while let carry @ 1.. = sum >> 16 {
        sum = (sum & 0xffff) + carry;
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(size: u16, kind: u8) -> Option<Received> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 42, 0, 2, 10, 42, 0, 1];
        let flags = Flags { full_fails: true, small_passes: true, ..Flags::default() };
        let mut icmp = encode(size, Token::new(0x0123_4567_89ab), flags, 4789);
        if kind == ECHO_REPLY {
            // As the kernel answers: the type differs, and so does the checksum.
            (icmp[0], icmp[2], icmp[3]) = (kind, 0, 0);
            let sum = checksum(&icmp).to_be_bytes();
            icmp[2..4].copy_from_slice(&sum);
        }
        packet.extend(icmp);
        decode(&packet)
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let from = Ipv4Addr::new(10, 42, 0, 2);
        let flags = Flags { full_fails: true, small_passes: true, ..Flags::default() };
        for size in [SMALLEST, 33, 1440, 8940] {
            let request = Received { from, size, message: Message::Request(flags, (size > 33).then_some(4789)) };
            assert_eq!(received(size, ECHO_REQUEST), Some(request));
            let reply = Received { from, size, message: Message::Reply(Token::new(0x0123_4567_89ab)) };
            assert_eq!(received(size, ECHO_REPLY), Some(reply));
        }
    }

    #[test]
    fn other_packets_are_ignored() {
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0x45; 19]), None);
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 42, 0, 2, 10, 42, 0, 1];
        packet.extend(encode(40, Token::new(1), Flags::default(), 4789));
        assert!(decode(&packet).is_some());
        assert_eq!(decode(&packet[..31]), None);
        packet[30] ^= 1;
        assert_eq!(decode(&packet), None, "the checksum is wrong");
    }
}
