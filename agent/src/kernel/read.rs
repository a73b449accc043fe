//! Parses replies and notifications of rtnetlink.
//!
//! Attributes that are not needed are skipped. The kernel accepts any bytes as a name or an alias: those that are not
//! UTF-8 become U+FFFD, which no name of ours contains. Numbers are from linux/if_link.h, linux/rtnetlink.h and
//! linux/netlink.h.

mod bridge_port;
mod ip;
mod rule;

use std::net::Ipv4Addr;

use otherix_netlink::{Attribute, NLM_F_REPLACE, Reply};
use otherix_schemas::value::MacAddress;

pub(super) use self::bridge_port::PortData;
use crate::model::ip::{IpChange, RouteChange};
use crate::model::link::{BRIDGE, BridgeSettings, Link, LinkChange, VXLAN};
use crate::model::route_lookup::RouteLookup;
use crate::model::vxlan::Vxlan;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_NEWNETCONF: u16 = 80;
const RTM_DELNETCONF: u16 = 81;
const RTM_NEWVLAN: u16 = 112;
const RTM_DELVLAN: u16 = 113;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_INET6_CONF: u16 = 2;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BR_MCAST_QUERIER: u16 = 25;
const IFLA_BR_VLAN_DEFAULT_PVID: u16 = 39;

const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_GROUP: u16 = 2;
const IFLA_VXLAN_LINK: u16 = 3;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_GROUP6: u16 = 16;
const IFLA_VXLAN_COLLECT_METADATA: u16 = 25;

/// The attributes with the other end of a tunnel, by kind: `IFLA_VXLAN_GROUP`, `IFLA_GENEVE_REMOTE`,
/// `IFLA_IPTUN_REMOTE`, `IFLA_GRE_REMOTE`, `IFLA_VTI_REMOTE` (linux/if_tunnel.h).
const REMOTES: [(&[&str], u16); 4] =
    [(&[VXLAN, "geneve"], 2), (&["ipip", "sit"], 3), (&["gre", "gretap", "erspan"], 7), (&["vti"], 5)];

/// `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
const IFF_UP: u32 = 1;
const AF_UNSPEC: u8 = 0;
const AF_INET6: u8 = 10;
/// The index of `disable_ipv6` in the settings of a link (`DEVCONF_DISABLE_IPV6`).
const DISABLE_IPV6: usize = 26;

/// The content of a message.
#[derive(Debug)]
pub(super) enum Content {
    Link(LinkChange),
    /// The host's own IPv6 on the link with this index.
    Ipv6 {
        index: u32,
        on: bool,
    },
    Port(PortData),
    /// The VLANs of the port with this index changed.
    Vlans(u32),
    Ip(IpChange),
    /// The answer to a route lookup of an address.
    RouteLookup(Ipv4Addr, RouteLookup),
    /// Not relevant, or malformed.
    Other,
}

pub(super) fn parse(message: Reply<'_>) -> Content {
    let Reply { kind, flags, payload, .. } = message;
    let content = match kind {
        RTM_NEWLINK | RTM_DELLINK if payload.first() == Some(&bridge_port::AF_BRIDGE) => {
            bridge_port::settings(payload).map(Content::Port)
        }
        RTM_NEWLINK if payload.first() == Some(&AF_INET6) => ipv6_of_link(payload),
        RTM_NEWLINK => link(payload).map(|link| Content::Link(LinkChange::Seen(link))),
        RTM_DELLINK => link_header(payload).map(|(index, _)| Content::Link(LinkChange::Gone(index))),
        RTM_NEWNEIGH | RTM_DELNEIGH => bridge_port::fdb_entry(payload).map(Content::Port),
        RTM_NEWVLAN | RTM_DELVLAN => payload.get(4..).and_then(integer).map(Content::Vlans),
        RTM_NEWADDR | RTM_DELADDR => ip::address(payload, kind == RTM_NEWADDR).map(Content::Ip),
        RTM_NEWNETCONF | RTM_DELNETCONF => ip::configuration(payload, kind == RTM_NEWNETCONF).map(Content::Ip),
        RTM_NEWRULE | RTM_DELRULE => {
            rule::rule(payload).map(|rule| Content::Ip(IpChange::Rule { rule, added: kind == RTM_NEWRULE }))
        }
        RTM_NEWROUTE | RTM_DELROUTE => {
            let change = match kind {
                RTM_DELROUTE => RouteChange::Removed,
                _ if flags & NLM_F_REPLACE != 0 => RouteChange::Replaced,
                _ => RouteChange::Added,
            };
            let route = ip::route(payload).map(|route| Content::Ip(IpChange::Route { route, change }));
            route.or_else(|| ip::route_lookup(payload).map(|(to, lookup)| Content::RouteLookup(to, lookup)))
        }
        _ => None,
    };
    content.unwrap_or(Content::Other)
}

