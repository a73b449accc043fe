//! What people are told of what is in the way, and what they can do about it.

use crate::model::observed::Link;

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

/// A bridge of ours has been renamed, and cannot get its name back.
pub(super) fn renamed(taken: &str, why: &str) -> String {
    format!("the network's bridge was renamed to `{taken}`, and cannot get its name back: {why}")
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
