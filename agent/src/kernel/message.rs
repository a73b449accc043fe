//! What we say to the kernel of links and their addresses. What concerns ports of bridges is in [`super::bridging`].

use std::net::Ipv4Addr;

use otherix_netlink::{Message, NLM_F_CREATE, NLM_F_DUMP, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_core::NetlinkSerializable;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{BridgeStpState, InfoKind, LinkAttribute, LinkExtentMask};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkWireguard};

use crate::model::desired::{DesiredBridge, DesiredVtep};
use crate::model::ip::Address;
use crate::model::observed::Settings;
use crate::model::owner::Owner;
use crate::model::plan::{Changes, PortChanges, Setting};
use crate::model::vxlan::{PORT, VXLAN};

pub(super) const AF_INET: u8 = 2;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_GETNETCONF: u16 = 82;

const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_UDP_CSUM: u16 = 18;

pub(super) const RTA_DST: u16 = 1;
pub(super) const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;
pub(super) const RTN_UNICAST: u8 = 1;
pub(super) const RT_TABLE_MAIN: u8 = 254;
const RT_SCOPE_LINK: u8 = 253;

/// Who made a route (`rtm_protocol`): a number of ours, which neither the kernel nor any routing program has (linux/rtnetlink.h,
/// /etc/iproute2/rt_protos).
pub(super) const MESH_PROTOCOL: u8 = 111;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// Makes a link that is not there yet, and has the kernel tell of it with its answer. Before Linux 6.2 it does not.
const MAKE: u16 = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO;

/// A bridge that is down and has neither its name nor its alias: the kernel ignores an alias here.
///
/// Its MTU is deliberately not the one it must have. A bridge whose MTU was never changed takes the smallest of its
/// ports' (`br_mtu_auto_adjust`), and setting the MTU that a device has already is no change (`netif_set_mtu_ext`).
///
/// Unless its network has a VLAN, VLANs are not mentioned: a kernel without them refuses the whole message, and without a word
/// they are not told apart. An address that is given here is kept: another would change with every port.
pub(super) fn create(name: &str, bridge: &DesiredBridge) -> Message {
    let DesiredBridge { name: _, mtu, mac, vlan, nat: _ } = bridge;
    let Settings { stp, vlan_filtering: _, vlan_default_pvid: _, mcast_snooping, mcast_querier } = Settings::OURS;
    let settings = [Setting::Stp(stp), Setting::McastSnooping(mcast_snooping), Setting::McastQuerier(mcast_querier)];
    let Settings { vlan_filtering, vlan_default_pvid, .. } = Settings::TAGGED;
    let tagged = [Setting::VlanDefaultPvid(vlan_default_pvid), Setting::VlanFiltering(vlan_filtering)];
    let tagged = tagged.into_iter().filter(|_| vlan.is_some());
    let mut link = LinkMessageBuilder::<LinkBridge>::new(name).mtu(mtu + 1);
    if let Some(mac) = mac {
        link = link.address(mac.octets().to_vec());
    }
    let link = settings.into_iter().chain(tagged).fold(link, set);
    request(RouteNetlinkMessage::NewLink(link.build()), MAKE)
}

fn set(link: LinkMessageBuilder<LinkBridge>, setting: Setting) -> LinkMessageBuilder<LinkBridge> {
    match setting {
        Setting::Stp(on) => link.stp_state(if on { BridgeStpState::KernelStp } else { BridgeStpState::Disabled }),
        Setting::VlanDefaultPvid(vlan) => link.vlan_default_pvid(vlan),
        Setting::VlanFiltering(on) => link.vlan_filtering(on),
        Setting::McastSnooping(on) => link.mcast_snooping(on),
        Setting::McastQuerier(on) => link.mcast_querier(on),
    }
}

/// Gives a new bridge all that it must have, at once. The kernel applies MTU, name, alias and flags in this order
/// (`do_setlink`), so that the bridge still has the temporary name if it refuses one of the first two.
pub(super) fn complete(index: u32, bridge: &DesiredBridge, owner: Owner) -> Message {
    let link = LinkUnspec::new_with_index(index).mtu(bridge.mtu).name(&bridge.name).alias(owner.to_string()).up();
    request(RouteNetlinkMessage::SetLink(link.build()), 0)
}

