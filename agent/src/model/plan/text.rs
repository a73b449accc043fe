//! What people are told of what is in the way, and what they can do about it.

use std::net::Ipv4Addr;

use otherix_schemas::value::{Ipv4Subnet, Vni};

use crate::model::ip::Address;
use crate::model::mesh::MESH;
use crate::model::observed::Link;

/// Our table of the packet filter is being written.
pub(super) const UNGUARDED: &str = "waiting for the packet filter's table `otherix`";

/// Nobody can tell what our table says.
pub(super) const UNREAD: &str =
    "waiting for the packet filter to be left alone: others change it so often that it cannot be read";

/// There is no way out.
pub(super) const NO_UPLINK: &str = "waiting for a default route: this node has none, so that guests have no way out";

/// What passes a bridge goes through the node's IPv4 filter.
pub(super) const BRIDGED: &str = "`net.bridge.bridge-nf-call-iptables` is on: what passes between guests goes through this \
    node's IPv4 packet filter; turn it off unless something needs it";

/// Somebody's packet filter drops what is forwarded.
pub(super) fn drops(chain: &str) -> String {
    format!(
        "the chain `{chain}` drops what is forwarded unless a rule accepts it: accept what comes and goes by the bridge"
    )
}

/// Something else reaches addresses of a network with NAT egress.
pub(super) fn overlap(subnet: Ipv4Subnet, link: &Link, address: Address) -> String {
    let name = &link.name;
    format!(
        "`{name}` has the address {address} on this node, which overlaps the network's {subnet}: one of them must change"
    )
}

/// An unmanaged bridge cannot have VLANs as it is.
pub(super) fn no_filtering(link: &Link) -> String {
    let name = &link.name;
    format!("the bridge `{name}` does not tell VLANs apart: turn on its vlan_filtering")
}

/// A NIC's network has no bridge, for this reason.
pub(super) fn network_failed(error: &str) -> String {
    format!("its network failed: {error}")
}

/// A NIC's network has no bridge yet.
pub(super) fn waiting_for_bridge(name: &str) -> String {
    format!("waiting for the bridge `{name}`")
}

/// A tap would change somebody else's bridge.
pub(super) fn narrowing(link: &Link, mtu: u32) -> String {
    let Link { name, mtu: is, .. } = link;
    format!(
        "a tap with the network's mtu {mtu} could lower that of the unmanaged bridge `{name}`, which is {is}: give the \
        network the bridge's mtu, or the bridge the network's"
    )
}

/// Somebody else's device has the name of a bridge of ours.
pub(super) fn squatter(link: &Link) -> String {
    let Link { name, alias, .. } = link;
    let alias = alias.iter().map(|alias| format!(" with the alias `{alias}`")).collect::<String>();
    let what = kind(link);
    format!("`{name}` is already there, {what}{alias} that otherix did not make for this cluster: remove or rename it")
}

/// An alternative name of another device is the name of a bridge.
pub(super) fn alternative(name: &str, link: &Link) -> String {
    format!("`{name}` is an alternative name of the device `{}`: take that alternative name off", link.name)
}

/// A device of ours has been renamed, and cannot get its name back.
pub(super) fn renamed(what: &str, taken: &str, why: &str) -> String {
    format!("the {what} was renamed to `{taken}`, and cannot get its name back: {why}")
}

/// Two bridges of ours were given each other's names.
pub(super) fn exchanged(name: &str, taken: &str) -> String {
    format!("the network's bridge was renamed to `{taken}`, and another bridge of otherix to `{name}`: renaming both")
}

/// There is no device with an unmanaged bridge's name.
pub(super) fn missing(name: &str) -> String {
    format!(
        "there is no bridge `{name}` on this node, and otherix does not make it, for the network is unmanaged: make it"
    )
}

/// The device with an unmanaged bridge's name is something else.
pub(super) fn no_bridge(link: &Link) -> String {
    let Link { name, .. } = link;
    format!("`{name}` is {}, not a bridge: remove or rename it, and make the bridge", kind(link))
}

/// An unmanaged bridge says that it is ours.
pub(super) fn made_by_nobody(link: &Link) -> String {
    let Link { name, .. } = link;
    format!(
        "`{name}` has the alias of a bridge that otherix made, for a network that is unmanaged: make it anew without"
    )
}

/// An unmanaged bridge carries less than the network promises.
pub(super) fn narrow(link: &Link, mtu: u32) -> String {
    format!("the unmanaged bridge `{}` has mtu {}, its network {mtu}: longer frames are lost", link.name, link.mtu)
}

/// A bridge of ours cannot be removed.
pub(super) fn foreign_port(link: &Link, port: &Link) -> String {
    let (bridge, port) = (&link.name, &port.name);
    format!("the bridge `{bridge}` has the port `{port}`, which otherix did not make: take it off the bridge")
}

fn kind(link: &Link) -> String {
    match link.kind.as_str() {
        "" => "a device".to_owned(),
        kind => format!("a device of kind `{kind}`"),
    }
}

/// There is no device of the mesh.
pub(super) fn no_mesh(trouble: Option<&str>) -> String {
    trouble.map_or_else(|| format!("waiting for the mesh: this node has no `{MESH}`"), mesh_trouble)
}

/// The mesh's device has another address, or none.
pub(super) fn mesh_without_address(address: Ipv4Addr, trouble: Option<&str>) -> String {
    let text = || format!("waiting for the mesh: `{MESH}` does not have the address {address}");
    trouble.map_or_else(text, mesh_trouble)
}

/// The mesh's device was renamed, and the packet filter does not know it.
pub(super) fn mesh_renamed(name: &str) -> String {
    format!("waiting for the mesh: `{MESH}` was renamed to `{name}`")
}

/// Something keeps the mesh's device from being as it must be.
pub(super) fn mesh_trouble(trouble: &str) -> String {
    format!("waiting for the mesh: {trouble}")
}

/// A node that has NICs of the network is not reached.
pub(super) fn node_blocked(node: Ipv4Addr, why: &str) -> String {
    format!("waiting for the way to {node} by the mesh: {why}")
}

/// The mesh's device is down.
pub(super) fn mesh_down() -> String {
    format!("waiting for the mesh: `{MESH}` is down")
}

/// A VTEP of ours cannot be changed into what it must be.
pub(super) fn made_anew(link: &Link) -> String {
    format!("waiting for removal of `{}`, which somebody made or changed otherwise: it is made anew", link.name)
}

/// Somebody else's device has a VTEP's id.
pub(super) fn same_vni(link: &Link, vni: Vni) -> String {
    format!("`{}` is a VXLAN device with the VNI {vni} that otherix did not make: remove it", link.name)
}
