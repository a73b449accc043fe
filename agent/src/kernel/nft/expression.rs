//! Expressions that `nftnl` lacks. All of their unsafe code is here. Numbers are from linux/netfilter/nf_tables.h.

#![expect(unsafe_code, reason = "nftnl has no safe function for these expressions of libnftnl")]

use std::alloc::{Layout, handle_alloc_error};
use std::ffi::CStr;
use std::ptr::NonNull;

use nftnl::Rule;
use nftnl::expr::{Expression, Register};
use nftnl::nftnl_sys::{self as sys, nftnl_expr};

/// `fib saddr . iif oif`: the link through which the source of a packet is reachable, if the packet was received on
/// it; otherwise 0.
///
/// For the source 0.0.0.0 the result is the receiving link if the packet is broadcast or link-local multicast.
pub(super) struct ReversePath;

/// `masquerade to :first-last`, with the registers of these ports, which are in network byte order.
pub(super) struct Masquerade {
    pub(super) first: Register,
    pub(super) last: Register,
}

/// What connection tracking says about a packet.
#[derive(Clone, Copy)]
pub(super) enum Connection {
    /// `ct direction`, a byte: [`REPLY`] if the other side began the connection.
    Direction,
    /// `ct status` (`IPS_*`).
    Status,
}

/// `IP_CT_DIR_REPLY`.
pub(super) const REPLY: u8 = 1;

/// `IPS_EXPECTED`: another connection announced this one, as that of FTP does.
pub(super) const EXPECTED: u32 = 1;

/// `fib daddr type`: the type of the packet's destination (`RTN_*`).
pub(super) struct DestinationType;

/// The type of the destination of packets to the node itself (`RTN_LOCAL`).
pub(super) const LOCAL: u32 = 2;

/// The type of the header that follows the first part of a fragmented IPv6 packet (`frag nexthdr`), in its fragment
/// header.
pub(super) struct AfterFragmentHeader;

/// The group of the link that a packet was received on (`iifgroup`) or is sent to (`oifgroup`).
#[derive(Clone, Copy)]
pub(super) enum GroupOf {
    Input,
    Output,
}

/// Bytes of the packet, loaded behind a first part of `after` bytes in the register that a look-up compares.
pub(super) struct SecondPart {
    pub(super) field: Field,
    /// Multiple of 4, at most 48 with the field.
    pub(super) after: u32,
}

/// A field of a packet.
#[derive(Clone, Copy)]
pub(super) enum Field {
    /// The source of a frame.
    EthernetSource,
    /// The source of an IPv4 packet.
    Ipv4Source,
    /// The destination of an IPv4 packet.
    Ipv4Destination,
    /// The source of an IPv6 packet.
    Ipv6Source,
    /// The address that a neighbour solicitation or advertisement is about.
    NeighbourTarget,
    /// The MAC and the IPv4 address of the sender of an ARP packet.
    ArpSenderMac,
    ArpSender,
    /// The address that an ARP packet asks for, or is sent to.
    ArpTarget,
    /// The destination port of TCP and UDP.
    DestinationPort,
}

impl Field {
    /// Returns the header (`NFT_PAYLOAD_*_HEADER`), the offset in it, and the length.
    const fn place(self) -> (u32, u32, u32) {
        const LINK: u32 = 0;
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        match self {
            Self::EthernetSource => (LINK, 6, 6),
            Self::Ipv4Source => (NETWORK, 12, 4),
            Self::Ipv4Destination => (NETWORK, 16, 4),
            Self::Ipv6Source => (NETWORK, 8, 16),
            Self::NeighbourTarget => (TRANSPORT, 8, 16),
            Self::ArpSenderMac => (NETWORK, 8, 6),
            Self::ArpSender => (NETWORK, 14, 4),
            Self::ArpTarget => (NETWORK, 24, 4),
            Self::DestinationPort => (TRANSPORT, 2, 2),
        }
    }
}

impl Expression for ReversePath {
    fn to_expr(&self, _: &Rule<'_>) -> NonNull<nftnl_expr> {
        /// `NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF`.
        const SOURCE_AND_LINK: u32 = 0x01 | 0x08;
        /// `NFT_FIB_RESULT_OIF`.
        const LINK: u32 = 1;
        let attributes = [
            (sys::NFTNL_EXPR_FIB_FLAGS, SOURCE_AND_LINK),
            (sys::NFTNL_EXPR_FIB_RESULT, LINK),
            (sys::NFTNL_EXPR_FIB_DREG, Register::Reg1.to_raw()),
        ];
        new(c"fib", &attributes)
    }
}

