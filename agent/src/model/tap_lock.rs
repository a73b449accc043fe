//! What the guest filter knows about single taps: the addresses that their guests may use, and those that they may not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use otherix_schemas::value::MacAddress;
use serde::{Deserialize, Serialize};

/// An address that the guest behind a tap may use, or may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TapLock {
    /// The only IPv4 address, with the only MAC address.
    Address { mac: MacAddress, address: Ipv4Addr },
    /// The only IPv6 address.
    LinkLocal(Ipv6Addr),
    /// The gateway's IPv4 address, which the guest may not use; it may use all others.
    Gateway(Ipv4Addr),
    /// The gateway's MAC address, which the guest may not use; it may use all others.
    GatewayMac(MacAddress),
}

impl TapLock {
    /// Returns the lock of the link-local address that follows from a MAC address (RFC 4291, appendix A).
    pub fn link_local(mac: MacAddress) -> Self {
        let [a, b, c, d, e, f] = mac.octets();
        let interface = u64::from_be_bytes([a ^ 0x02, b, c, 0xff, 0xfe, d, e, f]);
        Self::LinkLocal(Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(interface)))
    }
}

/// The locks of taps, by the names of these.
pub type TapLocks = BTreeMap<String, BTreeSet<TapLock>>;

/// Adds a lock, or removes it. Returns whether that changed anything.
pub fn change(locks: &mut TapLocks, tap: &str, lock: TapLock, is_added: bool) -> bool {
    if is_added {
        return match locks.get_mut(tap) {
            Some(of_tap) => of_tap.insert(lock),
            None => locks.entry(tap.to_owned()).or_default().insert(lock),
        };
    }
    let Some(of_tap) = locks.get_mut(tap) else { return false };
    let is_changed = of_tap.remove(&lock);
    if of_tap.is_empty() {
        locks.remove(tap);
    }
    is_changed
}

/// Returns what is in `locks` and not in `others`.
pub fn difference(locks: &TapLocks, others: &TapLocks) -> TapLocks {
    let missing = |(tap, of_tap): (&String, &BTreeSet<TapLock>)| {
        let missing: BTreeSet<_> = match others.get(tap) {
            Some(others) => of_tap.difference(others).copied().collect(),
            None => of_tap.clone(),
        };
        (!missing.is_empty()).then(|| (tap.clone(), missing))
    };
    locks.iter().filter_map(missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_follows_from_a_mac_address() {
        let mac: MacAddress = "52:54:00:12:34:56".parse().unwrap();
        assert_eq!(TapLock::link_local(mac), TapLock::LinkLocal("fe80::5054:ff:fe12:3456".parse().unwrap()));
    }

    #[test]
    fn changes_and_differences() {
        let (one, two) = (TapLock::Gateway(Ipv4Addr::new(10, 0, 0, 1)), TapLock::Gateway(Ipv4Addr::new(10, 0, 0, 2)));
        let mut locks = TapLocks::new();
        assert!(change(&mut locks, "a", one, true) && !change(&mut locks, "a", one, true));
        assert!(change(&mut locks, "a", two, true) && change(&mut locks, "b", two, true));
        let before = locks.clone();
        assert!(change(&mut locks, "a", two, false) && change(&mut locks, "b", two, false));
        assert!(!change(&mut locks, "b", two, false) && !change(&mut locks, "a", two, false));
        assert_eq!(locks, TapLocks::from([("a".to_owned(), [one].into())]));
        let expected = TapLocks::from([("a".to_owned(), [two].into()), ("b".to_owned(), [two].into())]);
        assert_eq!(difference(&before, &locks), expected);
        assert!(difference(&locks, &before).is_empty());
    }
}
