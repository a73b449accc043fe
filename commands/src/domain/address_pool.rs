//! The addresses of a network that its NICs have.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use otherix_schemas::id::NicId;
use otherix_schemas::value::GatewaySubnet;

/// The addresses in use, and what makes finding the lowest free one independent of their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AddressPool {
    by_address: BTreeMap<Ipv4Addr, NicId>,
    /// The first and the last address of each run of addresses in use. Runs are maximal: the addresses before and after
    /// one are free.
    runs: BTreeMap<u32, u32>,
}

impl AddressPool {
    /// Returns the NIC that has the address.
    pub(super) fn holder(&self, address: Ipv4Addr) -> Option<NicId> {
        self.by_address.get(&address).copied()
    }

    /// The addresses in use, and which NIC has each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Ipv4Addr, NicId)> {
        self.by_address.iter().map(|(address, nic)| (*address, *nic))
    }

    /// Returns how many addresses are in use.
    pub(super) fn used(&self) -> usize {
        self.by_address.len()
    }

    /// Returns the lowest address that a guest can have and no NIC has.
    pub(super) fn lowest_free(&self, subnet: GatewaySubnet) -> Option<Ipv4Addr> {
        let (gateway, last) = (subnet.gateway().to_bits(), subnet.subnet().last_host().to_bits());
        let mut candidate = subnet.subnet().first_host().to_bits();
        // Each step skips the gateway or a whole run, and what follows a run is free or the gateway: four at most.
        while candidate <= last {
            let in_use_until = self.run_of(candidate).map(|(_, end)| end);
            match in_use_until.or((candidate == gateway).then_some(gateway)) {
                Some(end) => candidate = end.checked_add(1)?,
                None => return Some(Ipv4Addr::from_bits(candidate)),
            }
        }
        None
    }

    /// Records that the NIC has the address.
    pub(super) fn insert(&mut self, address: Ipv4Addr, nic: NicId) {
        if self.by_address.insert(address, nic).is_some() {
            return;
        }
        let bits = address.to_bits();
        let before = bits.checked_sub(1).and_then(|previous| self.run_of(previous));
        let after = bits.checked_add(1).and_then(|next| self.run_of(next));
        let (start, end) = (before.map_or(bits, |(start, _)| start), after.map_or(bits, |(_, end)| end));
        if let Some((start, _)) = after {
            self.runs.remove(&start);
        }
        self.runs.insert(start, end);
    }

    /// Frees the address, if this NIC has it.
    pub(super) fn remove(&mut self, address: Ipv4Addr, nic: NicId) {
        if self.holder(address) != Some(nic) {
            return;
        }
        self.by_address.remove(&address);
        let bits = address.to_bits();
        let Some((start, end)) = self.run_of(bits) else { return };
        self.runs.remove(&start);
        if start < bits {
            self.runs.insert(start, bits - 1);
        }
        if bits < end {
            self.runs.insert(bits + 1, end);
        }
    }

    /// Returns whether no address is in use.
    pub(super) fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// Returns the run that the address is in.
    fn run_of(&self, bits: u32) -> Option<(u32, u32)> {
        let (start, end) = self.runs.range(..=bits).next_back()?;
        (bits <= *end).then_some((*start, *end))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn subnet(text: &str, gateway: Option<&str>) -> GatewaySubnet {
        GatewaySubnet::new(text.parse().unwrap(), gateway.map(|address| address.parse().unwrap())).unwrap()
    }

    fn nic(number: u32) -> NicId {
        NicId::new(Uuid::from_u128(number.into()))
    }

    /// Assigns the lowest free address until there is none.
    fn fill(pool: &mut AddressPool, subnet: GatewaySubnet) -> Vec<Ipv4Addr> {
        let mut assigned = Vec::new();
        while let Some(address) = pool.lowest_free(subnet) {
            pool.insert(address, nic(address.to_bits()));
            assigned.push(address);
        }
        assigned
    }

    #[test]
    fn assigns_every_address_of_a_guest_once_from_the_lowest() {
        for (text, gateway) in [
            ("10.0.0.0/30", None),
            ("10.0.0.0/30", Some("10.0.0.2")),
            ("10.0.0.0/28", Some("10.0.0.7")),
            ("10.0.0.0/28", Some("10.0.0.14")),
            // With a search that walks the addresses in use this takes minutes.
            ("10.0.0.0/16", None),
        ] {
            let subnet = subnet(text, gateway);
            let mut pool = AddressPool::default();
            let assigned = fill(&mut pool, subnet);
            assert!(assigned.is_sorted_by(|a, b| a < b), "{text}");
            assert!(assigned.iter().all(|address| subnet.check_guest(*address).is_ok()), "{text}");
            assert_eq!(assigned.len(), usize::try_from(subnet.guest_addresses()).unwrap(), "{text}");
            assert_eq!(pool.used(), assigned.len());
        }
    }

    #[test]
    fn an_address_is_freed_by_the_nic_that_has_it() {
        let subnet = subnet("10.0.0.0/29", None);
        let mut pool = AddressPool::default();
        let assigned = fill(&mut pool, subnet);
        let third = assigned[2];
        pool.remove(third, nic(7));
        assert_eq!((pool.holder(third), pool.lowest_free(subnet)), (Some(nic(third.to_bits())), None));
        pool.remove(third, nic(third.to_bits()));
        assert_eq!((pool.holder(third), pool.lowest_free(subnet)), (None, Some(third)));
        for address in assigned {
            pool.remove(address, nic(address.to_bits()));
        }
        assert!(pool.is_empty());
        assert_eq!(pool, AddressPool::default());
    }

    proptest! {
        #[test]
        fn finds_what_a_search_of_all_addresses_finds(
            steps in proptest::collection::vec((any::<bool>(), 0..32_u32), 0..80),
            gateway in 1..31_u32,
        ) {
            let base = u32::from(Ipv4Addr::new(10, 0, 0, 32));
            let gateway = Ipv4Addr::from_bits(base + gateway).to_string();
            let subnet = subnet("10.0.0.32/27", Some(&gateway));
            let mut pool = AddressPool::default();
            let mut used = BTreeSet::new();
            for (insert, host) in steps {
                let address = Ipv4Addr::from_bits(base + host);
                if insert {
                    pool.insert(address, nic(host));
                    used.insert(address);
                } else {
                    pool.remove(address, nic(host));
                    used.remove(&address);
                }
                let lowest = (base..base + 32)
                    .map(Ipv4Addr::from_bits)
                    .find(|address| subnet.check_guest(*address).is_ok() && !used.contains(address));
                prop_assert_eq!(pool.lowest_free(subnet), lowest);
                prop_assert_eq!(pool.used(), used.len());
                // A pool that is made from the addresses in use, as from a state snapshot, is the same.
                let mut again = AddressPool::default();
                used.iter().for_each(|address| again.insert(*address, nic(address.to_bits() - base)));
                prop_assert_eq!(&again, &pool);
            }
        }
    }
}
