//! Texts of outcomes and warnings of NAT egress and the packet filter.

use std::net::Ipv4Addr;

use otherix_schemas::value::Ipv4Subnet;

use crate::model::ip::Address;
use crate::model::link::Link;
use crate::model::need::Need;
use crate::model::route::{Prefix, Route};

/// Our table must be written first.
pub(super) const UNPROTECTED: &str = "waiting for the packet filter's table `otherix`";

/// Our table cannot be read.
pub(super) const UNREAD: &str = "waiting until the packet filter can be read: other programs change it too often";

pub(super) const NO_UPLINK: &str =
    "waiting for a default route: this node has none, so guests cannot reach the outside";

/// A rule of policy routing drops all packets of the network's guests.
pub(super) fn rule_drops(priority: u32) -> String {
    format!(
        "the routing rule with priority {priority} of this node drops the packets of guests: remove it, or let a rule \
        of lower priority number select a table for them (see `ip rule`)"
    )
}

/// A rule of policy routing drops packets of the network's guests to some destinations.
pub(super) fn rule_drops_to(priority: u32, to: Prefix) -> String {
    format!("the routing rule with priority {priority} drops packets of guests to {to} (see `ip rule`)")
}

/// The default route of the table that is selected for guests drops their packets.
pub(super) fn default_route_drops(table: u32) -> String {
    format!(
        "waiting for a default route: that of table {table}, which routing rules select for guests, drops packets (see \
        `ip route show table {table}`)"
    )
}

/// Bridged frames traverse the IPv4 filter.
pub(super) const BRIDGED: &str = "`net.bridge.bridge-nf-call-iptables` is on: traffic between guests traverses this \
    node's IPv4 packet filter; turn it off unless something needs it";

/// An address of the node overlaps the network's subnet.
pub(super) fn overlap(subnet: Ipv4Subnet, link: &Link, address: Address) -> String {
    let name = &link.name;
    format!(
        "`{name}` has the address {address} on this node, which overlaps the network's {subnet}: change one of them"
    )
}

/// The network's subnet contains an address that the node must be able to reach.
pub(super) fn needed(subnet: Ipv4Subnet, address: Ipv4Addr, need: Need) -> String {
    format!("subnet {subnet} contains {address}, which this node needs {need}: use another subnet")
}

/// Packets of the node to an address that it must be able to reach have the gateway's address as their source.
pub(super) fn stolen_source(gateway: Ipv4Addr, address: Ipv4Addr, need: Need) -> String {
    format!(
        "with the gateway {gateway}, this node's packets to {address}, which it needs {need}, have the source address \
        {gateway} and get no answer: give the link that they leave by an address"
    )
}

/// The network was withdrawn from this node, for this reason.
pub(super) fn withdrawn(reason: &str) -> String {
    format!(
        "{reason}; the network was withdrawn from this node, and is created again when it is updated or after \
        `otherix-agent release --state DIR --network NAME` there"
    )
}

/// Packets to guests do not reach the bridge.
pub(super) fn led_away(subnet: Ipv4Subnet, guest: Ipv4Addr, what: &str) -> String {
    format!("this node's policy routing {what} to guests of {subnet}: see `ip rule` and `ip route get {guest}`")
}

/// The network's subnet contains the other end of a tunnel of the node.
pub(super) fn tunnel(subnet: Ipv4Subnet, remote: Ipv4Addr, link: &Link) -> String {
    let name = &link.name;
    format!("subnet {subnet} contains {remote}, the other end of this node's tunnel `{name}`: use another subnet")
}

/// The network's subnet contains the next hop of the route to what the node needs.
pub(super) fn needed_hop(subnet: Ipv4Subnet, hop: Ipv4Addr, address: Ipv4Addr, need: Need) -> String {
    format!(
        "subnet {subnet} contains {hop}, through which this node reaches {address}, which it needs {need}: use another \
        subnet"
    )
}

/// The network's subnet contains the next hop of a route of the node.
pub(super) fn next_hop(subnet: Ipv4Subnet, hop: Ipv4Addr, link: &Link) -> String {
    format!("subnet {subnet} contains {hop}, the next hop of a route of this node through `{}`", link.name)
}

/// A route of the node overlaps the network's subnet.
pub(super) fn route_overlap(subnet: Ipv4Subnet, route: &Route, links: &[&Link]) -> String {
    let Route { to, gateways, .. } = route;
    let via: String = gateways.iter().map(|gateway| format!(" via {gateway}")).collect();
    let through: String = links.iter().map(|link| format!(" through `{}`", link.name)).collect();
    format!("this node has a route to {to}{via}{through}, which overlaps the network's {subnet}: change one of them")
}

pub(super) fn waiting_for_forwarding(uplink: &str) -> String {
    format!("waiting for `{uplink}` to forward IPv4")
}
