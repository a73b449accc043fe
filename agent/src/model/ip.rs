//! IPv4 on the node as the kernel told of it: addresses, which links forward, and by which the default routes lead.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use otherix_schemas::value::Ipv4Subnet;
use serde::{Deserialize, Serialize};

/// IPv4 on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ip {
    /// The addresses of each link, by its index.
    pub addresses: BTreeMap<u32, BTreeSet<Address>>,
    /// The links that forward what comes in by them.
    pub forwarding: BTreeSet<u32>,
    /// The links by which default routes lead.
    pub uplinks: BTreeSet<u32>,
}

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The address.
    pub address: Ipv4Addr,
    /// How many bits of it are the network's, 0 to 32.
    pub prefix: u8,
}

impl Address {
    /// Whether what it makes reachable directly and `subnet` have an address in common.
    pub fn overlaps(self, subnet: Ipv4Subnet) -> bool {
        let prefix = self.prefix.min(subnet.prefix());
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        self.address.to_bits() & mask == subnet.network().to_bits() & mask
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { address, prefix } = self;
        write!(f, "{address}/{prefix}")
    }
}

/// Something the kernel told of IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IpChange {
    /// A link has an address, or has it no more.
    Address {
        /// The link.
        index: u32,
        /// The address.
        address: Address,
        /// It has it.
        there: bool,
    },
    /// Whether a link forwards.
    Forwarding {
        /// The link.
        index: u32,
        /// It does.
        on: bool,
    },
    /// A default route leads by this link.
    Uplink(u32),
    /// Something about a default route changed: they must be read anew.
    Routes,
}

impl Ip {
    /// Takes a change in. Says whether it is one.
    pub fn apply(&mut self, change: &IpChange) -> bool {
        match *change {
            IpChange::Address { index, address, there: true } => {
                self.addresses.entry(index).or_default().insert(address)
            }
            IpChange::Address { index, address, there: false } => {
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

    /// A link is gone.
    pub fn forget(&mut self, index: u32) {
        self.addresses.remove(&index);
        self.forwarding.remove(&index);
        self.uplinks.remove(&index);
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
    fn an_address_overlaps_what_its_prefix_reaches() {
        let overlaps = |address: &str, prefix, subnet: &str| {
            Address { address: address.parse().unwrap(), prefix }.overlaps(subnet.parse().unwrap())
        };
        assert!(overlaps("10.20.0.9", 32, "10.20.0.0/24"));
        assert!(overlaps("10.20.7.9", 16, "10.20.0.0/24"));
        assert!(overlaps("10.20.0.200", 28, "10.20.0.0/24"));
        assert!(!overlaps("10.20.1.9", 24, "10.20.0.0/24"));
        assert!(overlaps("192.0.2.1", 0, "10.20.0.0/24"));
    }
}
