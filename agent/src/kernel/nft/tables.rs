//! Which tables are ours. Numbers are from linux/netfilter.h.

use super::batch::locks;
use super::filter::attribute;
use crate::model::firewall::{GUEST_TABLES, TABLE};

pub(super) const FAMILY_INET: u8 = 1;
pub(super) const FAMILY_IPV4: u8 = 2;
pub(super) const FAMILY_ARP: u8 = 3;
pub(super) const FAMILY_BRIDGE: u8 = 7;
pub(super) const FAMILY_IPV6: u8 = 10;

/// The attribute with the table's name, the same in the messages of all objects.
const TABLE_NAME: u16 = 1;

/// Tables of one name that are replaced together.
pub(super) struct OurTables {
    pub(super) name: &'static str,
    pub(super) families: &'static [u8],
}

impl OurTables {
    /// Those with rules for single networks.
    pub(super) const NETWORKS: Self = Self { name: TABLE, families: &[FAMILY_IPV4, FAMILY_ARP, FAMILY_BRIDGE] };
    /// The guest filter.
    pub(super) const GUESTS: Self =
        Self { name: GUEST_TABLES, families: &[FAMILY_IPV4, FAMILY_ARP, FAMILY_IPV6, FAMILY_BRIDGE] };
    pub(super) const ALL: [Self; 2] = [Self::NETWORKS, Self::GUESTS];

    /// Whether an object of the packet filter, with this message payload, is one of these tables or in one.
    pub(super) fn have(&self, body: &[u8]) -> bool {
        self.families.iter().any(|family| self.have_in(*family, body))
    }

    /// Whether the set of this name in the table of this family has locks of taps.
    pub(super) fn have_locks_in(&self, family: u8, set: &[u8]) -> bool {
        self.name == GUEST_TABLES && family == FAMILY_BRIDGE && locks::has_locks(set)
    }

    /// Whether an object is the table of this family or in it.
    pub(super) fn have_in(&self, family: u8, body: &[u8]) -> bool {
        let name = || attribute(body, TABLE_NAME);
        let is_name = |name: Vec<u8>| name.strip_suffix(&[0]).unwrap_or(&name) == self.name.as_bytes();
        body.first() == Some(&family) && name().is_some_and(is_name)
    }
}

/// Returns the name of a family, as `nft` spells it.
pub(super) fn family_name(family: u8) -> &'static str {
    match family {
        FAMILY_INET => "inet",
        FAMILY_IPV4 => "ip",
        FAMILY_ARP => "arp",
        FAMILY_BRIDGE => "bridge",
        FAMILY_IPV6 => "ip6",
        _ => "another family",
    }
}
