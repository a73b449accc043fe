//! Parses IPv4 addresses, forwarding settings and routes. Numbers are from linux/if_addr.h, linux/netconf.h and
//! linux/rtnetlink.h.

use std::net::Ipv4Addr;

use super::{attributes, integer};
use crate::kernel::message::ip::MESH_PROTOCOL;
use crate::model::ip::{Address, IpChange};

const AF_INET: u8 = 2;

/// `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;
/// `struct netconfmsg`, padded.
const CONFIGURATION_HEADER: usize = 4;
/// `struct rtmsg`.
const ROUTE_HEADER: usize = 12;
/// `struct rtnexthop`.
const NEXT_HOP_HEADER: usize = 8;

const IFA_LOCAL: u16 = 2;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;
const RTN_UNICAST: u8 = 1;
const RT_TABLE_MAIN: u8 = 254;

pub(super) fn address(payload: &[u8], added: bool) -> Option<IpChange> {
    let (family, prefix, index) = (payload.first()?, *payload.get(1)?, integer(payload.get(4..)?)?);
    if *family != AF_INET || prefix > 32 {
        return None;
    }
    let local = attributes(payload.get(ADDRESS_HEADER..)?).find(|attribute| attribute.kind == IFA_LOCAL)?;
    let address = Ipv4Addr::from(local.array::<4>()?);
    Some(IpChange::Address { index, address: Address { address, prefix }, added })
}

/// Settings of all links (-1) and of new links (-2) are left out.
pub(super) fn forwarding(payload: &[u8], added: bool) -> Option<IpChange> {
    let value = |kind| attributes(payload.get(CONFIGURATION_HEADER..)?).find(|attribute| attribute.kind == kind);
    let index = integer(value(NETCONFA_IFINDEX)?.value).filter(|index| i32::try_from(*index).is_ok())?;
    let on = added && integer(value(NETCONFA_FORWARDING)?.value)? != 0;
    (*payload.first()? == AF_INET).then_some(IpChange::Forwarding { index, on })
}

/// Parses the links that a default route of the main table uses; `None` for any other route.
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

/// A route to a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct HostRoute {
    /// The index of the link that it uses.
    pub(in crate::kernel) index: u32,
    pub(in crate::kernel) to: Ipv4Addr,
    /// It is a route of ours, in the mesh.
    pub(in crate::kernel) ours: bool,
}

/// Parses a route of the main table to a single address; `None` for any other route.
pub(super) fn host_route(payload: &[u8]) -> Option<HostRoute> {
    let header: &[u8; ROUTE_HEADER] = payload.first_chunk()?;
    let [family, prefix, _, _, table, protocol, _, kind, ..] = *header;
    if (family, prefix, table, kind) != (AF_INET, 32, RT_TABLE_MAIN, RTN_UNICAST) {
        return None;
    }
    let (mut index, mut to) = (None, None);
    for attribute in attributes(payload.get(ROUTE_HEADER..)?) {
        match attribute.kind {
            RTA_OIF => index = integer(attribute.value),
            RTA_DST => to = attribute.array::<4>().map(Ipv4Addr::from),
            _ => {}
        }
    }
    Some(HostRoute { index: index?, to: to?, ours: protocol == MESH_PROTOCOL })
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
