//! Texts of outcomes and warnings of the guest filter.

use crate::model::ip::Address;
use crate::model::link::Link;

/// The filter must be written first.
pub(super) const UNPROTECTED: &str = "waiting for the packet filter's tables `otherix_guests`";

/// The filter cannot be read.
pub(super) const UNREAD: &str = "waiting until the packet filter can be read: other programs change it too often";

/// Someone gave the node an address on a bridge without a gateway.
pub(super) fn has_address(bridge: &Link, address: Address) -> String {
    let name = &bridge.name;
    format!(
        "`{name}` has the address {address} on this node: guests on this node do not reach it, but other ports of \
        the bridge do; remove it unless the node needs it"
    )
}
