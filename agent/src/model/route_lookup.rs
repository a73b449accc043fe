//! Route lookups: how the node's own packets reach an address, as the kernel finds it with all rules of policy routing
//! and all tables.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// The result of a route lookup: how packets of the node reach an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteLookup {
    /// They leave by the link with this interface index.
    Through {
        link: u32,
        /// The next hop, if the address is not on the link.
        #[serde(default)]
        gateway: Option<Ipv4Addr>,
        /// Their source address.
        #[serde(default)]
        source: Option<Ipv4Addr>,
        /// Whether the node accepts packets from the address and from the next hop on that link: its reverse path
        /// filter may drop them, also the next hop's ARP requests.
        #[serde(default = "yes")]
        is_answered: bool,
    },
    /// The address is one of the node's own, or a broadcast address.
    Local,
    /// A rule or a route drops them.
    Dropped,
    /// No route leads there.
    NoRoute,
}

fn yes() -> bool {
    true
}

/// The results, by the address that was looked up.
pub type RouteLookups = BTreeMap<Ipv4Addr, RouteLookup>;
