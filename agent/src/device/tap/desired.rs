//! The tap that a NIC requires on its node.

use otherix_schemas::id::{NetworkId, NicId};
use otherix_schemas::nic::tap_name;
use otherix_schemas::value::MacAddress;
use serde::{Deserialize, Serialize};

use crate::model::view::Nic;

/// A tap: a port of its network's bridge that a hypervisor attaches a VM to. It is always up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredTap {
    pub name: String,
    pub network: NetworkId,
    /// The NIC's address. The port accepts no frames with another source address.
    pub mac: MacAddress,
}

/// Returns the tap of a NIC, unless it is detached.
pub fn tap(id: NicId, nic: &Nic) -> Option<DesiredTap> {
    let Nic { attached, attached_at: _, bound: _, detached_at } = nic;
    let tap = DesiredTap { name: tap_name(id), network: attached.network_id, mac: attached.mac };
    detached_at.is_none().then_some(tap)
}
