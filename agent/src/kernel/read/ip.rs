//! Parses IPv4 addresses, forwarding settings and routes. Numbers are from linux/if_addr.h, linux/netconf.h and
//! linux/rtnetlink.h.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use otherix_netlink::Attribute;

use super::{attributes, integer};
use crate::model::ip::{Address, IpChange};
use crate::model::route::{Prefix, Route, RouteKind};
use crate::model::route_lookup::RouteLookup;

pub(super) const AF_INET: u8 = 2;

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
const NETCONFA_RP_FILTER: u16 = 3;
/// `NETCONFA_IFINDEX_ALL`, -1.
const ALL_LINKS: u32 = u32::MAX;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_BROADCAST: u8 = 3;
const RTN_BLACKHOLE: u8 = 6;
const RTN_UNREACHABLE: u8 = 7;
const RTN_PROHIBIT: u8 = 8;
const RTN_THROW: u8 = 9;
const RTM_F_CLONED: u32 = 0x200;

pub(super) fn address(payload: &[u8], added: bool) -> Option<IpChange> {
    let (family, prefix, index) = (payload.first()?, *payload.get(1)?, integer(payload.get(4..)?)?);
    if *family != AF_INET || prefix > 32 {
        return None;
    }
    let local = attributes(payload.get(ADDRESS_HEADER..)?).find(|attribute| attribute.kind == IFA_LOCAL)?;
    let address = Ipv4Addr::from(local.array::<4>()?);
    Some(IpChange::Address { index, address: Address { address, prefix }, added })
}

/// Parses the settings of a link or of all links. A notification has only the one that was changed. The settings of new
/// links (-2) are left out.
pub(super) fn configuration(payload: &[u8], added: bool) -> Option<IpChange> {
    let value = |kind| attributes(payload.get(CONFIGURATION_HEADER..)?).find(|attribute| attribute.kind == kind);
    let index = integer(value(NETCONFA_IFINDEX)?.value)?;
    if *payload.first()? != AF_INET {
        return None;
    }
    let Some(forwarding) = value(NETCONFA_FORWARDING) else {
        return value(NETCONFA_RP_FILTER).map(|_| IpChange::ReversePathFilter);
    };
    let on = added && integer(forwarding.value)? != 0;
    match index {
        ALL_LINKS => Some(IpChange::ForwardingOfAll { on }),
        index => i32::try_from(index).is_ok().then_some(IpChange::Forwarding { index, on }),
    }
}

/// Parses a route. Left out are those that packets caused to be cached, to and from groups, and broadcast addresses.
pub(super) fn route(payload: &[u8]) -> Option<Route> {
    let header: &[u8; ROUTE_HEADER] = payload.first_chunk()?;
    let [family, length, _, tos, table, protocol, _, kind, flags @ ..] = *header;
    if family != AF_INET || length > 32 || u32::from_ne_bytes(flags) & RTM_F_CLONED != 0 {
        return None;
    }
    let kind = match kind {
        RTN_UNICAST => RouteKind::Unicast,
        RTN_LOCAL => RouteKind::Local,
        RTN_BLACKHOLE | RTN_UNREACHABLE | RTN_PROHIBIT => RouteKind::Drop,
        RTN_THROW => RouteKind::Throw,
        _ => return None,
    };
    let mut route = Route {
        to: Prefix::of(Ipv4Addr::UNSPECIFIED, length),
        table: table.into(),
        metric: 0,
        kind,
        links: BTreeSet::new(),
        gateways: BTreeSet::new(),
        protocol,
        tos,
    };
    for attribute in attributes(payload.get(ROUTE_HEADER..)?) {
        match attribute.kind {
            RTA_DST => route.to = Prefix::of(attribute.array::<4>()?.into(), length),
            RTA_TABLE => route.table = integer(attribute.value)?,
            RTA_PRIORITY => route.metric = integer(attribute.value)?,
            RTA_MULTIPATH => add_next_hops(&mut route, attribute.value),
            _ => add_next_hop(&mut route, &attribute),
        }
    }
    Some(route)
}

/// Parses the answer to a route lookup.
pub(super) fn route_lookup(payload: &[u8]) -> Option<(Ipv4Addr, RouteLookup)> {
    let header: &[u8; ROUTE_HEADER] = payload.first_chunk()?;
    let [family, _, _, _, _, _, _, kind, flags @ ..] = *header;
    if family != AF_INET || u32::from_ne_bytes(flags) & RTM_F_CLONED == 0 {
        return None;
    }
    let (mut to, mut link, mut gateway, mut source) = (None, None, None, None);
    for attribute in attributes(payload.get(ROUTE_HEADER..)?) {
        let address = || attribute.array::<4>().map(Ipv4Addr::from);
        match attribute.kind {
            RTA_DST => to = address(),
            RTA_OIF => link = integer(attribute.value),
            RTA_GATEWAY => gateway = address(),
            RTA_PREFSRC => source = address(),
            _ => {}
        }
    }
    let lookup = match kind {
        RTN_UNICAST => RouteLookup::Through { link: link?, gateway, source, is_answered: true },
        RTN_LOCAL | RTN_BROADCAST => RouteLookup::Local,
        _ => return None,
    };
    Some((to?, lookup))
}

fn add_next_hop(route: &mut Route, attribute: &Attribute<'_>) {
    match attribute.kind {
        RTA_OIF => route.links.extend(integer(attribute.value)),
        RTA_GATEWAY => route.gateways.extend(attribute.array::<4>().map(Ipv4Addr::from)),
        _ => {}
    }
}

fn add_next_hops(route: &mut Route, mut hops: &[u8]) {
    while let Some([a, b, _, _, index @ ..]) = hops.first_chunk::<NEXT_HOP_HEADER>() {
        route.links.insert(u32::from_ne_bytes(*index));
        let length = usize::from(u16::from_ne_bytes([*a, *b])).max(NEXT_HOP_HEADER);
        let nested = hops.get(NEXT_HOP_HEADER..length).unwrap_or_default();
        attributes(nested).for_each(|attribute| add_next_hop(route, &attribute));
        hops = hops.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}
