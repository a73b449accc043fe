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
    fn first(self) -> u32 {
        self.address.to_bits() & mask(self.prefix)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { address, prefix } = self;
        write!(f, "{address}/{prefix}")
    }
}

/// All addresses, by the first that each makes reachable directly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach(BTreeSet<((u32, u8), u32, Address)>);

impl Reach {
    /// The addresses that overlap a subnet, with their links: those that reach a part of it, and those that reach all of it.
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

    /// The links with addresses that overlap one of so many subnets are looked for: all addresses, in order.
    pub fn reach(&self) -> Reach {
        let all =
            self.addresses.iter().flat_map(|(index, addresses)| addresses.iter().map(|address| (*index, *address)));
        Reach(all.map(|(index, address)| ((address.first(), address.prefix), index, address)).collect())
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
            let mut ip = Ip::default();
            let address = Address { address: address.parse().unwrap(), prefix };
            ip.apply(&IpChange::Address { index: 3, address, there: true });
            let found: Vec<_> = ip.reach().overlaps(subnet.parse().unwrap()).collect();
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
