//! Which addresses an image may be fetched from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::str::FromStr;

/// A range of addresses: a prefix such as `10.42.0.0/16`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    address: IpAddr,
    length: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be an IP address, or a prefix such as `10.42.0.0/16`, not `{0}`")]
pub struct AddressRangeError(String);

impl AddressRange {
    const fn v4(a: u8, b: u8, c: u8, d: u8, length: u32) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), length }
    }

    const fn v6(bits: u128, length: u32) -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::from_bits(bits)), length }
    }

    /// Whether the address is in the range. An IPv4 range contains no IPv6 address and the other way round.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let differing = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        differing >= self.length
    }
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || AddressRangeError(text.to_owned());
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(bits), |length| length.parse().map_err(|_| malformed()))?;
        if length > bits { Err(malformed()) } else { Ok(Self { address, length }) }
    }
}

impl From<IpAddr> for AddressRange {
    fn from(address: IpAddr) -> Self {
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }
}

/// The default mesh supernet, in which every node has an address.
const DEFAULT_MESH: AddressRange = AddressRange::v4(10, 42, 0, 0, 16);

/// Ranges that lead to no other host, and what they are for (RFC 6890 and the IANA registries of special-purpose
/// addresses), and where clouds serve credentials of their machines.
const REFUSED: [(AddressRange, &str); 18] = [
    (AddressRange::v4(0, 0, 0, 0, 8), "no address of a host"),
    (AddressRange::v4(127, 0, 0, 0, 8), "the node's loopback"),
    (AddressRange::v4(169, 254, 0, 0, 16), "link-local, or a metadata service"),
    (AddressRange::v4(100, 100, 100, 200, 32), "a metadata service"),
    (AddressRange::v4(168, 63, 129, 16, 32), "a metadata service"),
    (AddressRange::v4(192, 0, 0, 0, 24), "reserved for protocols, or a metadata service"),
    (AddressRange::v4(224, 0, 0, 0, 4), "multicast"),
    (AddressRange::v4(240, 0, 0, 0, 4), "reserved, or broadcast"),
    (AddressRange::v6(0, 128), "no address of a host"),
    (AddressRange::v6(1, 128), "the node's loopback"),
    (AddressRange::v6(0xfe80 << 112, 10), "link-local"),
    (AddressRange::v6(0xfec0 << 112, 10), "site-local"),
    (AddressRange::v6(0xff00 << 112, 8), "multicast"),
    (AddressRange::v6(0x0100 << 112, 64), "discarded"),
    (AddressRange::v6(0xfd00_0ec2 << 96, 32), "a metadata service"),
    (AddressRange::v6(0xfd20_00ce << 96, 32), "a metadata service"),
    (AddressRange::v6(0x0064_ff9b_0001 << 80, 48), "translated to addresses of the node's network"),
    (AddressRange::v6(0x2001 << 112, 32), "a Teredo tunnel"),
];

/// Networks that an organisation numbers by itself.
const PRIVATE: [AddressRange; 5] = [
    AddressRange::v4(10, 0, 0, 0, 8),
    AddressRange::v4(172, 16, 0, 0, 12),
    AddressRange::v4(192, 168, 0, 0, 16),
    AddressRange::v4(100, 64, 0, 0, 10),
    AddressRange::v6(0xfc00 << 112, 7),
];

/// Decides which addresses images may be fetched from.
///
/// By default, refused are loopback, link-local, unspecified and multicast addresses, metadata services, the node's
/// own addresses (as the kernel has them at that moment) and the mesh. Private ranges are permitted, because that is
/// where machine rooms have their servers of images. IPv6 addresses that contain an IPv4 address are judged by that.
#[derive(Debug, Clone)]
pub struct AddressGuard {
    refused: Vec<AddressRange>,
    permitted: Vec<AddressRange>,
    refuse_private: bool,
}

/// An address that no image is fetched from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{host}` has the address {address}, which images are not fetched from: it is {reason}")]
pub struct RefusedAddress {
    pub host: String,
    pub address: IpAddr,
    pub reason: &'static str,
}

impl Default for AddressGuard {
    fn default() -> Self {
        Self { refused: vec![DEFAULT_MESH], permitted: Vec::new(), refuse_private: false }
    }
}

impl AddressGuard {
    /// With this mesh supernet instead of the default one.
    #[must_use]
    pub fn new(mesh: AddressRange) -> Self {
        Self { refused: vec![mesh], ..Self::default() }
    }

