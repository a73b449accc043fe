//! The bridge that a network requires on a node.

use otherix_schemas::id::{NetworkId, NodeId};
use otherix_schemas::network::{BridgeSpec, Egress, Ownership};
use otherix_schemas::value::{MacAddress, VlanId};
use serde::{Deserialize, Serialize};

use crate::model::ip::Gateway;

/// A bridge. A managed one is always up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredBridge {
    pub name: String,
    /// In bytes.
    pub mtu: u32,
    /// Guests have it in their ARP caches as the gateway's. Any, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// The VLAN of the network's NICs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanId>,
    /// Present if the network has NAT egress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<Gateway>,
    /// The guests may use other addresses than those of their NICs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_spoofing: bool,
    /// The gateway, which the bridge is, resolves names over TCP, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dns: bool,
}

impl DesiredBridge {
    /// Returns the bridge of a network with this spec.
    pub(super) fn of(spec: &BridgeSpec, mac: Option<MacAddress>) -> Self {
        let BridgeSpec { bridge_name, ownership, mtu, vlan, dhcp, allow_spoofing } = spec;
        let nat = match ownership {
            Ownership::Managed(Egress::Nat(nat)) => Some(Gateway::from(*nat)),
            Ownership::Managed(Egress::None) | Ownership::Unmanaged => None,
        };
        let (name, mtu) = (bridge_name.to_string(), mtu.get().into());
        let dns = nat.is_some() && dhcp.is_some_and(|dhcp| dhcp.dns);
        Self { name, mtu, mac, vlan: *vlan, nat, allow_spoofing: *allow_spoofing, dns }
    }
}

/// Returns the MAC address of a network's bridge on a node. It is locally administered, and derived from the random
/// ends of both ids: a bridge that is created again gets the same, and two bridges of one segment have different ones.
pub(super) fn mac(network: NetworkId, node: NodeId) -> Option<MacAddress> {
    let mixed = network.uuid().as_u128() ^ node.uuid().as_u128();
    let [.., a, b, c, d, e] = mixed.to_be_bytes();
    MacAddress::try_from([0x02, a, b, c, d, e]).ok()
}
