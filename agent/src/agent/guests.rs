//! The guests whose DHCP the node answers, as the decisions have them.

use std::collections::BTreeMap;

use otherix_responder::{Guest, Lease};

use crate::model::desired::{Desired, DesiredLease, DesiredTap, GATEWAY_MAC};

/// Returns the guests on networks that assign addresses, by the names of their taps.
pub(super) fn answered(desired: &Desired) -> BTreeMap<String, Guest> {
    let taps = desired.nics.values().filter_map(|nic| nic.tap.as_ref());
    taps.filter_map(|tap| Some((tap.name.clone(), guest(desired, tap)?))).collect()
}

fn guest(desired: &Desired, tap: &DesiredTap) -> Option<Guest> {
    let DesiredLease { address, gateway } = tap.lease?;
    let bridge = desired.networks.get(&tap.network)?.want.managed_bridge()?;
    // With NAT egress the bridge has the address of the gateway.
    let of_bridge = bridge.nat.and(bridge.mac);
    let lease = Lease {
        address,
        netmask: gateway.subnet.netmask(),
        server: gateway.address,
        is_router: bridge.nat.is_some(),
        mtu: u16::try_from(bridge.mtu).unwrap_or(u16::MAX),
    };
    Some(Guest {
        mac: tap.mac.octets(),
        lease,
        gateway_mac: of_bridge.map_or(GATEWAY_MAC, |mac| mac.octets()),
        answers_for_gateway: bridge.nat.is_none(),
    })
}

#[cfg(test)]
#[path = "guests_tests.rs"]
mod tests;