    /// Refuses a range in addition.
    #[must_use]
    pub fn refusing(mut self, range: AddressRange) -> Self {
        self.refused.push(range);
        self
    }

    /// Refuses all private ranges.
    #[must_use]
    pub fn refusing_private(mut self) -> Self {
        self.refuse_private = true;
        self
    }

    /// Permits a range, whatever else holds.
    #[must_use]
    pub fn permitting(mut self, range: AddressRange) -> Self {
        self.permitted.push(range);
        self
    }

    /// Why an address is refused. `None` if it may be connected to.
    #[must_use]
    pub fn reason(&self, address: IpAddr) -> Option<&'static str> {
        let inner = contained_v4(address);
        if self.permitted.iter().any(|range| range.contains(address) || range.contains(inner)) {
            return None;
        }
        let special = REFUSED.iter().find(|(range, _)| range.contains(address) || range.contains(inner));
        if let Some((_, reason)) = special {
            return Some(reason);
        }
        if self.refused.iter().any(|range| range.contains(address) || range.contains(inner)) {
            return Some("in a range of the mesh, or refused by the node's configuration");
        }
        if self.refuse_private && PRIVATE.iter().any(|range| range.contains(address) || range.contains(inner)) {
            return Some("private, and the node's configuration refuses those");
        }
        (is_own(address) || is_own(inner)).then_some("an address of the node itself")
    }
}

/// The IPv4 address that an IPv6 address stands for: IPv4-mapped, IPv4-compatible, translated (RFC 6052), 6to4. Other
/// addresses are returned as they are.
fn contained_v4(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let last = |bits: u128| {
        let [.., a, b, c, d] = bits.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    let bits = v6.to_bits();
    let is_mapped = bits >> 32 == 0xffff;
    let is_compatible = bits >> 32 == 0 && bits > 1;
    let is_translated = bits >> 32 == 0x0064_ff9b << 64 || bits >> 32 == 0xffff_0000;
    if is_mapped || is_compatible || is_translated {
        return last(bits).into();
    }
    if bits >> 112 == 0x2002 { last(bits >> 80).into() } else { address }
}

/// Whether the kernel delivers packets to this address to the node itself. It then chooses the same address as the
/// source, for loopback ranges aside. No packet is sent. (Whether binding succeeds does not tell:
/// `ip_nonlocal_bind`.)
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(guard: &AddressGuard, address: &str) -> bool {
        guard.reason(address.parse().unwrap()).is_some()
    }

    #[test]
    fn refuses_by_default() {
        let guard = AddressGuard::default();
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "169.254.1.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "224.0.0.1",
            "255.255.255.255",
            "10.42.0.1",
            "10.42.255.255",
            "::",
            "::1",
            "::2",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:127.0.0.1",
            "::ffff:0:127.0.0.1",
            "::127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.42.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001::1",
        ] {
            assert!(refused(&guard, address), "{address}");
        }
    }

    #[test]
    fn permits_other_hosts() {
        let guard = AddressGuard::default();
        for address in [
            "1.1.1.1",
            "10.0.0.1",
            "10.41.255.255",
            "10.43.0.0",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "192.0.2.1",
            "fd00::1",
            "2a00::1",
            "2001:db8::1",
            "64:ff9b::1.1.1.1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!refused(&guard, address), "{address}");
        }
        let guard = guard.refusing_private();
        for address in ["10.0.0.1", "172.31.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "::ffff:10.0.0.1"] {
            assert!(refused(&guard, address), "{address}");
        }
        assert!(!refused(&guard, "172.32.0.1"));
    }

    #[test]
    fn configuration() {
        let guard = AddressGuard::new("10.99.0.0/16".parse().unwrap()).refusing("192.0.2.7".parse().unwrap());
        assert!(refused(&guard, "10.99.0.1") && refused(&guard, "192.0.2.7"));
        assert!(!refused(&guard, "10.42.0.1") && !refused(&guard, "192.0.2.8"));
        let guard = guard.permitting("127.0.0.0/8".parse().unwrap());
        assert!(!refused(&guard, "127.0.0.1") && !refused(&guard, "::ffff:127.0.0.1") && refused(&guard, "::1"));
        for text in ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1"] {
            text.parse::<AddressRange>().unwrap_err();
        }
        assert!("0.0.0.0/0".parse::<AddressRange>().unwrap().contains("203.0.113.1".parse().unwrap()));
    }
}
