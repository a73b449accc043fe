//! Encodes requests about IPv4: addresses, forwarding and routes.

use std::net::Ipv4Addr;

use otherix_netlink::{Message, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::request;
use crate::model::ip::Address;
use crate::model::route::LOCAL_TABLE;

/// `AF_INET`.
const AF_INET: u8 = 2;

const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_IIF: u16 = 3;

const RTM_GETROUTE: u16 = 26;
const RTM_GETRULE: u16 = 34;
const RTM_GETNETCONF: u16 = 82;

/// The protocol of our routes (`rtm_protocol`): a number that neither the kernel nor any routing daemon uses
/// (linux/rtnetlink.h, /etc/iproute2/rt_protos).
pub(crate) const MESH_PROTOCOL: u8 = 111;

pub(crate) fn add_address(index: u32, address: Address) -> Message {
    request(RouteNetlinkMessage::NewAddress(address_message(index, address)), NLM_F_CREATE | NLM_F_REPLACE)
}

pub(crate) fn delete_address(index: u32, address: Address) -> Message {
    request(RouteNetlinkMessage::DelAddress(address_message(index, address)), 0)
}

/// Of link scope: packets that leave by another link, which has no address of its own, never get it as their source.
/// Built without `AddressMessageBuilder`, which adds a broadcast address.
fn address_message(index: u32, address: Address) -> AddressMessage {
    let Address { address, prefix } = address;
    let mut message = AddressMessage::default();
    (message.header.family, message.header.index, message.header.prefix_len) = (AddressFamily::Inet, index, prefix);
    message.header.scope = AddressScope::Link;
    message.attributes = vec![AddressAttribute::Local(address.into()), AddressAttribute::Address(address.into())];
    message
}

/// Adds a route to another node through the mesh device. Fails if there is a route to it.
pub(crate) fn add_mesh_route(index: u32, node: Ipv4Addr, source: Ipv4Addr) -> Message {
    let route = mesh_route(index, node).pref_source(source).build();
    request(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL)
}

pub(crate) fn delete_mesh_route(index: u32, node: Ipv4Addr) -> Message {
    request(RouteNetlinkMessage::DelRoute(mesh_route(index, node).build()), 0)
}

fn mesh_route(index: u32, node: Ipv4Addr) -> RouteMessageBuilder<Ipv4Addr> {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(node, 32)
        .output_interface(index)
        .protocol(RouteProtocol::Other(MESH_PROTOCOL))
        .scope(RouteScope::Link)
}

pub(crate) fn get_addresses() -> Message {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    request(RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP)
}

pub(crate) fn get_routes() -> Message {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    request(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)
}

/// Looks up the route to an address. Built without `rtnetlink`, like the next.
pub(crate) fn look_up(to: Ipv4Addr) -> Message {
    let mut message = Message::new(RTM_GETROUTE, 0);
    // `struct rtmsg`: the family, and the length of the destination.
    message.push(&[AF_INET, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).put(RTA_DST, &to.octets());
    message
}

/// Looks up what happens to a packet from one address to another that is received on a link.
pub(crate) fn look_up_received(from: Ipv4Addr, to: Ipv4Addr, link: u32) -> Message {
    let mut message = Message::new(RTM_GETROUTE, 0);
    message.push(&[AF_INET, 32, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0]).put(RTA_DST, &to.octets());
    message.put(RTA_SRC, &from.octets()).put(RTA_IIF, &link.to_ne_bytes());
    message
}

/// Reads the rules of policy routing. Built without `rtnetlink`, whose message has attributes that are not needed.
pub(crate) fn get_rules() -> Message {
    let mut message = Message::new(RTM_GETRULE, NLM_F_DUMP);
    // `struct fib_rule_hdr`.
    message.push(&[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    message
}

/// Adds the routes that follow from an address, as the kernel does: to its prefix, and to the address itself. Each
/// fails if it exists.
pub(crate) fn add_connected_routes(index: u32, address: Address) -> [Message; 2] {
    let Address { address: own, prefix } = address;
    let route = |to: Ipv4Addr, length| {
        RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to, length)
            .output_interface(index)
            .pref_source(own)
            .protocol(RouteProtocol::Kernel)
    };
    let connected = route(address.network().first(), prefix).scope(RouteScope::Link);
    let local = route(own, 32).table_id(LOCAL_TABLE).kind(RouteType::Local).scope(RouteScope::Host);
    [connected, local].map(|route| request(RouteNetlinkMessage::NewRoute(route.build()), NLM_F_CREATE | NLM_F_EXCL))
}

/// Reads which links forward IPv4. Built without `rtnetlink`, which has no netconf messages.
pub(crate) fn get_forwarding() -> Message {
    let mut message = Message::new(RTM_GETNETCONF, NLM_F_DUMP);
    // `struct netconfmsg`, padded.
    message.push(&[AF_INET, 0, 0, 0]);
    message
}
