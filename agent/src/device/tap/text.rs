//! Texts of outcomes of NICs: what is wrong, and how to correct it.

use otherix_schemas::id::NetworkId;

use crate::model::link::Link;

pub(super) fn waiting_for_network(id: NetworkId) -> String {
    format!("waiting for network `{id}`")
}

pub(super) fn network_deleted(id: NetworkId) -> String {
    format!("its network `{id}` is deleted")
}

/// A tap would lower the MTU of an unmanaged bridge.
pub(super) fn small_mtu(bridge: &Link, mtu: u32) -> String {
    let Link { name, mtu: current, .. } = bridge;
    format!(
        "a tap with the network's mtu {mtu} could lower the mtu of the unmanaged bridge `{name}`, which is {current}: \
        set both to the same"
    )
}