/// Parses the index and the flags of a message about a link. Messages of the bridge module, of family `AF_BRIDGE`, are
/// left out: its `RTM_DELLINK` means that a port was detached, not that the link was removed.
fn link_header(payload: &[u8]) -> Option<(u32, u32)> {
    let family = payload.first()?;
    let (index, flags) = (integer(payload.get(4..)?)?, integer(payload.get(8..)?)?);
    (*family == AF_UNSPEC).then_some((index, flags))
}

/// Parses a message of the IPv6 module about a link.
fn ipv6_of_link(payload: &[u8]) -> Option<Content> {
    let attributes = attributes(payload.get(LINK_HEADER..)?);
    let protocol = attributes.into_iter().find(|attribute| attribute.kind == IFLA_PROTINFO)?;
    Some(Content::Ipv6 { index: integer(payload.get(4..)?)?, on: ipv6(protocol.value)? })
}

fn link(payload: &[u8]) -> Option<Link> {
    let (index, flags) = link_header(payload)?;
    let mut name = None;
    let mut link = Link {
        index,
        name: String::new(),
        altnames: Vec::new(),
        kind: String::new(),
        mtu: 0,
        mac: None,
        up: flags & IFF_UP != 0,
        alias: None,
        master: None,
        group: None,
        ipv6: false,
        settings: BridgeSettings::PLAIN,
        vxlan: None,
        remote: None,
    };
    for attribute in attributes(payload.get(LINK_HEADER..)?) {
        let value = attribute.value;
        match attribute.kind {
            IFLA_ADDRESS => link.mac = <[u8; 6]>::try_from(value).ok().and_then(|mac| MacAddress::try_from(mac).ok()),
            IFLA_IFNAME => name = Some(text(value)),
            IFLA_MTU => link.mtu = integer(value)?,
            IFLA_MASTER => link.master = integer(value).filter(|index| *index != 0),
            IFLA_IFALIAS => link.alias = Some(text(value)).filter(|alias| !alias.is_empty()),
            IFLA_GROUP => link.group = integer(value),
            IFLA_AF_SPEC => link.ipv6 = ipv6_of_families(value),
            IFLA_PROP_LIST => link.altnames = altnames(value),
            IFLA_LINKINFO => (link.kind, link.settings, link.vxlan, link.remote) = info(value),
            _ => {}
        }
    }
    link.name = name?;
    Some(link)
}

/// Whether the host's IPv6 is enabled, according to what the families of addresses say about a link; `false` if IPv6
/// does not exist on it.
fn ipv6_of_families(families: &[u8]) -> bool {
    let family = attributes(families).find(|attribute| attribute.kind == u16::from(AF_INET6));
    family.and_then(|family| ipv6(family.value)).unwrap_or(false)
}

/// Whether the host's IPv6 is enabled, according to the attributes of family `AF_INET6` of a link.
fn ipv6(of_family: &[u8]) -> Option<bool> {
    let settings = attributes(of_family).find(|attribute| attribute.kind == IFLA_INET6_CONF)?;
    settings.value.get(DISABLE_IPV6 * 4..).and_then(integer).map(|disabled| disabled == 0)
}

fn altnames(list: &[u8]) -> Vec<String> {
    let names = attributes(list).filter(|attribute| attribute.kind == IFLA_ALT_IFNAME);
    names.map(|attribute| text(attribute.value)).collect()
}

fn info(infos: &[u8]) -> (String, BridgeSettings, Option<Vxlan>, Option<Ipv4Addr>) {
    let find = |kind| attributes(infos).find(|attribute| attribute.kind == kind);
    let kind = find(IFLA_INFO_KIND).map(|attribute| text(attribute.value)).unwrap_or_default();
    let data = |of| find(IFLA_INFO_DATA).filter(|_| kind == of);
    let settings = data(BRIDGE).map_or(BridgeSettings::PLAIN, |attribute| settings(attribute.value));
    let vxlan = data(VXLAN).map(|attribute| vxlan(attribute.value));
    let remote = find(IFLA_INFO_DATA).and_then(|data| remote(&kind, data.value));
    (kind, settings, vxlan, remote)
}

/// Returns the other end of a tunnel over IPv4, unless it has none or a group.
fn remote(kind: &str, data: &[u8]) -> Option<Ipv4Addr> {
    let (_, number) = REMOTES.iter().find(|(kinds, _)| kinds.contains(&kind))?;
    let attribute = attributes(data).find(|attribute| attribute.kind == *number)?;
    let remote = Ipv4Addr::from(attribute.array::<4>()?);
    (!remote.is_unspecified() && !remote.is_multicast()).then_some(remote)
}

