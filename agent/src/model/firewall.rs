//! The node's packet filter: our own table, and what others have in theirs that works against us.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::desired::Gateway;

/// The name of our table, of family `ip`.
pub const TABLE: &str = "otherix";

/// What our table is to say: for each of these bridges, that its guests reach the outside through the node, and nothing else of
/// ours. By the bridge's name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ruleset(pub BTreeMap<String, Gateway>);

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
            Self::Absent => wanted.0.is_empty(),
            Self::Altered | Self::Unread => false,
            Self::Are(rules) => rules == wanted,
        }
    }
}
