//! How a link is as a port of a bridge: what may come in by it, and of which VLANs.

use std::collections::BTreeSet;

use otherix_schemas::value::{MacAddress, VlanId};
use serde::{Deserialize, Serialize};

use super::vxlan::Remote;

/// A port of a bridge; or a bridge itself, as the port that leads to its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Port {
    /// Only frames from a MAC that the forwarding database has at this port are let in (`BR_PORT_LOCKED`, Linux 5.18).
    pub locked: bool,
    /// MACs are learnt from the frames that come in.
    pub learning: bool,
    /// Something else of it is not as the kernel makes ports: it floods less, is isolated, sends frames back, or answers for others.
    pub altered: bool,
    /// It has a carrier, and yet forwards nothing.
    pub blocked: bool,
    /// The VLANs that it is in.
    pub vlans: BTreeSet<PortVlan>,
    /// What the forwarding database has at it, but for the addresses of the node itself.
    pub stations: BTreeSet<Station>,
    /// Of a VTEP: what its own forwarding database has.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub remotes: BTreeSet<Remote>,
}

/// A VLAN of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortVlan {
    /// Its id.
    pub id: u16,
    /// Frames that come in without a tag are of it.
    #[serde(default)]
    pub pvid: bool,
    /// Its frames go out without a tag.
    #[serde(default)]
    pub untagged: bool,
}

impl PortVlan {
    /// The VLAN of a port that has no other.
    pub fn access(vlan: VlanId) -> Self {
        Self { id: vlan.get(), pvid: true, untagged: true }
    }
}

/// Somebody who is reached at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Station {
    /// Its address.
    pub mac: MacAddress,
    /// In which VLAN; in none on a bridge that does not tell them apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// An administrator's entry; otherwise it was learnt, and will be forgotten.
    #[serde(rename = "static", default)]
    pub is_static: bool,
}

impl Station {
    /// The entry of a NIC at its tap.
    pub fn of_nic(mac: MacAddress, vlan: Option<VlanId>) -> Self {
        Self { mac, vlan: vlan.map(VlanId::get), is_static: true }
    }
}
