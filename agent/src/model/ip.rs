//! The node's IPv4 configuration: addresses, forwarding and routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use otherix_schemas::value::{GatewaySubnet, Ipv4Subnet};
use serde::{Deserialize, Serialize};

use super::route::{Prefix, Route, Routes, around_and_within};
use super::rule::{Rule, Rules};

/// The node's IPv4 configuration, by interface index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ipv4Config {
    pub addresses: BTreeMap<u32, BTreeSet<Address>>,
    /// Links with `net.ipv4.conf.<link>.forwarding` on.
    pub forwarding: BTreeSet<u32>,
    /// `net.ipv4.ip_forward`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub forwards_all: bool,
    /// Links whose forwarding this agent turned on, and whether that of all links (`ip_forward`) was on then.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub turned_on: BTreeMap<u32, bool>,
    /// Of all tables. Read only if the desired state depends on them.
    pub routes: Routes,
    pub rules: Rules,
}

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    pub address: Ipv4Addr,
    /// Prefix length, 0 to 32.
    pub prefix: u8,
}

impl Address {
    /// Returns the prefix of the addresses that are on the same link.
    pub fn network(self) -> Prefix {
        Prefix::of(self.address, self.prefix)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { address, prefix } = self;
        write!(f, "{address}/{prefix}")
    }
}

/// A node's address on a network with egress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    pub address: Ipv4Addr,
    /// The network's subnet; `address` is in it.
    pub subnet: Ipv4Subnet,
}

impl Gateway {
    /// Returns the gateway that this address of a bridge makes it, unless it is not in a valid subnet.
    pub fn of_address(address: Address) -> Option<Self> {
        let Address { address, prefix } = address;
        Some(Self { address, subnet: Ipv4Subnet::new(address, prefix).ok()? })
    }

    /// Returns the address that the bridge must have.
    pub fn bridge_address(self) -> Address {
        Address { address: self.address, prefix: self.subnet.prefix() }
    }
}

impl From<GatewaySubnet> for Gateway {
    fn from(nat: GatewaySubnet) -> Self {
        Self { address: nat.gateway(), subnet: nat.subnet() }
    }
}

/// Prefix of the address, interface index, and the address.
type AddressEntry = (Prefix, u32, Address);

/// The addresses of all links, ordered by their prefixes, to look up overlaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressIndex(BTreeSet<AddressEntry>);

impl AddressIndex {
    /// Returns the addresses whose prefixes overlap this one, with the indexes of their links.
    pub fn overlaps(&self, prefix: Prefix) -> impl Iterator<Item = (u32, Address)> {
        let unspecified = (0, Address { address: Ipv4Addr::UNSPECIFIED, prefix: 0 });
        let all = [(Prefix::ALL, Prefix::ALL)].into_iter().chain(around_and_within(prefix));
        all.flat_map(move |(from, to)| {
            let entries = self.0.range((from, unspecified.0, unspecified.1)..);
            entries.take_while(move |(prefix, ..)| *prefix <= to).map(|(_, index, address)| (*index, *address))
        })
    }
}

/// A change of the node's IPv4 configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IpChange {
    Address {
        index: u32,
        address: Address,
        /// Otherwise it was removed.
        added: bool,
    },
    Forwarding {
        index: u32,
        on: bool,
    },
    /// `net.ipv4.ip_forward` was changed.
    ForwardingOfAll {
        on: bool,
    },
    /// `rp_filter` of a link or of all was changed. It is not part of the configuration, but look-ups depend on it.
    ReversePathFilter,
    Route {
        route: Route,
        change: RouteChange,
    },
    Rule {
        rule: Rule,
        /// Otherwise it was removed, and all of them must be read again: another one may be alike.
        added: bool,
    },
}

/// How a route changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteChange {
    Added,
    /// It was added, and another one to the same destination was removed.
    Replaced,
    Removed,
}

