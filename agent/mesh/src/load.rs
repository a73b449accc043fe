//! How many handshakes are worked on. Owns counting them; never the cookies, which are boringtun's. Pure.
//!
//! A handshake costs some hundred microseconds of this thread, and looking at one to refuse it some microseconds. So of those
//! that say they come from one address, only so many in each second are looked at. Up to a limit all of these are let in;
//! above it only those that return a cookie, so that the address is true, and of these so many from one address.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Handshakes in a second that need no cookie.
pub(crate) const FREE: u32 = 500;
/// Further handshakes in a second from one address (as many as the kernel's WireGuard lets in), or one IPv6 network of 64 bits.
const OF_ONE: u32 = 20;
/// Messages in a second, from all addresses that share a counter, that are looked at; and counters.
const LOOKED_AT: u16 = 64;
const COUNTERS: usize = 1024;
/// Addresses counted in a second.
const ADDRESSES: usize = 4096;
const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Load {
    since: Instant,
    count: u32,
    of: HashMap<IpAddr, u32>,
    /// Which addresses share a counter nobody else can tell.
    seed: RandomState,
    counters: Vec<u16>,
}

impl Load {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, count: 0, of: HashMap::new(), seed: RandomState::new(), counters: vec![0; COUNTERS] }
    }

    /// Whether a message that says that it comes from there is looked at.
    pub(crate) fn looks_at(&mut self, from: IpAddr, now: Instant) -> bool {
        self.begin_second(now);
        let hash = usize::try_from(self.seed.hash_one(network(from)) % 0xffff).unwrap_or(0) % COUNTERS;
        let Some(counter) = self.counters.get_mut(hash) else { return false };
        *counter = counter.saturating_add(1);
        *counter <= LOOKED_AT
    }

    fn begin_second(&mut self, now: Instant) {
        if now.duration_since(self.since) >= SECOND {
            (self.since, self.count) = (now, 0);
            self.of.clear();
            self.counters.fill(0);
        }
    }

    /// Whether a handshake from there, that has a cookie if it needs one, is worked on.
    pub(crate) fn lets_in(&mut self, from: IpAddr, now: Instant) -> bool {
        self.begin_second(now);
        self.count = self.count.saturating_add(1);
        if self.count <= FREE {
            return true;
        }
        let network = network(from);
        if self.of.len() >= ADDRESSES && !self.of.contains_key(&network) {
            return false;
        }
        let of = self.of.entry(network).or_default();
        *of += 1;
        *of <= OF_ONE
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => std::net::Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn above_the_limit_each_address_has_its_share() {
        let now = Instant::now();
        let mut load = Load::new(now);
        let lets_in =
            |load: &mut Load, last: u8, now| (0..1000).filter(|_| load.lets_in([10, 0, 0, last].into(), now)).count();
        assert_eq!(lets_in(&mut load, 1, now), 520);
        assert_eq!(lets_in(&mut load, 2, now), 20);
        assert_eq!(lets_in(&mut load, 1, now + SECOND), 520);
    }

    #[test]
    fn one_address_takes_nobody_elses_turn() {
        let now = Instant::now();
        let mut load = Load::new(now);
        let looks_at =
            |load: &mut Load, last: u8, now| (0..9999).filter(|_| load.looks_at([10, 0, 0, last].into(), now)).count();
        assert_eq!(looks_at(&mut load, 1, now), 64);
        // Of a hundred others, few share its counter.
        let others = (2..102).filter(|last| looks_at(&mut load, *last, now) > 0).count();
        assert!(others > 80, "{others}");
        assert_eq!(looks_at(&mut load, 1, now + SECOND), 64);
    }

    #[test]
    fn a_network_of_64_bits_is_one_address() {
        let now = Instant::now();
        let mut load = Load::new(now);
        let count = (0..2000).filter(|n| load.lets_in([0xfd00, 0, 0, 0, 0, 0, 0, *n].into(), now)).count();
        assert_eq!(count, 520);
    }

    #[test]
    fn many_addresses_take_no_more_memory() {
        let now = Instant::now();
        let mut load = Load::new(now);
        for n in 0..100_000_u32 {
            load.lets_in(std::net::Ipv4Addr::from_bits(n).into(), now);
        }
        assert_eq!(load.of.len(), ADDRESSES);
    }
}
