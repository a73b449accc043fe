//! The header of a packet on the TUN device: `struct virtio_net_hdr_v1_hash_tunnel` of the kernel's
//! `include/uapi/linux/virtio_net.h`, in native byte order. The first ten bytes describe checksum and segmentation, the
//! last four the offsets of an encapsulated packet; those between are unused.

/// Length in bytes.
pub(crate) const HEADER_LEN: usize = 24;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;

// `VIRTIO_NET_HDR_GSO_*`.
const TCPV4: u8 = 1;
const TCPV6: u8 = 4;
const UDP_L4: u8 = 5;
const UDP_TUNNEL_IPV4: u8 = 0x20;
const UDP_TUNNEL_IPV6: u8 = 0x40;
const ECN: u8 = 0x80;
const TUNNEL: u8 = UDP_TUNNEL_IPV4 | UDP_TUNNEL_IPV6;

/// Checksum and segmentation of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct VirtioHeader {
    flags: u8,
    gso_type: u8,
    /// Bytes of all headers of the packet: a hint that may be wrong.
    header_length: u16,
    /// Bytes of payload of each packet except the last.
    pub(super) segment_size: u16,
    pub(super) checksum_start: u16,
    pub(super) checksum_offset: u16,
    pub(super) outer_transport: u16,
    pub(super) inner_network: u16,
}

/// The type of a GSO packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GsoType {
    Tcp {
        v6: bool,
    },
    Udp,
    /// TCP in UDP over IPv4.
    Tunnel {
        v6: bool,
    },
}

impl VirtioHeader {
    pub(crate) fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let [flags, gso_type, a0, a1, b0, b1, c0, c1, d0, d1, _, _, _, _, _, _, _, _, _, _, e0, e1, f0, f1] = *bytes;
        let number = |low, high| u16::from_ne_bytes([low, high]);
        Self {
            flags,
            gso_type,
            header_length: number(a0, a1),
            segment_size: number(b0, b1),
            checksum_start: number(c0, c1),
            checksum_offset: number(d0, d1),
            outer_transport: number(e0, e1),
            inner_network: number(f0, f1),
        }
    }

    pub(crate) fn bytes(&self) -> [u8; HEADER_LEN] {
        let Self {
            flags,
            gso_type,
            header_length,
            segment_size,
            checksum_start,
            checksum_offset,
            outer_transport,
            inner_network,
        } = *self;
        let [a0, a1] = header_length.to_ne_bytes();
        let [b0, b1] = segment_size.to_ne_bytes();
        let [c0, c1] = checksum_start.to_ne_bytes();
        let [d0, d1] = checksum_offset.to_ne_bytes();
        let [e0, e1] = outer_transport.to_ne_bytes();
        let [f0, f1] = inner_network.to_ne_bytes();
        [flags, gso_type, a0, a1, b0, b1, c0, c1, d0, d1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, e0, e1, f0, f1]
    }

    /// Creates the header of a GSO packet, whose transport checksum is that of the pseudo-header. `checksum` is the
    /// start of the checksummed data and the offset of the field from there.
    pub(super) fn gso(gso_type: GsoType, header_length: u16, segment_size: u16, checksum: (u16, u16)) -> Self {
        let gso_type = match gso_type {
            GsoType::Tcp { v6: false } => TCPV4,
            GsoType::Tcp { v6: true } => TCPV6,
            GsoType::Udp => UDP_L4,
            GsoType::Tunnel { v6: false } => TCPV4 | UDP_TUNNEL_IPV4,
            GsoType::Tunnel { v6: true } => TCPV6 | UDP_TUNNEL_IPV4,
        };
        let (checksum_start, checksum_offset) = checksum;
        Self {
            flags: NEEDS_CHECKSUM,
            gso_type,
            header_length,
            segment_size,
            checksum_start,
            checksum_offset,
            ..Self::default()
        }
    }

    /// Whether the transport checksum must be completed.
    pub(super) const fn needs_checksum(&self) -> bool {
        self.flags & NEEDS_CHECKSUM != 0
    }

    /// Whether the packet must be segmented.
    pub(super) const fn is_gso(&self) -> bool {
        self.gso_type & !ECN != 0
    }

    /// Whether the type is one that an [`Offload`](crate::Offload) level enables.
    pub(super) const fn is_supported(&self) -> bool {
        matches!(self.gso_type & !(ECN | TUNNEL), TCPV4 | TCPV6 | UDP_L4) && self.gso_type & TUNNEL != TUNNEL
    }

    pub(super) const fn is_udp(&self) -> bool {
        self.gso_type & !(ECN | TUNNEL) == UDP_L4
    }

    /// Whether the packet is encapsulated in UDP.
    pub(super) const fn is_tunnel(&self) -> bool {
        self.gso_type & TUNNEL != 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn headers_parse_as_serialized(mut bytes in any::<[u8; HEADER_LEN]>()) {
            bytes[10..20].fill(0);
            prop_assert_eq!(VirtioHeader::parse(&bytes).bytes(), bytes);
        }
    }

    #[test]
    fn fields_have_the_offsets_of_the_kernel() {
        let header = VirtioHeader {
            flags: 1,
            gso_type: 0x21,
            outer_transport: 36,
            inner_network: 66,
            ..VirtioHeader::default()
        };
        let bytes = header.bytes();
        assert_eq!(bytes[..2], [1, 0x21]);
        assert_eq!(bytes[20..], [36_u16.to_ne_bytes(), 66_u16.to_ne_bytes()].concat());
    }
}
