//! The tap that a NIC requires on its node.

use otherix_schemas::id::{NetworkId, NicId};
use otherix_schemas::nic::tap_name;
use otherix_schemas::value::MacAddress;
use serde::{Deserialize, Serialize};

use crate::model::cluster_view::DecidedNic;

/// A tap: a port of its network's bridge, to which the hypervisor attaches the VM. It is always up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredTap {
    pub name: String,
    pub network: NetworkId,
    /// The NIC's MAC address. The port accepts no frames with another source address.
    pub mac: MacAddress,
}

impl DesiredTap {
    /// Returns the tap of a NIC, unless the NIC is detached.
    pub(super) fn of(id: NicId, nic: &DecidedNic) -> Option<Self> {
        let DecidedNic { attached, attached_at: _, bound: _, detached_at } = nic;
        let tap = Self { name: tap_name(id), network: attached.network_id, mac: attached.mac };
        detached_at.is_none().then_some(tap)
    }
}
