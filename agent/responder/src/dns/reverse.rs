//! Names of addresses (`in-addr.arpa`, `ip6.arpa`), and which of them are nobody's outside of this network.

use std::net::Ipv4Addr;

use super::message::Name;

/// IPv4 networks whose addresses mean something on one network only (RFC 6303), with the length of their prefix.
const PRIVATE: [(Ipv4Addr, u8); 7] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(0, 0, 0, 0), 8),
];

/// How many labels `in-addr.arpa` and `ip6.arpa` have.
pub(super) const SUFFIX: usize = 2;

/// A name below `in-addr.arpa` or `ip6.arpa`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reverse {
    /// The name of an IPv4 address.
    Address(Ipv4Addr),
    /// The beginning of addresses: as many bits of this one.
    Prefix(Ipv4Addr, u8),
    /// A name below one of those, or below the beginning of addresses, that is no address.
    Below(Ipv4Addr, u8),
    /// An IPv6 address that means something on one network only.
    PrivateIpv6,
}

impl Reverse {
    /// Returns what the name is the reverse of, if it is below one of the two, and for IPv6 only if it is private.
    pub(super) fn of(name: &Name) -> Option<Self> {
        if name.ends_with(&["ip6", "arpa"]) {
            return is_private_ipv6(name).then_some(Self::PrivateIpv6);
        }
        if !name.ends_with(&["in-addr", "arpa"]) {
            return None;
        }
        let rest = name.count() - SUFFIX;
        let mut octets = [0; 4];
        let mut count = 0;
        for (place, octet) in octets.iter_mut().enumerate().take(rest) {
            let Some(value) = name.label_from_end(SUFFIX + place).and_then(decimal) else { break };
            *octet = value;
            count += 1;
        }
        let (address, bits) = (Ipv4Addr::from(octets), count * 8);
        Some(match (usize::from(count) == rest, count) {
            (true, 4) => Self::Address(address),
            (true, _) => Self::Prefix(address, bits),
            (false, _) => Self::Below(address, bits),
        })
    }

    /// Whether nobody outside can know it.
    pub(super) fn is_private(self) -> bool {
        let is_within = |address: Ipv4Addr, bits: u8| PRIVATE.iter().any(|private| contains(*private, address, bits));
        match self {
            Self::Address(address) => is_within(address, 32),
            Self::Prefix(address, bits) | Self::Below(address, bits) => is_within(address, bits),
            Self::PrivateIpv6 => true,
        }
    }

    /// Whether it is within this subnet.
    pub(super) fn is_of(self, subnet: (Ipv4Addr, u8)) -> bool {
        match self {
            Self::Address(address) => contains(subnet, address, 32),
            Self::Prefix(address, bits) | Self::Below(address, bits) => contains(subnet, address, bits),
            Self::PrivateIpv6 => false,
        }
    }
}

/// Whether all addresses that begin with as many bits of this one are in the network.
fn contains((network, prefix): (Ipv4Addr, u8), address: Ipv4Addr, bits: u8) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    bits >= prefix && (address.to_bits() ^ network.to_bits()) & mask == 0
}

/// Returns the number that a label is, as addresses are written.
fn decimal(label: &[u8]) -> Option<u8> {
    let is_canonical = label.iter().all(u8::is_ascii_digit) && (label.len() == 1 || !label.starts_with(b"0"));
    std::str::from_utf8(label).ok().filter(|_| is_canonical)?.parse().ok()
}

/// Whether a name below `ip6.arpa` begins as unique local (`fc00::/7`) and link-local addresses do, or is that of `::`
/// or `::1`.
fn is_private_ipv6(name: &Name) -> bool {
    let nibble = |place: usize| match name.label_from_end(SUFFIX + place) {
        Some([digit]) => char::from(*digit).to_digit(16),
        _ => None,
    };
    match (nibble(0), nibble(1), nibble(2)) {
        (Some(0xf), Some(0xc | 0xd), _) | (Some(0xf), Some(0xe), Some(0x8..=0xb)) => true,
        (Some(0), ..) => (0..31).all(|place| nibble(place) == Some(0)) && nibble(31).is_some_and(|last| last <= 1),
        _ => false,
    }
}
