//! What the kernel says of IPv4. Numbers are from linux/if_addr.h, linux/netconf.h and linux/rtnetlink.h.

use std::net::Ipv4Addr;

use super::{attributes, integer};
use crate::kernel::message::{AF_INET, MESH_PROTOCOL, RT_TABLE_MAIN, RTA_DST, RTA_OIF, RTN_UNICAST};
use crate::model::ip::{Address, IpChange};

/// `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;
/// `struct netconfmsg`, filled up to a multiple of four.
const CONFIGURATION_HEADER: usize = 4;
/// `struct rtmsg`.
const ROUTE_HEADER: usize = 12;
/// `struct rtnexthop`.
const NEXT_HOP_HEADER: usize = 8;

const IFA_LOCAL: u16 = 2;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const RTA_MULTIPATH: u16 = 9;

pub(super) fn address(payload: &[u8], there: bool) -> Option<IpChange> {
    let (family, prefix, index) = (payload.first()?, *payload.get(1)?, integer(payload.get(4..)?)?);
    if *family != AF_INET || prefix > 32 {
        return None;
    }
    let local = attributes(payload.get(ADDRESS_HEADER..)?).find(|attribute| attribute.kind == IFA_LOCAL)?;
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(local.value).ok()?);
    Some(IpChange::Address { index, address: Address { address, prefix }, there })
}

/// What is said of all links (-1) or of those to come (-2) is no link's.
pub(super) fn forwarding(payload: &[u8], there: bool) -> Option<IpChange> {
    let value = |kind| attributes(payload.get(CONFIGURATION_HEADER..)?).find(|attribute| attribute.kind == kind);
    let index = integer(value(NETCONFA_IFINDEX)?.value).filter(|index| i32::try_from(*index).is_ok())?;
    let on = there && integer(value(NETCONFA_FORWARDING)?.value)? != 0;
    (*payload.first()? == AF_INET).then_some(IpChange::Forwarding { index, on })
}

/// The links by which a default route of the main table leads; nothing for any other route.
pub(super) fn default_route(payload: &[u8]) -> Option<Vec<u32>> {
    let header: &[u8; ROUTE_HEADER] = payload.first_chunk()?;
    let [family, prefix, _, _, table, _, _, kind, ..] = *header;
    if (family, prefix, table, kind) != (AF_INET, 0, RT_TABLE_MAIN, RTN_UNICAST) {
        return None;
    }
    let mut uplinks = Vec::new();
    for attribute in attributes(payload.get(ROUTE_HEADER..)?) {
        match attribute.kind {
            RTA_OIF => uplinks.extend(integer(attribute.value)),
            RTA_MULTIPATH => uplinks.extend(next_hops(attribute.value)),
            _ => {}
        }
    }
    Some(uplinks)
}

/// A route to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct HostRoute {
    /// The link that it leads by.
    pub(in crate::kernel) index: u32,
    /// The address.
    pub(in crate::kernel) to: Ipv4Addr,
    /// It is ours, in the mesh.
    pub(in crate::kernel) ours: bool,
}

/// A route of the main table to one address; nothing for any other route.
pub(super) fn host_route(payload: &[u8]) -> Option<HostRoute> {
    let header: &[u8; ROUTE_HEADER] = payload.first_chunk()?;
    let [family, prefix, _, _, table, protocol, _, kind, ..] = *header;
    if (family, prefix, table, kind) != (AF_INET, 32, RT_TABLE_MAIN, RTN_UNICAST) {
        return None;
    }
    let (mut index, mut node) = (None, None);
    for attribute in attributes(payload.get(ROUTE_HEADER..)?) {
        match attribute.kind {
            RTA_OIF => index = integer(attribute.value),
            RTA_DST => node = attribute.value.first_chunk().map(|octets: &[u8; 4]| Ipv4Addr::from(*octets)),
            _ => {}
        }
    }
    Some(HostRoute { index: index?, to: node?, ours: protocol == MESH_PROTOCOL })
}

fn next_hops(mut hops: &[u8]) -> Vec<u32> {
    let mut links = Vec::new();
    while let Some([a, b, _, _, index @ ..]) = hops.first_chunk::<NEXT_HOP_HEADER>() {
        links.push(u32::from_ne_bytes(*index));
        let length = usize::from(u16::from_ne_bytes([*a, *b])).max(NEXT_HOP_HEADER).next_multiple_of(4);
        hops = hops.get(length..).unwrap_or_default();
    }
    links
}
