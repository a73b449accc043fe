//! The tap that a NIC requires on its node.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use otherix_schemas::id::{NetworkId, NicId};
use otherix_schemas::nic::tap_name;
use otherix_schemas::value::MacAddress;
use serde::{Deserialize, Serialize};

use super::DesiredNetwork;
use crate::model::cluster_view::{DecidedNetwork, DecidedNic, NetworkState};
use crate::model::ip::Gateway;
use crate::model::tap_lock::TapLock;

/// A tap: a port of its network's bridge, to which the hypervisor attaches the VM. It is always up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredTap {
    pub name: String,
    pub network: NetworkId,
    /// The NIC's MAC address. The port accepts no frames with another source address, unless the network allows it.
    pub mac: MacAddress,
    /// The address of the NIC, if its network assigns addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<DesiredLease>,
}

/// The address of a NIC, which the node tells its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredLease {
    pub address: Ipv4Addr,
    pub gateway: Gateway,
}

/// The MAC address of the gateway of all overlays with NAT egress, and of all networks that assign addresses and have
/// no NAT egress: the same on every node, so that guests find it wherever they are. It is locally administered.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0x6f, 0x74, 0x67, 0x77, 0x01];

impl DesiredTap {
    /// Returns the tap of a NIC, unless the NIC is detached.
    pub(super) fn of(id: NicId, nic: &DecidedNic, network: Option<&DecidedNetwork>) -> Option<Self> {
        let DecidedNic { attached, attached_at: _, bound: _, detached_at } = nic;
        let dhcp = network.and_then(|network| match &network.state {
            NetworkState::Defined(spec) => spec.dhcp(),
            NetworkState::Deleted => None,
        });
        let lease = dhcp.zip(attached.ip);
        let lease = lease.map(|(dhcp, address)| DesiredLease { address, gateway: dhcp.subnet.into() });
        let tap = Self { name: tap_name(id), network: attached.network_id, mac: attached.mac, lease };
        detached_at.is_none().then_some(tap)
    }

    /// Returns what the guest filter must know of this tap, which is on this network. A guest with an assigned address
    /// can use no other. One that may use any address can still not use the gateway's.
    pub fn locks(&self, network: Option<&DesiredNetwork>) -> BTreeSet<TapLock> {
        let Some(bridge) = network.and_then(|network| network.want.managed_bridge()) else { return BTreeSet::new() };
        let lease = self.lease;
        if !bridge.allow_spoofing {
            let address = lease.map(|lease| TapLock::Address { mac: self.mac, address: lease.address });
            return address.into_iter().flat_map(|address| [address, TapLock::link_local(self.mac)]).collect();
        }
        let gateway = bridge.nat.or(lease.map(|lease| lease.gateway));
        let Some(gateway) = gateway else { return BTreeSet::new() };
        // With NAT egress the bridge is the gateway.
        let mac = if bridge.nat.is_some() { bridge.mac } else { MacAddress::try_from(GATEWAY_MAC).ok() };
        let mac = mac.map(TapLock::GatewayMac);
        mac.into_iter().chain([TapLock::Gateway(gateway.address)]).collect()
    }
}