fn vxlan(data: &[u8]) -> Vxlan {
    let mut vxlan = Vxlan { vni: 0, port: 0, local: None, learning: false, bound: false };
    for attribute in attributes(data) {
        let value = attribute.value;
        let is_set = value.iter().any(|byte| *byte != 0);
        match attribute.kind {
            IFLA_VXLAN_ID => vxlan.vni = integer(value).unwrap_or_default(),
            IFLA_VXLAN_PORT => {
                vxlan.port = value.first_chunk().map(|port| u16::from_be_bytes(*port)).unwrap_or_default()
            }
            IFLA_VXLAN_LOCAL => vxlan.local = value.first_chunk().map(|octets: &[u8; 4]| Ipv4Addr::from(*octets)),
            IFLA_VXLAN_LEARNING => vxlan.learning = is_set,
            IFLA_VXLAN_GROUP | IFLA_VXLAN_LINK | IFLA_VXLAN_GROUP6 | IFLA_VXLAN_COLLECT_METADATA => {
                vxlan.bound |= is_set;
            }
            _ => {}
        }
    }
    vxlan
}

fn settings(data: &[u8]) -> BridgeSettings {
    let mut settings = BridgeSettings::PLAIN;
    for attribute in attributes(data) {
        let on = attribute.value.iter().any(|byte| *byte != 0);
        match attribute.kind {
            IFLA_BR_STP_STATE => settings.stp = on,
            IFLA_BR_VLAN_FILTERING => settings.vlan_filtering = on,
            IFLA_BR_VLAN_DEFAULT_PVID => settings.vlan_default_pvid = short(attribute.value).unwrap_or_default(),
            IFLA_BR_MCAST_SNOOPING => settings.mcast_snooping = on,
            IFLA_BR_MCAST_QUERIER => settings.mcast_querier = on,
            _ => {}
        }
    }
    settings
}

fn attributes(bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    otherix_netlink::attributes(bytes).map_while(Result::ok)
}

/// Decodes a string up to its NUL.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

fn integer(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn short(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = [u16::try_from(value.len() + 4).unwrap().to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, payload: &[u8]) -> Reply<'_> {
        Reply { kind, flags: 0, sequence: 0, payload }
    }

    fn parse_link(attributes: &[Vec<u8>]) -> Link {
        let header: [u32; 4] = [0, 7, IFF_UP, 0];
        let mut payload: Vec<u8> = header.iter().flat_map(|field| field.to_ne_bytes()).collect();
        payload.extend(attributes.concat());
        let content = parse(message(RTM_NEWLINK, &payload));
        let Content::Link(LinkChange::Seen(link)) = content else { unreachable!("{content:?}") };
        link
    }

    #[test]
    fn accepts_names_and_aliases_that_are_not_utf8() {
        let link = parse_link(&[attribute(IFLA_IFNAME, b"b\xffr\0"), attribute(IFLA_IFALIAS, b"\xc3(\0")]);
        assert_eq!((link.index, link.up), (7, true));
        assert_eq!((link.name.as_str(), link.alias.as_deref()), ("b\u{fffd}r", Some("\u{fffd}(")));
    }

    #[test]
    fn parses_settings_of_bridges_only() {
        let info = |kind: &[u8], data: &[Vec<u8>]| {
            let both = [attribute(IFLA_INFO_KIND, kind), attribute(IFLA_INFO_DATA, &data.concat())].concat();
            parse_link(&[attribute(IFLA_IFNAME, b"x\0"), attribute(IFLA_LINKINFO, &both)]).settings
        };
        let stp = attribute(IFLA_BR_STP_STATE, &1u32.to_ne_bytes());
        let snooping = attribute(IFLA_BR_MCAST_SNOOPING, &[0]);
        let changed = BridgeSettings { stp: true, mcast_snooping: false, ..BridgeSettings::PLAIN };
        assert_eq!(info(b"bridge\0", &[stp.clone(), snooping]), changed);
        assert_eq!(info(b"bridge\0", &[]), BridgeSettings::PLAIN);
        assert_eq!(info(b"bond\0", &[stp]), BridgeSettings::PLAIN);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for kind in [16, 17, 20, 21, 24, 25, 28, 29, 32, 33, 80, 81, 112, 113] {
                for family in [0, 2, 7, 10] {
                    parse(message(kind, &[&[family], bytes.as_slice()].concat()));
                }
            }
        }
    }
}
