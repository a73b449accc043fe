//! Allowed IPs: the peer of an address, by the longest matching prefix. They select the peer to send to, and the source
//! addresses that are accepted from a peer. Adding a prefix to a peer removes it from the peer that had it. Pure.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use super::prefix::{Prefix, mask_v4, mask_v6};

/// Prefixes, each with the peer `P` that has it.
#[derive(Debug)]
pub(crate) struct AllowedIps<P> {
    v4: PrefixTable<u32, P>,
    v6: PrefixTable<u128, P>,
    by_peer: HashMap<P, BTreeSet<Prefix>>,
}

/// The prefixes of one address family: the network addresses by prefix length, longest first. Each node has one /32, so
/// most lookups take a single access to a hash table.
#[derive(Debug)]
struct PrefixTable<A, P> {
    lengths: Vec<(u8, HashMap<A, P>)>,
}

impl<P: Copy + Eq + Hash> AllowedIps<P> {
    pub(crate) fn new() -> Self {
        Self {
            v4: PrefixTable { lengths: Vec::new() },
            v6: PrefixTable { lengths: Vec::new() },
            by_peer: HashMap::new(),
        }
    }

    /// Adds a prefix to a peer.
    pub(crate) fn insert(&mut self, prefix: Prefix, peer: P) {
        let length = prefix.length();
        let previous = match prefix.address() {
            IpAddr::V4(address) => self.v4.insert(length, address.to_bits(), peer),
            IpAddr::V6(address) => self.v6.insert(length, address.to_bits(), peer),
        };
        if let Some(previous) = previous.filter(|previous| *previous != peer) {
            self.remove_from_peer(prefix, previous);
        }
        self.by_peer.entry(peer).or_default().insert(prefix);
    }

    /// Removes a prefix from a peer, if the peer has it.
    pub(crate) fn remove(&mut self, prefix: Prefix, peer: P) {
        if self.by_peer.get(&peer).is_some_and(|prefixes| prefixes.contains(&prefix)) {
            self.remove_from_table(prefix);
            self.remove_from_peer(prefix, peer);
        }
    }

    /// Removes all prefixes of a peer.
    pub(crate) fn clear(&mut self, peer: P) {
        for prefix in self.by_peer.remove(&peer).unwrap_or_default() {
            self.remove_from_table(prefix);
        }
    }

    /// Returns the peer of an address.
    pub(crate) fn find(&self, address: IpAddr) -> Option<P> {
        match address {
            IpAddr::V4(address) => self.v4.find(|length| mask_v4(address, length)),
            IpAddr::V6(address) => self.v6.find(|length| mask_v6(address, length)),
        }
    }

    /// The prefixes of a peer, sorted.
    pub(crate) fn prefixes(&self, peer: P) -> impl Iterator<Item = Prefix> {
        self.by_peer.get(&peer).into_iter().flatten().copied()
    }

    fn remove_from_table(&mut self, prefix: Prefix) {
        match prefix.address() {
            IpAddr::V4(address) => self.v4.remove(prefix.length(), address.to_bits()),
            IpAddr::V6(address) => self.v6.remove(prefix.length(), address.to_bits()),
        }
    }

    fn remove_from_peer(&mut self, prefix: Prefix, peer: P) {
        if let Some(prefixes) = self.by_peer.get_mut(&peer) {
            prefixes.remove(&prefix);
            if prefixes.is_empty() {
                self.by_peer.remove(&peer);
            }
        }
    }
}

impl<A: Copy + Eq + Hash, P: Copy> PrefixTable<A, P> {
    fn insert(&mut self, length: u8, address: A, peer: P) -> Option<P> {
        let index = self.lengths.partition_point(|(other, _)| *other > length);
        if self.lengths.get(index).is_none_or(|(other, _)| *other != length) {
            self.lengths.insert(index, (length, HashMap::new()));
        }
        self.lengths.get_mut(index).and_then(|(_, table)| table.insert(address, peer))
    }

    fn remove(&mut self, length: u8, address: A) {
        if let Some((_, table)) = self.lengths.iter_mut().find(|(other, _)| *other == length) {
            table.remove(&address);
        }
        self.lengths.retain(|(_, table)| !table.is_empty());
    }

    fn find(&self, mask: impl Fn(u8) -> A) -> Option<P> {
        self.lengths.iter().find_map(|(length, table)| table.get(&mask(*length)).copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum TableChange {
        Insert(Prefix, u8),
        Remove(Prefix, u8),
        Clear(u8),
    }

    /// Few enough addresses that prefixes overlap.
    fn address() -> impl Strategy<Value = IpAddr> {
        let v4 = (0u8..4, 0u8..4).prop_map(|(a, b)| IpAddr::from([10, a, 0, b]));
        let v6 = (0u16..4, 0u16..4).prop_map(|(a, b)| IpAddr::from([0xfd00, a, 0, 0, 0, 0, 0, b]));
        prop_oneof![v4, v6]
    }

    fn prefix() -> impl Strategy<Value = Prefix> {
        (address(), 0u8..=128).prop_map(|(address, length)| {
            let longest = if address.is_ipv4() { 32 } else { 128 };
            Prefix::new(address, length.min(longest)).unwrap()
        })
    }

    fn change() -> impl Strategy<Value = TableChange> {
        prop_oneof![
            4 => (prefix(), 0u8..4).prop_map(|(prefix, peer)| TableChange::Insert(prefix, peer)),
            2 => (prefix(), 0u8..4).prop_map(|(prefix, peer)| TableChange::Remove(prefix, peer)),
            1 => (0u8..4).prop_map(TableChange::Clear),
        ]
    }

    fn covers(prefix: Prefix, address: IpAddr) -> bool {
        prefix.address().is_ipv4() == address.is_ipv4() && Prefix::new(address, prefix.length()) == Ok(prefix)
    }

    proptest! {
        /// Compared with a linear search.
        #[test]
        fn the_longest_prefix_matches(
            changes in prop::collection::vec(change(), 0..60),
            addresses in prop::collection::vec(address(), 1..20),
        ) {
            let mut table = AllowedIps::new();
            let mut model: HashMap<Prefix, u8> = HashMap::new();
            for change in changes {
                match change {
                    TableChange::Insert(prefix, peer) => {
                        table.insert(prefix, peer);
                        model.insert(prefix, peer);
                    }
                    TableChange::Remove(prefix, peer) => {
                        table.remove(prefix, peer);
                        if model.get(&prefix) == Some(&peer) {
                            model.remove(&prefix);
                        }
                    }
                    TableChange::Clear(peer) => {
                        table.clear(peer);
                        model.retain(|_, other| *other != peer);
                    }
                }
            }
            for address in addresses {
                let matching = model.iter().filter(|(prefix, _)| covers(**prefix, address));
                let longest = matching.max_by_key(|(prefix, _)| prefix.length());
                prop_assert_eq!(table.find(address), longest.map(|(_, peer)| *peer));
            }
            for peer in 0..4 {
                let of_peer = model.iter().filter(|(_, other)| **other == peer).map(|(prefix, _)| *prefix);
                prop_assert_eq!(table.prefixes(peer).collect::<BTreeSet<_>>(), of_peer.collect::<BTreeSet<_>>());
            }
            prop_assert!(table.v4.lengths.iter().all(|(_, table)| !table.is_empty()));
        }
    }
}
