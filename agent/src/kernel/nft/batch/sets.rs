//! Keys of sets.

use std::ffi::CStr;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use nftnl::nftnl_sys;
use nftnl::set::{Set, SetKey};
use otherix_schemas::value::MacAddress;

use crate::model::firewall::VNI_BLOCK;

/// The name of a link, padded to `IFNAMSIZ`, as the kernel compares it.
pub(super) struct LinkName([u8; 16]);

impl SetKey for LinkName {
    /// The type `ifname` of nft.
    const TYPE: u32 = 41;
    const LEN: u32 = 16;

    fn data(&self) -> Box<[u8]> {
        Box::new(self.0)
    }
}

impl LinkName {
    pub(super) fn new(name: &CStr) -> Self {
        Self::padded(name.to_bytes())
    }

    pub(super) fn of(name: &str) -> Self {
        Self::padded(name.as_bytes())
    }

    fn padded(name: &[u8]) -> Self {
        let mut padded = [0; 16];
        padded.iter_mut().zip(name.iter().take(15)).for_each(|(to, from)| *to = *from);
        Self(padded)
    }
}

/// The name of a link with an address, such as that of a bridge with its gateway's: `ifname . ipv4_addr` of nft.
pub(super) struct WithAddress(pub(super) LinkName, pub(super) Ipv4Addr);

impl SetKey for WithAddress {
    const TYPE: u32 = concatenated(LinkName::TYPE, Ipv4Addr::TYPE);
    const LEN: u32 = LinkName::LEN + Ipv4Addr::LEN;

    fn data(&self) -> Box<[u8]> {
        let Self(LinkName(name), address) = self;
        [name.as_slice(), &address.octets()].concat().into()
    }
}

/// `ether_addr` of nft.
const ETHER_ADDR: u32 = 9;

/// The name of a link with a MAC address: `ifname . ether_addr` of nft.
pub(super) struct WithMac(pub(super) LinkName, pub(super) MacAddress);

impl WithMac {
    /// The offset of the MAC address.
    pub(super) const MAC: u32 = LinkName::LEN;
}

impl SetKey for WithMac {
    const TYPE: u32 = concatenated(LinkName::TYPE, ETHER_ADDR);
    const LEN: u32 = Self::MAC + 8;

    fn data(&self) -> Box<[u8]> {
        let Self(LinkName(name), mac) = self;
        // Each part is padded to four bytes.
        [name.as_slice(), &mac.octets(), &[0, 0]].concat().into()
    }
}

/// The name of a link with a MAC and an IPv4 address: `ifname . ether_addr . ipv4_addr` of nft.
pub(super) struct WithAddresses(pub(super) LinkName, pub(super) MacAddress, pub(super) Ipv4Addr);

impl WithAddresses {
    /// The offset of the IPv4 address.
    pub(super) const ADDRESS: u32 = WithMac::LEN;
}

impl SetKey for WithAddresses {
    const TYPE: u32 = concatenated(WithMac::TYPE, Ipv4Addr::TYPE);
    const LEN: u32 = Self::ADDRESS + Ipv4Addr::LEN;

    fn data(&self) -> Box<[u8]> {
        let Self(LinkName(name), mac, address) = self;
        [name.as_slice(), &mac.octets(), &[0, 0], &address.octets()].concat().into()
    }
}

/// The name of a link with an IPv6 address: `ifname . ipv6_addr` of nft.
pub(super) struct WithIpv6(pub(super) LinkName, pub(super) Ipv6Addr);

impl SetKey for WithIpv6 {
    const TYPE: u32 = concatenated(LinkName::TYPE, Ipv6Addr::TYPE);
    const LEN: u32 = LinkName::LEN + Ipv6Addr::LEN;

    fn data(&self) -> Box<[u8]> {
        let Self(LinkName(name), address) = self;
        [name.as_slice(), &address.octets()].concat().into()
    }
}

/// An address with a port: `ipv4_addr . inet_service` of nft.
pub(super) struct Server(pub(super) SocketAddrV4);

impl SetKey for Server {
    const TYPE: u32 = {
        const INET_SERVICE: u32 = 13;
        concatenated(Ipv4Addr::TYPE, INET_SERVICE)
    };
    const LEN: u32 = 8;

    fn data(&self) -> Box<[u8]> {
        // Each part is padded to four bytes.
        [self.0.ip().octets().as_slice(), &self.0.port().to_be_bytes(), &[0, 0]].concat().into()
    }
}

/// A number of the packet of this many bytes, of a type of nft.
pub(super) struct Number<const TYPE: u32, const BYTES: usize>([u8; BYTES]);

impl<const TYPE: u32, const BYTES: usize> Number<TYPE, BYTES> {
    /// Returns a number in network byte order.
    pub(super) const fn of(bytes: [u8; BYTES]) -> Self {
        Self(bytes)
    }
}

impl<const TYPE: u32, const BYTES: usize> SetKey for Number<TYPE, BYTES> {
    const TYPE: u32 = TYPE;
    const LEN: u32 = BYTES as u32;

    fn data(&self) -> Box<[u8]> {
        Box::new(self.0)
    }
}

/// `ether_type`, `inet_proto`, `inet_service`, `icmpv6_type` and `igmp_type` of nft.
pub(super) type FrameType = Number<10, 2>;
pub(super) type Protocol = Number<12, 1>;
pub(super) type Port = Number<13, 2>;
pub(super) type Icmpv6Type = Number<29, 1>;
pub(super) type IgmpType = Number<42, 1>;
/// The four bytes of a VXLAN header with the VNI, of the first VNI of a block: `integer` of nft.
pub(super) type VniField = Number<4, 4>;

impl VniField {
    /// Without the last byte, which is reserved, and the position in the block.
    pub(super) const MASK: u32 = (!(VNI_BLOCK - 1) << 8).to_be();

    pub(super) const fn of_vni(vni: u32) -> Self {
        Self::of((vni << 8).to_be_bytes())
    }
}

/// Returns the type of two concatenated keys, as `nft` encodes it.
const fn concatenated(first: u32, second: u32) -> u32 {
    first << 6 | second
}

/// Declares host byte order of the keys, without which `nft list` shows no names. The kernel stores it and does not use
/// it.
#[expect(unsafe_code, reason = "nftnl has no safe function for a set's user data")]
pub(super) fn set_host_order(set: &Set<'_, LinkName>) {
    /// One field: its type (`NFTNL_UDATA_SET_KEYBYTEORDER`), its length, and host byte order in four bytes.
    const HOST_ORDER: [u8; 6] = {
        let [a, b, c, d] = 1_u32.to_ne_bytes();
        [0, 4, a, b, c, d]
    };
    let length = HOST_ORDER.len() as u32;
    // SAFETY: the set is alive, and the call copies `length` bytes from a buffer of that length.
    unsafe {
        nftnl_sys::nftnl_set_set_data(
            set.as_ptr().as_ptr(),
            nftnl_sys::NFTNL_SET_USERDATA as u16,
            HOST_ORDER.as_ptr().cast(),
            length,
        );
    }
}
