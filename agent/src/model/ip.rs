//! The node's IPv4 configuration: addresses, forwarding and uplinks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use otherix_schemas::value::{Ipv4Subnet, Nat};
use serde::{Deserialize, Serialize};

/// The node's IPv4 configuration, by interface index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ipv4Config {
    pub addresses: BTreeMap<u32, BTreeSet<Address>>,
    /// Links with `net.ipv4.conf.<link>.forwarding` on.
    pub forwarding: BTreeSet<u32>,
    /// Links that default routes of the main table use.
    pub uplinks: BTreeSet<u32>,
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
    fn network(self) -> u32 {
        self.address.to_bits() & mask(self.prefix)
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

impl From<Nat> for Gateway {
    fn from(nat: Nat) -> Self {
        Self { address: nat.gateway(), subnet: nat.subnet() }
    }
}

/// Network address and prefix length, interface index, and the address that implies the route.
type ConnectedRoute = ((u32, u8), u32, Address);

/// The connected routes that follow from the addresses of all links, ordered by network address, to look up overlaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectedRoutes(BTreeSet<ConnectedRoute>);

impl ConnectedRoutes {
    /// Returns the addresses whose prefixes overlap the subnet, with the indexes of their links.
    pub fn overlaps(&self, subnet: Ipv4Subnet) -> impl Iterator<Item = (u32, Address)> {
        let (first, last) = (subnet.network().to_bits(), subnet.broadcast().to_bits());
        let within = (first, subnet.prefix())..=(last, 32);
        let around = (0..subnet.prefix()).map(move |prefix| {
            let key = (first & mask(prefix), prefix);
            key..=key
        });
        around.chain([within]).flat_map(|keys| {
            let least = Address { address: Ipv4Addr::UNSPECIFIED, prefix: 0 };
            let most = Address { address: Ipv4Addr::BROADCAST, prefix: u8::MAX };
            let (from, to) = keys.into_inner();
            self.0.range((from, 0, least)..=(to, u32::MAX, most)).map(|(_, index, address)| (*index, *address))
        })
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
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
    /// A default route uses this link.
    Uplink(u32),
    /// A default route changed, and all of them must be read again.
    Routes,
}

impl Ipv4Config {
    /// Applies a change. Returns whether the configuration differs afterwards; always for [`IpChange::Routes`].
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
            IpChange::Uplink(index) => self.uplinks.insert(index),
            IpChange::Routes => true,
        }
    }

    /// Removes a link that no longer exists.
    pub fn remove_link(&mut self, index: u32) {
        self.addresses.remove(&index);
        self.forwarding.remove(&index);
        self.uplinks.remove(&index);
    }

    pub fn connected_routes(&self) -> ConnectedRoutes {
        let all =
            self.addresses.iter().flat_map(|(index, addresses)| addresses.iter().map(|address| (*index, *address)));
        ConnectedRoutes(all.map(|(index, address)| ((address.network(), address.prefix), index, address)).collect())
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
            let found: Vec<_> = ip.connected_routes().overlaps(subnet.parse().unwrap()).collect();
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
