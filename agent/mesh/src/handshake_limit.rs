//! Limits on handshakes. Counts them; the cookies are boringtun's. Pure.
//!
//! Processing a handshake takes some 100 µs of the only thread, and verifying one to reject it several µs. Therefore
//! only a limited number of messages per source address is inspected each second. Up to [`COOKIELESS_PER_SECOND`], all
//! handshakes are processed; above, only those with a cookie, which proves the source address, and of these a limited
//! number per source.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Handshakes per second that need no cookie.
pub(crate) const COOKIELESS_PER_SECOND: u32 = 500;

/// Further handshakes per second from one source, as many as the kernel's WireGuard admits. A source is an IPv4 address
/// or an IPv6 /64 network.
const PER_SOURCE_PER_SECOND: u32 = 20;

/// Messages inspected per second from all sources that share a counter.
const INSPECTED_PER_SECOND: u16 = 64;

/// Number of counters that sources are hashed to.
const COUNTERS: usize = 1024;

/// Sources for which handshakes are counted, which bounds memory.
const SOURCES_MAX: usize = 4096;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct HandshakeLimiter {
    second_began: Instant,
    admitted: u32,
    by_source: HashMap<IpAddr, u32>,
    /// Random, so that a sender cannot choose addresses that share a counter with others.
    hasher: RandomState,
    inspected: Vec<u16>,
}

impl HandshakeLimiter {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            second_began: now,
            admitted: 0,
            by_source: HashMap::new(),
            hasher: RandomState::new(),
            inspected: vec![0; COUNTERS],
        }
    }

    /// Whether to inspect a message with this source address.
    pub(crate) fn may_inspect(&mut self, from: IpAddr, now: Instant) -> bool {
        self.begin_second(now);
        let index = usize::try_from(self.hasher.hash_one(source(from)) % 0xffff).unwrap_or(0) % COUNTERS;
        let Some(counter) = self.inspected.get_mut(index) else { return false };
        *counter = counter.saturating_add(1);
        *counter <= INSPECTED_PER_SECOND
    }

    /// Whether to process a handshake with this source address. Above [`COOKIELESS_PER_SECOND`] it must have a cookie.
    pub(crate) fn admit(&mut self, from: IpAddr, now: Instant) -> bool {
        self.begin_second(now);
        self.admitted = self.admitted.saturating_add(1);
        if self.admitted <= COOKIELESS_PER_SECOND {
            return true;
        }
        let source = source(from);
        if self.by_source.len() >= SOURCES_MAX && !self.by_source.contains_key(&source) {
            return false;
        }
        let count = self.by_source.entry(source).or_default();
        *count += 1;
        *count <= PER_SOURCE_PER_SECOND
    }

    fn begin_second(&mut self, now: Instant) {
        if now.duration_since(self.second_began) >= SECOND {
            (self.second_began, self.admitted) = (now, 0);
            self.by_source.clear();
            self.inspected.fill(0);
        }
    }
}

/// The address itself, or the /64 network of an IPv6 address.
fn source(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn above_the_limit_each_source_has_its_own_limit() {
        let now = Instant::now();
        let mut limiter = HandshakeLimiter::new(now);
        let admitted = |limiter: &mut HandshakeLimiter, host: u8, now| {
            (0..1000).filter(|_| limiter.admit([10, 0, 0, host].into(), now)).count()
        };
        assert_eq!(admitted(&mut limiter, 1, now), 520);
        assert_eq!(admitted(&mut limiter, 2, now), 20);
        assert_eq!(admitted(&mut limiter, 1, now + SECOND), 520);
    }

    #[test]
    fn a_source_does_not_exhaust_the_counters_of_others() {
        let now = Instant::now();
        let mut limiter = HandshakeLimiter::new(now);
        let inspected = |limiter: &mut HandshakeLimiter, host: u8, now| {
            (0..9999).filter(|_| limiter.may_inspect([10, 0, 0, host].into(), now)).count()
        };
        assert_eq!(inspected(&mut limiter, 1, now), 64);
        // Of a hundred others, few share its counter.
        let others = (2..102).filter(|host| inspected(&mut limiter, *host, now) > 0).count();
        assert!(others > 80, "{others}");
        assert_eq!(inspected(&mut limiter, 1, now + SECOND), 64);
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_source() {
        let now = Instant::now();
        let mut limiter = HandshakeLimiter::new(now);
        let count = (0..2000).filter(|n| limiter.admit([0xfd00, 0, 0, 0, 0, 0, 0, *n].into(), now)).count();
        assert_eq!(count, 520);
    }

    #[test]
    fn the_number_of_counted_sources_is_bounded() {
        let now = Instant::now();
        let mut limiter = HandshakeLimiter::new(now);
        for n in 0..100_000_u32 {
            limiter.admit(Ipv4Addr::from_bits(n).into(), now);
        }
        assert_eq!(limiter.by_source.len(), SOURCES_MAX);
    }
}
