//! The header that a packet has on the TUN device: `struct virtio_net_hdr_v1_hash_tunnel` of the kernel's
//! `include/uapi/linux/virtio_net.h`, in the machine's byte order. Its first ten bytes are as old as TUN offloads, the last
//! four say where an inner packet lies; what is between is unused.

/// Bytes of it.
pub(crate) const HEADER: usize = 24;

const NEEDS_CHECKSUM: u8 = 1;

const TCPV4: u8 = 1;
const TCPV6: u8 = 4;
const UDP_L4: u8 = 5;
const UDP_TUNNEL_IPV4: u8 = 0x20;
const UDP_TUNNEL_IPV6: u8 = 0x40;
const ECN: u8 = 0x80;
const TUNNEL: u8 = UDP_TUNNEL_IPV4 | UDP_TUNNEL_IPV6;

/// What the kernel says about a packet, or we to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    flags: u8,
    kind: u8,
    /// Bytes of all headers of the packet: a hint, not to be trusted.
    header_length: u16,
    /// Bytes of payload of each packet but the last.
    pub(super) segment: u16,
    pub(super) checksum_start: u16,
    pub(super) checksum_offset: u16,
    pub(super) outer_transport: u16,
    pub(super) inner_network: u16,
}

/// What kind of large packet one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp {
        v6: bool,
    },
    Udp,
    /// TCP in UDP over IPv4.
    Tunnel {
        v6: bool,
    },
}

impl Header {
    pub(crate) fn parse(bytes: &[u8; HEADER]) -> Self {
        let [flags, kind, a0, a1, b0, b1, c0, c1, d0, d1, _, _, _, _, _, _, _, _, _, _, e0, e1, f0, f1] = *bytes;
        let number = |low, high| u16::from_ne_bytes([low, high]);
        Self {
            flags,
            kind,
            header_length: number(a0, a1),
            segment: number(b0, b1),
            checksum_start: number(c0, c1),
            checksum_offset: number(d0, d1),
            outer_transport: number(e0, e1),
            inner_network: number(f0, f1),
        }
    }

    pub(crate) fn bytes(&self) -> [u8; HEADER] {
        let Self {
            flags,
            kind,
            header_length,
            segment,
            checksum_start,
            checksum_offset,
            outer_transport,
            inner_network,
        } = *self;
        let [a0, a1] = header_length.to_ne_bytes();
        let [b0, b1] = segment.to_ne_bytes();
        let [c0, c1] = checksum_start.to_ne_bytes();
        let [d0, d1] = checksum_offset.to_ne_bytes();
        let [e0, e1] = outer_transport.to_ne_bytes();
        let [f0, f1] = inner_network.to_ne_bytes();
        [flags, kind, a0, a1, b0, b1, c0, c1, d0, d1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, e0, e1, f0, f1]
    }

    /// Of a large packet, whose transport checksum is that of the pseudo-header alone.
    pub(super) fn large(kind: Kind, header_length: u16, segment: u16, checksum: (u16, u16)) -> Self {
        let kind = match kind {
            Kind::Tcp { v6: false } => TCPV4,
            Kind::Tcp { v6: true } => TCPV6,
            Kind::Udp => UDP_L4,
            Kind::Tunnel { v6: false } => TCPV4 | UDP_TUNNEL_IPV4,
            Kind::Tunnel { v6: true } => TCPV6 | UDP_TUNNEL_IPV4,
        };
        let (checksum_start, checksum_offset) = checksum;
        Self { flags: NEEDS_CHECKSUM, kind, header_length, segment, checksum_start, checksum_offset, ..Self::default() }
    }

    /// Whether the checksum is left to be completed.
    pub(super) const fn needs_checksum(&self) -> bool {
        self.flags & NEEDS_CHECKSUM != 0
    }

    /// Whether it is several packets in one.
    pub(super) const fn is_large(&self) -> bool {
        self.kind & !ECN != 0
    }

    /// Whether the packets are of a kind that is known here; only those were asked for.
    pub(super) const fn is_known(&self) -> bool {
        matches!(self.kind & !(ECN | TUNNEL), TCPV4 | TCPV6 | UDP_L4) && self.kind & TUNNEL != TUNNEL
    }

    pub(super) const fn is_udp(&self) -> bool {
        self.kind & !(ECN | TUNNEL) == UDP_L4
    }

    /// Whether they are in UDP in turn.
    pub(super) const fn is_tunnel(&self) -> bool {
        self.kind & TUNNEL != 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_as_it_was_written(mut bytes in any::<[u8; HEADER]>()) {
            bytes[10..20].fill(0);
            prop_assert_eq!(Header::parse(&bytes).bytes(), bytes);
        }
    }

    #[test]
    fn the_kernel_finds_its_fields_where_it_looks() {
        let header = Header { flags: 1, kind: 0x21, outer_transport: 36, inner_network: 66, ..Header::default() };
        let bytes = header.bytes();
        assert_eq!(bytes[..2], [1, 0x21]);
        assert_eq!(bytes[20..], [36_u16.to_ne_bytes(), 66_u16.to_ne_bytes()].concat());
    }
}