impl Expression for Masquerade {
    fn to_expr(&self, _: &Rule<'_>) -> NonNull<nftnl_expr> {
        /// `NF_NAT_RANGE_PROTO_SPECIFIED`.
        const HAS_PORTS: u32 = 2;
        let Self { first, last } = self;
        let attributes = [
            (sys::NFTNL_EXPR_MASQ_FLAGS, HAS_PORTS),
            (sys::NFTNL_EXPR_MASQ_REG_PROTO_MIN, first.to_raw()),
            (sys::NFTNL_EXPR_MASQ_REG_PROTO_MAX, last.to_raw()),
        ];
        new(c"masq", &attributes)
    }
}

impl Expression for Connection {
    fn to_expr(&self, _: &Rule<'_>) -> NonNull<nftnl_expr> {
        /// `NFT_CT_DIRECTION` and `NFT_CT_STATUS`.
        const DIRECTION: u32 = 1;
        const STATUS: u32 = 2;
        let key = match self {
            Self::Direction => DIRECTION,
            Self::Status => STATUS,
        };
        new(c"ct", &[(sys::NFTNL_EXPR_CT_KEY, key), (sys::NFTNL_EXPR_CT_DREG, Register::Reg1.to_raw())])
    }
}

impl Expression for DestinationType {
    fn to_expr(&self, _: &Rule<'_>) -> NonNull<nftnl_expr> {
        /// `NFTA_FIB_F_DADDR`.
        const DESTINATION: u32 = 0x02;
        /// `NFT_FIB_RESULT_ADDRTYPE`.
        const TYPE: u32 = 3;
        let attributes = [
            (sys::NFTNL_EXPR_FIB_FLAGS, DESTINATION),
            (sys::NFTNL_EXPR_FIB_RESULT, TYPE),
            (sys::NFTNL_EXPR_FIB_DREG, Register::Reg1.to_raw()),
        ];
        new(c"fib", &attributes)
    }
}

impl Expression for AfterFragmentHeader {
    fn to_expr(&self, _: &Rule<'_>) -> NonNull<nftnl_expr> {
        /// `IPPROTO_FRAGMENT`.
        const FRAGMENT: u8 = 44;
        let attributes = [
            (sys::NFTNL_EXPR_EXTHDR_OFFSET, 0),
            (sys::NFTNL_EXPR_EXTHDR_LEN, 1),
            (sys::NFTNL_EXPR_EXTHDR_DREG, Register::Reg1.to_raw()),
        ];
        let expression = new(c"exthdr", &attributes);
        // SAFETY: the expression was just allocated, and this attribute of it is a number of one byte.
        unsafe { sys::nftnl_expr_set_u8(expression.as_ptr(), sys::NFTNL_EXPR_EXTHDR_TYPE as u16, FRAGMENT) };
        expression
    }
}

impl Expression for GroupOf {
    fn to_expr(&self, _: &Rule<'_>) -> NonNull<nftnl_expr> {
        /// `NFT_META_IIFGROUP` and `NFT_META_OIFGROUP`.
        const INPUT: u32 = 21;
        const OUTPUT: u32 = 22;
        let key = match self {
            Self::Input => INPUT,
            Self::Output => OUTPUT,
        };
        new(c"meta", &[(sys::NFTNL_EXPR_META_KEY, key), (sys::NFTNL_EXPR_META_DREG, Register::Reg1.to_raw())])
    }
}

impl Expression for SecondPart {
    fn to_expr(&self, _: &Rule<'_>) -> NonNull<nftnl_expr> {
        /// `NFT_REG32_00`, the first four bytes of `NFT_REG_1`.
        const FIRST: u32 = 8;
        let (base, offset, length) = self.field.place();
        let attributes = [
            (sys::NFTNL_EXPR_PAYLOAD_BASE, base),
            (sys::NFTNL_EXPR_PAYLOAD_OFFSET, offset),
            (sys::NFTNL_EXPR_PAYLOAD_LEN, length),
            (sys::NFTNL_EXPR_PAYLOAD_DREG, FIRST + self.after / 4),
        ];
        new(c"payload", &attributes)
    }
}

/// Allocates an expression with these attributes, numbers of four bytes.
fn new(kind: &CStr, attributes: &[(u32, u32)]) -> NonNull<nftnl_expr> {
    // SAFETY: the name is a C string, which the call reads and does not keep.
    let allocated = unsafe { sys::nftnl_expr_alloc(kind.as_ptr()) };
    // All versions of libnftnl have these expressions: it fails only without memory.
    let expression = NonNull::new(allocated).unwrap_or_else(|| handle_alloc_error(Layout::new::<usize>()));
    for (attribute, value) in attributes {
        // SAFETY: the expression was just allocated, and these attributes of it are numbers of four bytes.
        unsafe { sys::nftnl_expr_set_u32(expression.as_ptr(), *attribute as u16, *value) };
    }
    expression
}
