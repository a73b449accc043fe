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

/// The spanning tree forwards the frames of a new port after a delay only.
pub(super) fn spanning_tree_delay(tap: &str, state: &str, bridge: &str) -> String {
    format!(
        "waiting for the spanning tree of bridge `{bridge}`: its port `{tap}` is {state}, and forwards after twice the \
         bridge's forward delay; if nothing needs the spanning tree, `ip link set {bridge} type bridge stp_state 0` \
         turns it off"
    )
}

/// The spanning tree forwards no frames of a port.
pub(super) fn spanning_tree_blocks(tap: &str, state: &str, bridge: &str) -> String {
    format!(
        "the spanning tree of bridge `{bridge}` does not forward frames of its port `{tap}`, whose state is {state}: \
         see `bridge -d link show dev {tap}`"
    )
}
