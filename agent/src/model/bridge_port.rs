//! A link as a port of a bridge: its settings, its VLANs, and its entries of the bridge's forwarding database.

use std::collections::BTreeSet;
use std::fmt;

use otherix_schemas::value::{MacAddress, VlanId};
use serde::{Deserialize, Serialize};

use super::vxlan::RemoteEntry;

/// A port of a bridge; or a bridge itself, as the port that leads to its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgePort {
    /// Accepts only frames whose source MAC address the forwarding database has at this port (`BR_PORT_LOCKED`, Linux
    /// 5.18).
    pub locked: bool,
    /// Learns source MAC addresses.
    pub learning: bool,
    /// Another setting differs from the kernel's defaults: flooding, isolation, hairpin or proxy ARP.
    pub altered: bool,
    /// Has a carrier, but is not in the state `forwarding`.
    pub blocked: bool,
    pub vlans: BTreeSet<PortVlan>,
    /// Entries of the bridge's forwarding database at this port, without the node's own addresses.
    pub fdb: BTreeSet<FdbEntry>,
    /// Of a VTEP: its own forwarding database.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub remotes: BTreeSet<RemoteEntry>,
}

/// A VLAN that a port is a member of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortVlan {
    pub id: u16,
    /// Untagged frames that the port receives belong to this VLAN.
    #[serde(default)]
    pub pvid: bool,
    /// The port sends frames of this VLAN untagged.
    #[serde(default)]
    pub untagged: bool,
}

impl PortVlan {
    /// The only VLAN of an access port.
    pub fn access(vlan: VlanId) -> Self {
        Self { id: vlan.get(), pvid: true, untagged: true }
    }
}

/// The VLANs that a port must be a member of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VlanMembership {
    None,
    /// This one only, untagged.
    Access(VlanId),
}

impl From<Option<VlanId>> for VlanMembership {
    fn from(vlan: Option<VlanId>) -> Self {
        vlan.map_or(Self::None, Self::Access)
    }
}

/// An entry of a bridge's forwarding database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdbEntry {
    pub mac: MacAddress,
    /// Absent on a bridge without VLAN filtering.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Configured; otherwise learned, and it ages.
    #[serde(rename = "static", default)]
    pub is_static: bool,
}

impl FdbEntry {
    /// The entry of a NIC.
    pub fn of_nic(mac: MacAddress, vlan: Option<VlanId>) -> Self {
        Self { mac, vlan: vlan.map(VlanId::get), is_static: true }
    }
}

/// As in the description of a step.
impl fmt::Display for VlanMembership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str(" no vlan"),
            Self::Access(vlan) => write!(f, " vlan {vlan}"),
        }
    }
}
