//! Texts of outcomes of bridges: what is wrong, and how to correct it.

use crate::engine::text::link_kind;
use crate::model::link::Link;

/// Two managed bridges have each other's names.
pub(super) fn exchanged(name: &str, current: &str) -> String {
    format!("the network's bridge was renamed to `{current}`, and another otherix bridge to `{name}`: renaming both")
}

pub(super) fn claimed_twice(name: &str) -> String {
    format!("another network has the bridge `{name}`")
}

/// An unmanaged bridge does not exist.
pub(super) fn missing(name: &str) -> String {
    format!(
        "there is no bridge `{name}` on this node, and otherix does not create it, because the network is unmanaged: \
        create it"
    )
}

/// The device with an unmanaged bridge's name is not a bridge.
pub(super) fn not_a_bridge(link: &Link) -> String {
    let Link { name, .. } = link;
    format!("`{name}` is {}, not a bridge: remove or rename it, and create the bridge", link_kind(link))
}

/// An unmanaged bridge has an alias of ours.
pub(super) fn unmanaged_with_alias(link: &Link) -> String {
    let Link { name, .. } = link;
    format!(
        "`{name}` has the alias of a bridge that otherix created, but its network is unmanaged: create it again \
        without the alias"
    )
}

/// An unmanaged bridge does not filter VLANs.
pub(super) fn no_vlan_filtering(link: &Link) -> String {
    format!("the bridge `{}` does not filter VLANs: turn on its vlan_filtering", link.name)
}

/// An unmanaged bridge has a smaller MTU than its network.
pub(super) fn small_mtu(link: &Link, mtu: u32) -> String {
    let Link { name, mtu: current, .. } = link;
    format!("the unmanaged bridge `{name}` has mtu {current}, its network has mtu {mtu}: longer frames are dropped")
}
