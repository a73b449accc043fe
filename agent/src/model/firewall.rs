//! The node's packet filter: our own table, and what others have in theirs that works against us.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::desired::Gateway;

/// The name of our table, of family `ip`.
pub const TABLE: &str = "otherix";

/// What our table is to say. Whatever else it says, nothing is forwarded from or to the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ruleset {
    /// For each of these bridges, by its name: that its guests reach the outside through the node, and nothing else of ours.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ways_out: BTreeMap<String, Gateway>,
    /// There are VTEPs, which send from this address: VXLAN comes in by the mesh alone, and theirs goes out by it alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vteps: Option<Ipv4Addr>,
}

impl Ruleset {
    /// Whether it says nothing, so that there need be no table.
    pub fn is_empty(&self) -> bool {
        self.ways_out.is_empty() && self.vteps.is_none()
    }
}

/// Our table as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rules {
    /// There is none.
    #[default]
    Absent,
    /// It is not as this process wrote it.
    Altered,
    /// It could not be read for all that others change in the packet filter.
    Unread,
    /// It is as this process wrote it for these.
    Are(Ruleset),
}

/// The packet filter, as far as it concerns us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Firewall {
    /// Our table.
    pub rules: Rules,
    /// Chains of others that drop what is forwarded unless a rule of theirs accepts it, as `family table chain`.
    pub drops: BTreeSet<String>,
    /// What passes a bridge goes through the IPv4 filter too (`bridge-nf-call-iptables`).
    pub bridged: bool,
}

impl Rules {
    /// What the table says, if that is known.
    pub fn known(&self) -> Option<&Ruleset> {
        match self {
            Self::Are(rules) => Some(rules),
            Self::Absent | Self::Altered | Self::Unread => None,
        }
    }

    /// Whether it says just this.
    pub fn are(&self, wanted: &Ruleset) -> bool {
        match self {
            Self::Absent => wanted.is_empty(),
            Self::Altered | Self::Unread => false,
            Self::Are(rules) => rules == wanted,
        }
    }
}