/// Changes a bridge. As only `RTM_NEWLINK` takes a bridge's settings, it is one; without `NLM_F_CREATE` and with an index it
/// makes nothing.
pub(super) fn change(index: u32, changes: &Changes, owner: Owner) -> Message {
    let Changes { name, mtu, mac, up, alias, release, settings, vlan: _, address: _, forwarding: _ } = changes;
    let mut link = LinkMessageBuilder::<LinkBridge>::new_with_info_kind(InfoKind::Bridge).index(index);
    if let Some(mtu) = mtu {
        link = link.mtu(*mtu);
    }
    if let Some(mac) = mac {
        link = link.address(mac.octets().to_vec());
    }
    if let Some(name) = name {
        link = link.name(name);
    }
    if *alias {
        link = link.alias(owner.to_string());
    }
    if *release {
        link = link.nocontroller();
    }
    if *up {
        link = link.up();
    }
    link = settings.iter().copied().fold(link, set);
    request(RouteNetlinkMessage::NewLink(link.build()), 0)
}

/// Changes a tap or VTEP, but for its being up.
pub(super) fn change_port(index: u32, changes: &PortChanges, owner: Owner) -> Message {
    let PortChanges { name, mtu, up: _, alias, bridge, lock: _, unblock: _, vlan: _, station, forget: _ } = changes;
    let mut link = LinkUnspec::new_with_index(index);
    if let (Some(_), Some(station)) = (bridge, station) {
        // An address that no port's is above: a bridge that was given none takes the lowest of its ports'.
        let [_, rest @ ..] = station.mac.octets();
        link = link.address([&[0xfe], rest.as_slice()].concat());
    }
    if let Some(mtu) = mtu {
        link = link.mtu(*mtu);
    }
    if let Some(name) = name {
        link = link.name(name);
    }
    if *alias {
        link = link.alias(owner.to_string());
    }
    if let Some(bridge) = bridge {
        link = link.controller(*bridge);
    }
    request(RouteNetlinkMessage::SetLink(link.build()), 0)
}

/// A VTEP that is down and has neither its name nor its alias. It sends its frames as they are, without a checksum of its own.
pub(super) fn create_vtep(name: &str, vtep: &DesiredVtep) -> Message {
    let DesiredVtep { name: _, vni, local } = vtep;
    let mut message = Message::new(RTM_NEWLINK, MAKE);
    // `struct ifinfomsg`.
    message.push(&[0; 16]).put_string(IFLA_IFNAME, name).nest(IFLA_LINKINFO, |info| {
        info.put(IFLA_INFO_KIND, VXLAN.as_bytes()).nest(IFLA_INFO_DATA, |data| {
            data.put(IFLA_VXLAN_ID, &vni.get().to_ne_bytes())
                .put(IFLA_VXLAN_LOCAL, &local.octets())
                .put(IFLA_VXLAN_PORT, &PORT.to_be_bytes())
                .put(IFLA_VXLAN_LEARNING, &[0])
                .put(IFLA_VXLAN_UDP_CSUM, &[0]);
        });
    });
    message
}

/// A device of the kernel's WireGuard that is down and has neither its name nor its alias.
pub(super) fn create_wireguard(name: &str) -> Message {
    request(RouteNetlinkMessage::NewLink(LinkWireguard::new(name).build()), MAKE)
}

/// Gives a new device of the mesh its MTU and its alias, and then its name. In one message the kernel would tell of the name
/// first, and who listens would take the device for somebody else's.
pub(super) fn christen(index: u32, name: &str, alias: &str, mtu: Option<u32>) -> [Message; 2] {
    [change_mesh(index, None, Some(alias), mtu), change_mesh(index, Some(name), None, None)]
}

/// Gives a link an address.
pub(super) fn add_address(index: u32, address: Address) -> Message {
    address_request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, index, address)
}

/// Takes an address from a link.
pub(super) fn remove_address(index: u32, address: Address) -> Message {
    address_request(RTM_DELADDR, 0, index, address)
}

