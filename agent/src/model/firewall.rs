//! The node's packet filter: our own table, and what other tables contain that prevents our networks from working.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::ip::Gateway;

/// The name of our table, of family `ip`.
pub const TABLE: &str = "otherix";

/// What our table has rules for. Forwarding from or to the mesh device is dropped in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ruleset {
    /// Networks with NAT egress, by the name of their bridge: guests reach the outside through the node, and no other
    /// network of ours.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nat_networks: BTreeMap<String, Gateway>,
    /// The source address of VTEPs, if there are any: VXLAN is received and sent through the mesh device only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vteps: Option<Ipv4Addr>,
}

impl Ruleset {
    /// Whether no table is needed.
    pub fn is_empty(&self) -> bool {
        self.nat_networks.is_empty() && self.vteps.is_none()
    }
}

/// The state of our table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableState {
    #[default]
    Absent,
    /// It is not as this process wrote it.
    Altered,
    /// It could not be read, because other programs change the packet filter too often.
    Unread,
    /// It is as this process wrote it.
    Holds(Ruleset),
}

/// The packet filter, as far as it concerns us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Firewall {
    pub table: TableState,
    /// Base chains of other tables that hook `forward` with policy `drop`, as `family table chain`.
    pub drops: BTreeSet<String>,
    /// Bridged IPv4 frames traverse the IPv4 filter (`net.bridge.bridge-nf-call-iptables`).
    pub bridged: bool,
}

impl TableState {
    /// Returns the ruleset of the table, if it is known.
    pub fn known(&self) -> Option<&Ruleset> {
        match self {
            Self::Holds(ruleset) => Some(ruleset),
            Self::Absent | Self::Altered | Self::Unread => None,
        }
    }

    /// Whether the table is just what this ruleset requires.
    pub fn is(&self, wanted: &Ruleset) -> bool {
        match self {
            Self::Absent => wanted.is_empty(),
            Self::Altered | Self::Unread => false,
            Self::Holds(ruleset) => ruleset == wanted,
        }
    }
}
