//! Allowed IPs: which peer an address belongs to, by the longest matching prefix, for sending and for what may come in alike.
//! Pure. A prefix belongs to one peer at a time: given to another, it is taken from the first.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use super::prefix::{Prefix, mask_v4, mask_v6};

/// Prefixes and the peers `P` that they belong to.
#[derive(Debug)]
pub(crate) struct AllowedIps<P> {
    v4: Family<u32, P>,
    v6: Family<u128, P>,
    of: HashMap<P, BTreeSet<Prefix>>,
}

/// The prefixes of one family: for each length that occurs, longest first, the masked addresses. Nodes have one /32
/// each, so that one look into one table answers most questions.
#[derive(Debug)]
struct Family<A, P> {
    lengths: Vec<(u8, HashMap<A, P>)>,
}

impl<P: Copy + Eq + Hash> AllowedIps<P> {
    pub(crate) fn new() -> Self {
        Self { v4: Family { lengths: Vec::new() }, v6: Family { lengths: Vec::new() }, of: HashMap::new() }
    }

    /// Gives a prefix to a peer.
    pub(crate) fn insert(&mut self, prefix: Prefix, peer: P) {
        let length = prefix.length();
        let before = match prefix.address() {
            IpAddr::V4(address) => self.v4.insert(length, address.to_bits(), peer),
            IpAddr::V6(address) => self.v6.insert(length, address.to_bits(), peer),
        };
        if let Some(before) = before.filter(|before| *before != peer) {
            self.forget(prefix, before);
        }
        self.of.entry(peer).or_default().insert(prefix);
    }

    /// Takes a prefix from a peer, if it is the peer's.
    pub(crate) fn remove(&mut self, prefix: Prefix, peer: P) {
        if self.of.get(&peer).is_some_and(|prefixes| prefixes.contains(&prefix)) {
            self.take(prefix);
            self.forget(prefix, peer);
        }
    }

    /// Takes all its prefixes from a peer.
    pub(crate) fn clear(&mut self, peer: P) {
        for prefix in self.of.remove(&peer).unwrap_or_default() {
            self.take(prefix);
        }
    }

    /// Whose address this is.
    pub(crate) fn find(&self, address: IpAddr) -> Option<P> {
        match address {
            IpAddr::V4(address) => self.v4.find(|length| mask_v4(address, length)),
            IpAddr::V6(address) => self.v6.find(|length| mask_v6(address, length)),
        }
    }

    /// The prefixes of a peer, in order.
    pub(crate) fn of(&self, peer: P) -> impl Iterator<Item = Prefix> {
        self.of.get(&peer).into_iter().flatten().copied()
    }

    fn take(&mut self, prefix: Prefix) {
        match prefix.address() {
            IpAddr::V4(address) => self.v4.remove(prefix.length(), address.to_bits()),
            IpAddr::V6(address) => self.v6.remove(prefix.length(), address.to_bits()),
        }
    }

    fn forget(&mut self, prefix: Prefix, peer: P) {
        if let Some(prefixes) = self.of.get_mut(&peer) {
            prefixes.remove(&prefix);
            if prefixes.is_empty() {
                self.of.remove(&peer);
            }
        }
    }
}

impl<A: Copy + Eq + Hash, P: Copy> Family<A, P> {
    fn insert(&mut self, length: u8, address: A, peer: P) -> Option<P> {
        let at = self.lengths.partition_point(|(other, _)| *other > length);
        if self.lengths.get(at).is_none_or(|(other, _)| *other != length) {
            self.lengths.insert(at, (length, HashMap::new()));
        }
        self.lengths.get_mut(at).and_then(|(_, table)| table.insert(address, peer))
    }

    fn remove(&mut self, length: u8, address: A) {
        if let Some((_, table)) = self.lengths.iter_mut().find(|(other, _)| *other == length) {
            table.remove(&address);
        }
        self.lengths.retain(|(_, table)| !table.is_empty());
    }

    fn find(&self, masked: impl Fn(u8) -> A) -> Option<P> {
        self.lengths.iter().find_map(|(length, table)| table.get(&masked(*length)).copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Change {
        Insert(Prefix, u8),
        Remove(Prefix, u8),
        Clear(u8),
    }

    /// Few enough addresses that ranges meet.
    fn address() -> impl Strategy<Value = IpAddr> {
        let v4 = (0u8..4, 0u8..4).prop_map(|(a, b)| IpAddr::from([10, a, 0, b]));
        let v6 = (0u16..4, 0u16..4).prop_map(|(a, b)| IpAddr::from([0xfd00, a, 0, 0, 0, 0, 0, b]));
        prop_oneof![v4, v6]
    }

    fn prefix() -> impl Strategy<Value = Prefix> {
        (address(), 0u8..=128).prop_map(|(address, length)| {
            let most = if address.is_ipv4() { 32 } else { 128 };
            Prefix::new(address, length.min(most)).unwrap()
        })
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            4 => (prefix(), 0u8..4).prop_map(|(prefix, peer)| Change::Insert(prefix, peer)),
            2 => (prefix(), 0u8..4).prop_map(|(prefix, peer)| Change::Remove(prefix, peer)),
            1 => (0u8..4).prop_map(Change::Clear),
        ]
    }

    fn covers(prefix: Prefix, address: IpAddr) -> bool {
        prefix.address().is_ipv4() == address.is_ipv4() && Prefix::new(address, prefix.length()) == Ok(prefix)
    }

    proptest! {
        /// Against a plain list of prefixes.
        #[test]
        fn the_longest_prefix_decides(
            changes in prop::collection::vec(change(), 0..60),
            asked in prop::collection::vec(address(), 1..20),
        ) {
            let mut table = AllowedIps::new();
            let mut model: HashMap<Prefix, u8> = HashMap::new();
            for change in changes {
                match change {
                    Change::Insert(prefix, peer) => {
                        table.insert(prefix, peer);
                        model.insert(prefix, peer);
                    }
                    Change::Remove(prefix, peer) => {
                        table.remove(prefix, peer);
                        if model.get(&prefix) == Some(&peer) {
                            model.remove(&prefix);
                        }
                    }
                    Change::Clear(peer) => {
                        table.clear(peer);
                        model.retain(|_, other| *other != peer);
                    }
                }
            }
            for address in asked {
                let longest = model.iter().filter(|(prefix, _)| covers(**prefix, address)).max_by_key(|(prefix, _)| prefix.length());
                prop_assert_eq!(table.find(address), longest.map(|(_, peer)| *peer));
            }
            for peer in 0..4 {
                let of: BTreeSet<Prefix> = model.iter().filter(|(_, other)| **other == peer).map(|(prefix, _)| *prefix).collect();
                prop_assert_eq!(table.of(peer).collect::<BTreeSet<_>>(), of);
            }
            prop_assert!(table.v4.lengths.iter().all(|(_, table)| !table.is_empty()));
        }
    }
}
