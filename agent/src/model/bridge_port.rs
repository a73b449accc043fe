//! The state of a link as a bridge port: settings, VLANs, and entries of the bridge's forwarding database.

use std::collections::BTreeSet;
use std::fmt;

use otherix_schemas::value::{MacAddress, VlanId};
use serde::{Deserialize, Serialize};

use super::vxlan::RemoteEntry;

/// A bridge port; or a bridge itself, as the port through which the node uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgePort {
    /// Accepts only frames whose source MAC address the forwarding database has at this port (`BR_PORT_LOCKED`, Linux
    /// 5.18).
    pub locked: bool,
    /// Learns source MAC addresses.
    pub learning: bool,
    /// Flooding, isolation, hairpin mode or proxy ARP differs from the kernel's default.
    pub altered: bool,
    #[serde(skip_serializing_if = "StpState::is_forwarding")]
    pub state: StpState,
    pub vlans: BTreeSet<PortVlan>,
    /// Entries of the bridge's forwarding database that point to this port, except the node's own addresses.
    pub fdb: BTreeSet<FdbEntry>,
    /// The forwarding database of a VTEP itself.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub remotes: BTreeSet<RemoteEntry>,
}

/// The state of a port with a carrier according to the spanning tree protocol; without a carrier, `forwarding`: it
/// forwards nothing, and no state prevents it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StpState {
    Disabled,
    Listening,
    Learning,
    #[default]
    Forwarding,
    Blocking,
}

impl StpState {
    pub fn is_forwarding(&self) -> bool {
        *self == Self::Forwarding
    }
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
    /// Only this one, untagged.
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
    /// It was configured; otherwise it was learned, and ages.
    #[serde(rename = "static", default)]
    pub is_static: bool,
}

impl FdbEntry {
    /// Returns the entry of a NIC.
    pub fn of_nic(mac: MacAddress, vlan: Option<VlanId>) -> Self {
        Self { mac, vlan: vlan.map(VlanId::get), is_static: true }
    }
}

/// As part of the description of a step, after a blank.
impl fmt::Display for VlanMembership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str(" no vlan"),
            Self::Access(vlan) => write!(f, " vlan {vlan}"),
        }
    }
}