fn address_request(kind: u16, flags: u16, index: u32, address: Address) -> Message {
    let Address { address, prefix } = address;
    let mut message = Message::new(kind, flags);
    // `struct ifaddrmsg`.
    message.push(&[AF_INET, prefix, 0, 0]).push(&index.to_ne_bytes());
    message.put(IFA_LOCAL, &address.octets()).put(IFA_ADDRESS, &address.octets());
    message
}

/// Changes the mesh's device, but for its being up.
pub(super) fn change_mesh(index: u32, name: Option<&str>, alias: Option<&str>, mtu: Option<u32>) -> Message {
    let mut link = LinkUnspec::new_with_index(index);
    if let Some(mtu) = mtu {
        link = link.mtu(mtu);
    }
    if let Some(name) = name {
        link = link.name(name);
    }
    if let Some(alias) = alias {
        link = link.alias(alias);
    }
    request(RouteNetlinkMessage::SetLink(link.build()), 0)
}

/// A route to another node by the mesh's device.
pub(super) fn add_mesh_route(index: u32, node: Ipv4Addr, source: Ipv4Addr) -> Message {
    let mut message = mesh_route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, index, node);
    message.put(RTA_PREFSRC, &source.octets());
    message
}

/// Removes it.
pub(super) fn remove_mesh_route(index: u32, node: Ipv4Addr) -> Message {
    mesh_route(RTM_DELROUTE, 0, index, node)
}

fn mesh_route(kind: u16, flags: u16, index: u32, node: Ipv4Addr) -> Message {
    let mut message = Message::new(kind, flags);
    // `struct rtmsg`.
    message.push(&[AF_INET, 32, 0, 0, RT_TABLE_MAIN, MESH_PROTOCOL, RT_SCOPE_LINK, RTN_UNICAST, 0, 0, 0, 0]);
    message.put(RTA_DST, &node.octets()).put(RTA_OIF, &index.to_ne_bytes());
    message
}

/// Asks for all IPv4 addresses.
pub(super) fn addresses() -> Message {
    dump_request(RTM_GETADDR, &[AF_INET, 0, 0, 0, 0, 0, 0, 0])
}

/// Asks which links forward IPv4.
pub(super) fn forwarding() -> Message {
    dump_request(RTM_GETNETCONF, &[AF_INET, 0, 0, 0])
}

/// Asks for all IPv4 routes.
pub(super) fn routes() -> Message {
    dump_request(RTM_GETROUTE, &[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

pub(super) fn take_up(index: u32) -> Message {
    request(RouteNetlinkMessage::SetLink(LinkUnspec::new_with_index(index).up().build()), 0)
}

pub(super) fn take_down(index: u32) -> Message {
    request(RouteNetlinkMessage::SetLink(LinkUnspec::new_with_index(index).down().build()), 0)
}

pub(super) fn remove(index: u32) -> Message {
    request(RouteNetlinkMessage::DelLink(LinkUnspec::new_with_index(index).build()), 0)
}

/// Asks for a link by its name.
pub(super) fn find(name: &str) -> Message {
    request(RouteNetlinkMessage::GetLink(without_statistics().name(name).build()), 0)
}

/// Asks for a link by its index.
pub(super) fn look(index: u32) -> Message {
    request(RouteNetlinkMessage::GetLink(without_statistics().index(index).build()), 0)
}

/// Asks for all links.
pub(super) fn dump() -> Message {
    request(RouteNetlinkMessage::GetLink(without_statistics().build()), NLM_F_DUMP)
}

/// Asks for the ports of a bridge.
pub(super) fn ports(index: u32) -> Message {
    request(RouteNetlinkMessage::GetLink(without_statistics().controller(index).build()), NLM_F_DUMP)
}

fn without_statistics() -> LinkMessageBuilder<LinkUnspec> {
    LinkMessageBuilder::<LinkUnspec>::default()
        .append_extra_attribute(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]))
}

fn dump_request(kind: u16, header: &[u8]) -> Message {
    let mut message = Message::new(kind, NLM_F_DUMP);
    message.push(header);
    message
}

fn request(body: RouteNetlinkMessage, flags: u16) -> Message {
    let mut message = Message::new(body.message_type(), flags);
    body.serialize(message.push_zeroed(body.buffer_len()));
    message
}
