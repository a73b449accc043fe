//! Texts of outcomes of all device kinds: what is wrong, and how to correct it.

use otherix_schemas::outcome::ResourceRef;

use crate::model::link::Link;

/// A foreign device has the name that a device of ours must get.
pub(crate) fn name_conflict(link: &Link) -> String {
    let Link { name, alias, .. } = link;
    let alias = alias.iter().map(|alias| format!(" with the alias `{alias}`")).collect::<String>();
    let what = link_kind(link);
    format!(
        "`{name}` already exists as {what}{alias} that otherix did not create for this cluster: remove or rename it"
    )
}

/// An alternative name of another device is the name that a device of ours must get.
pub(crate) fn altname_conflict(name: &str, link: &Link) -> String {
    format!("`{name}` is an alternative name of the device `{}`: remove that alternative name", link.name)
}

/// A device of ours was renamed, and cannot be renamed back.
pub(crate) fn renamed(what: &str, current: &str, why: &str) -> String {
    format!("the {what} was renamed to `{current}`, and cannot be renamed back: {why}")
}

/// A bridge of ours cannot be removed.
pub(crate) fn foreign_port(bridge: &Link, port: &Link) -> String {
    let (bridge, port) = (&bridge.name, &port.name);
    format!("the bridge `{bridge}` has the port `{port}`, which otherix did not create: detach it from the bridge")
}

/// A NIC's tap is ready, but its network is not.
pub(crate) fn network_pending(why: &str) -> String {
    format!("its network is pending: {why}")
}

/// The network of a NIC has failed.
pub(crate) fn network_failed(error: &str) -> String {
    format!("its network failed: {error}")
}

pub(crate) fn waiting_for_removal(name: &str) -> String {
    format!("waiting for removal of `{name}`")
}

/// The owner of the device with this name is not known yet.
pub(crate) fn waiting_for_owner(name: &str, owner: ResourceRef) -> String {
    format!(
        "waiting for removal of `{name}`, which belongs to {}: it is not known yet whether that still exists",
        of(owner)
    )
}

/// The name that a device must get belongs to the device of another network or NIC.
pub(crate) fn belongs_to(name: &str, what: &str, owner: ResourceRef) -> String {
    format!("`{name}` is the {what} of {}", of(owner))
}

/// Returns the kind of a link, with an article.
pub(crate) fn link_kind(link: &Link) -> String {
    match link.kind.as_str() {
        "" => "a device".to_owned(),
        kind => format!("a device of kind `{kind}`"),
    }
}

fn of(resource: ResourceRef) -> String {
    match resource {
        ResourceRef::Network(id) => format!("network `{id}`"),
        ResourceRef::Nic(id) => format!("NIC `{id}`"),
        ResourceRef::Vm(id) => format!("VM `{id}`"),
    }
}

/// A port's bridge does not exist yet.
pub(crate) fn waiting_for_bridge(name: &str) -> String {
    format!("waiting for the bridge `{name}`")
}
