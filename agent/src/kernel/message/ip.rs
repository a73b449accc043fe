//! Encodes requests about IPv4: addresses, forwarding and routes.

use std::net::Ipv4Addr;

use otherix_netlink::{Message, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::request;
use crate::model::ip::Address;

/// `AF_INET`.
const AF_INET: u8 = 2;

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

/// Built without `AddressMessageBuilder`, which adds a broadcast address.
fn address_message(index: u32, address: Address) -> AddressMessage {
    let Address { address, prefix } = address;
    let mut message = AddressMessage::default();
    (message.header.family, message.header.index, message.header.prefix_len) = (AddressFamily::Inet, index, prefix);
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

/// Reads which links forward IPv4. Built without `rtnetlink`, which has no netconf messages.
pub(crate) fn get_forwarding() -> Message {
    let mut message = Message::new(RTM_GETNETCONF, NLM_F_DUMP);
    // `struct netconfmsg`, padded.
    message.push(&[AF_INET, 0, 0, 0]);
    message
}
