//! Encodes requests about bridge ports and forwarding databases.

use std::net::Ipv4Addr;

use otherix_netlink::{Message, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use rtnetlink::packet_route::link::{BridgePortState, BridgeVlanInfoFlags, LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkBridgePort, LinkBridgeVlan, LinkMessageBuilder, LinkUnspec};

use super::{change_link, request};
use crate::model::bridge_port::{FdbEntry, VlanMembership};
use crate::model::vxlan::{Frames, RemoteEntry};

const FIRST_VLAN: u16 = 1;
const LAST_VLAN: u16 = 4094;

/// Locks a port, or unlocks it, disables learning, and sets everything else to the kernel's defaults.
pub(crate) fn configure(index: u32, is_locked: bool) -> Message {
    let port = LinkBridgePort::new(index)
        .hairpin(false)
        .guard(false)
        .root_block(true)
        .mcast_fast_leave(false)
        .flood(true)
        .proxy_arp(false)
        .proxy_arp_wifi(false)
        .mcast_flood(true)
        .mcast_to_unicast(false)
        .bcast_flood(true)
        .neigh_suppress(false)
        .isolated(false)
        .learning(false)
        .locked(is_locked);
    change_link(port.build())
}

/// Sets the state of a port that has a carrier to `forwarding`.
pub(crate) fn unblock(index: u32) -> Message {
    change_link(LinkBridgePort::new(index).state(BridgePortState::Forwarding).build())
}

/// Makes a port, or a bridge itself, a member of these VLANs only.
pub(crate) fn set_vlans(index: u32, vlans: VlanMembership, is_bridge: bool) -> Vec<Message> {
    let port = || {
        let port = LinkBridgeVlan::new(index);
        if is_bridge { port.bridge_self() } else { port }
    };
    let none = BridgeVlanInfoFlags::empty();
    let leave = |first: u16, last: u16| {
        let vlans = if first < last {
            port().vlan_range_start(first, none).vlan_range_end(last, none)
        } else {
            port().vlan(first, none)
        };
        (first <= last).then(|| request(RouteNetlinkMessage::DelLink(vlans.build()), 0))
    };
    match vlans {
        VlanMembership::None => leave(FIRST_VLAN, LAST_VLAN).into_iter().collect(),
        VlanMembership::Access(vlan) => {
            let id = vlan.get();
            let enter = port().vlan(id, BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged).build();
            let enter = request(RouteNetlinkMessage::SetLink(enter), 0);
            [leave(FIRST_VLAN, id - 1), leave(id + 1, LAST_VLAN), Some(enter)].into_iter().flatten().collect()
        }
    }
}

/// Adds an entry to the bridge's forwarding database.
pub(crate) fn add_fdb_entry(index: u32, entry: FdbEntry) -> Message {
    request(RouteNetlinkMessage::NewNeighbour(bridge_entry(index, entry)), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Deletes an entry of the bridge's forwarding database.
pub(crate) fn delete_fdb_entry(index: u32, entry: FdbEntry) -> Message {
    request(RouteNetlinkMessage::DelNeighbour(bridge_entry(index, entry)), 0)
}

/// Makes a VTEP forward frames to a MAC address to this node, and to no other.
pub(crate) fn point_to(index: u32, entry: RemoteEntry) -> Message {
    request(RouteNetlinkMessage::NewNeighbour(remote_entry(index, entry)), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Adds a node to a VTEP's flood list.
pub(crate) fn flood_to(index: u32, node: Ipv4Addr) -> Message {
    let entry = remote_entry(index, RemoteEntry::new(Frames::Flood, node));
    request(RouteNetlinkMessage::NewNeighbour(entry), NLM_F_CREATE | NLM_F_APPEND)
}

/// Deletes entries of a VTEP's forwarding database.
pub(crate) fn delete_remote(index: u32, entry: RemoteEntry) -> Message {
    request(RouteNetlinkMessage::DelNeighbour(remote_entry(index, entry)), 0)
}

/// Reads all bridge ports, with their VLANs.
pub(crate) fn get_ports() -> Message {
    let ports: LinkMessage = LinkMessageBuilder::<LinkUnspec>::default()
        .interface_family(AddressFamily::Bridge)
        .append_extra_attribute(LinkAttribute::ExtMask(vec![LinkExtentMask::Brvlan]))
        .build();
    request(RouteNetlinkMessage::GetLink(ports), NLM_F_DUMP)
}

/// Reads the forwarding databases of all bridges and VTEPs.
pub(crate) fn get_fdb() -> Message {
    let mut entries = NeighbourMessage::default();
    entries.header.family = AddressFamily::Bridge;
    request(RouteNetlinkMessage::GetNeighbour(entries), NLM_F_DUMP)
}

fn bridge_entry(index: u32, entry: FdbEntry) -> NeighbourMessage {
    let FdbEntry { mac, vlan, is_static: _ } = entry;
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Noarp;
    message.header.flags = NeighbourFlags::Controller;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()));
    message.attributes.extend(vlan.map(NeighbourAttribute::Vlan));
    message
}

fn remote_entry(index: u32, entry: RemoteEntry) -> NeighbourMessage {
    let RemoteEntry { frames, node, altered: _ } = entry;
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(frames.octets().to_vec()));
    let node = node.map(NeighbourAddress::Inet);
    message.attributes.extend(node.map(NeighbourAttribute::Destination));
    message
}