impl Ipv4Config {
    /// Applies a change. Returns whether the configuration differs afterwards.
    pub fn apply(&mut self, change: &IpChange) -> bool {
        match *change {
            IpChange::Address { index, address, added: true } => {
                self.addresses.entry(index).or_default().insert(address)
            }
            IpChange::Address { index, address, added: false } => {
                let Some(addresses) = self.addresses.get_mut(&index) else { return false };
                let changed = addresses.remove(&address);
                if addresses.is_empty() {
                    self.addresses.remove(&index);
                }
                changed
            }
            IpChange::Forwarding { index, on: true } => self.forwarding.insert(index),
            IpChange::Forwarding { index, on: false } => self.forwarding.remove(&index),
            IpChange::ForwardingOfAll { on } => std::mem::replace(&mut self.forwards_all, on) != on,
            IpChange::Route { ref route, change: RouteChange::Added | RouteChange::Replaced } => {
                self.routes.insert(route.clone())
            }
            IpChange::Route { ref route, change: RouteChange::Removed } => self.routes.remove(route),
            IpChange::Rule { ref rule, added: true } => self.rules.insert(rule.clone()),
            IpChange::ReversePathFilter | IpChange::Rule { added: false, .. } => true,
        }
    }

    /// Removes a link that no longer exists.
    pub fn remove_link(&mut self, index: u32) {
        self.addresses.remove(&index);
        self.forwarding.remove(&index);
        self.turned_on.remove(&index);
    }

    /// Whether the link forwards only because this agent turned it on. Not if someone has turned on forwarding of all
    /// links since: that sets it on each of them, too.
    pub fn forwards_for_us(&self, index: u32) -> bool {
        let was_on_for_all = self.turned_on.get(&index);
        self.forwarding.contains(&index) && was_on_for_all.is_some_and(|was_on| *was_on || !self.forwards_all)
    }

    /// Whether routes use the link.
    pub fn has_routes(&self, index: u32) -> bool {
        self.routes.iter().any(|route| route.links.contains(&index))
    }

    /// Returns all addresses, ordered by their prefixes.
    pub fn address_index(&self) -> AddressIndex {
        let all =
            self.addresses.iter().flat_map(|(index, addresses)| addresses.iter().map(|address| (*index, *address)));
        AddressIndex(all.map(|(index, address)| (address.network(), index, address)).collect())
    }

    /// Whether the link has this address.
    pub fn has(&self, index: u32, address: Address) -> bool {
        self.addresses.get(&index).is_some_and(|addresses| addresses.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_addresses_that_overlap_a_subnet() {
        let overlaps = |address: &str, prefix, subnet: &str| {
            let mut ip = Ipv4Config::default();
            let address = Address { address: address.parse().unwrap(), prefix };
            ip.apply(&IpChange::Address { index: 3, address, added: true });
            let found: Vec<_> =
                ip.address_index().overlaps(Prefix::from(subnet.parse::<Ipv4Subnet>().unwrap())).collect();
            assert!(found.iter().all(|found| *found == (3, address)) && found.len() < 2);
            !found.is_empty()
        };
        assert!(overlaps("10.20.0.9", 32, "10.20.0.0/24"));
        assert!(overlaps("10.20.7.9", 16, "10.20.0.0/24"));
        assert!(overlaps("10.20.0.200", 28, "10.20.0.0/24"));
        assert!(!overlaps("10.20.1.9", 24, "10.20.0.0/24"));
        assert!(overlaps("10.20.0.9", 24, "10.20.0.0/24"));
        assert!(overlaps("10.20.0.255", 32, "10.20.0.0/24"));
        assert!(!overlaps("10.20.1.0", 32, "10.20.0.0/24"));
        assert!(!overlaps("10.19.255.255", 16, "10.20.0.0/24"));
        assert!(overlaps("192.0.2.1", 0, "10.20.0.0/24"));
    }
}
