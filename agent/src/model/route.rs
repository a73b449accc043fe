//! IPv4 prefixes and routes.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use otherix_schemas::value::Ipv4Subnet;
use serde::{Deserialize, Serialize};

/// The table that routes are in unless others are requested (linux/rtnetlink.h).
pub const MAIN_TABLE: u32 = 254;
/// The table with the node's own addresses.
pub const LOCAL_TABLE: u32 = 255;
/// `RTPROT_KERNEL`: the routes that follow from addresses.
pub const KERNEL_PROTOCOL: u8 = 2;

/// The destinations of a default route, and of those pairs of routes that VPNs use instead of one.
const DEFAULT_MAX: u8 = 1;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    first: u32,
    length: u8,
}

impl Prefix {
    /// `0.0.0.0/0`, the prefix of a default route.
    pub const ALL: Self = Self { first: 0, length: 0 };

    /// Returns the prefix of this length (0 to 32) that contains the address.
    pub fn of(address: Ipv4Addr, length: u8) -> Self {
        let length = length.min(32);
        Self { first: address.to_bits() & mask(length), length }
    }

    /// Returns the prefix of one address.
    pub fn host(address: Ipv4Addr) -> Self {
        Self::of(address, 32)
    }

    /// The first address.
    pub fn first(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first)
    }

    /// The last address.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first | !mask(self.length))
    }

    /// The length in bits.
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether it contains the address.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.length) == self.first
    }

    /// Whether it contains all addresses of the other.
    pub fn contains_all_of(self, other: Self) -> bool {
        self.length <= other.length && self.contains(other.first())
    }

    /// Whether both have addresses in common: one contains the other.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.first()) || other.contains(self.first())
    }

    /// Whether a route to it is a default route: to everything that no other route leads to.
    pub fn is_default(self) -> bool {
        self.length <= DEFAULT_MAX
    }

    /// Returns the prefix of this length that contains this one.
    fn around(self, length: u8) -> Self {
        Self::of(self.first(), length)
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0)
}

impl From<Ipv4Subnet> for Prefix {
    fn from(subnet: Ipv4Subnet) -> Self {
        Self::of(subnet.network(), subnet.prefix())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.length)
    }
}

impl Serialize for Prefix {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = text.split_once('/').and_then(|(address, length)| {
            Some(Self::of(address.parse().ok()?, length.parse().ok().filter(|length| *length <= 32)?))
        });
        parsed.ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a prefix")))
    }
}

/// What a route does with packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteKind {
    /// They are sent through its links.
    #[default]
    Unicast,
    /// They are delivered to the node itself.
    Local,
    /// They are dropped (`blackhole`, `unreachable`, `prohibit`).
    Drop,
    /// The look-up continues with the next rule.
    Throw,
}

/// An IPv4 route of any table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    #[serde(default = "all")]
    pub to: Prefix,
    #[serde(default = "main_table")]
    pub table: u32,
    /// Of several routes to the same prefix in a table, that with the lowest metric is used.
    #[serde(default)]
    pub metric: u32,
    #[serde(default)]
    pub kind: RouteKind,
    /// The indexes of the links that it leads out by.
    #[serde(default)]
    pub links: BTreeSet<u32>,
    /// The next hops, if the destination is not on the links.
    #[serde(default)]
    pub gateways: BTreeSet<Ipv4Addr>,
    /// Which program added it (`rtm_protocol`).
    #[serde(default)]
    pub protocol: u8,
    /// The type of service that it is for.
    #[serde(default)]
    pub tos: u8,
}

fn all() -> Prefix {
    Prefix::ALL
}

fn main_table() -> u32 {
    MAIN_TABLE
}

impl Route {
    /// Whether it follows from an address of the node: [`super::ip::Ipv4Config::addresses`] has that.
    pub fn follows_from_address(&self) -> bool {
        self.table == LOCAL_TABLE && self.protocol == KERNEL_PROTOCOL
    }
}

/// Routes, ordered by destination, to look up overlaps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Routes(BTreeSet<Route>);

impl Routes {
    /// Adds a route. Returns whether it is new.
    pub fn insert(&mut self, route: Route) -> bool {
        self.0.insert(route)
    }

    /// Removes a route. Returns whether it was known.
    pub fn remove(&mut self, route: &Route) -> bool {
        self.0.remove(route)
    }

    /// All routes, ordered by destination.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter()
    }

    /// Returns the routes whose destinations overlap the prefix, except default routes.
    pub fn overlaps(&self, prefix: Prefix) -> impl Iterator<Item = &Route> {
        around_and_within(prefix).flat_map(|(from, to)| self.range(from, to))
    }

    /// Returns the routes to exactly this prefix.
    pub fn to(&self, prefix: Prefix) -> impl Iterator<Item = &Route> {
        self.range(prefix, prefix)
    }

    fn range(&self, from: Prefix, to: Prefix) -> impl Iterator<Item = &Route> {
        let least = Route {
            to: from,
            table: 0,
            metric: 0,
            kind: RouteKind::Unicast,
            links: BTreeSet::new(),
            gateways: BTreeSet::new(),
            protocol: 0,
            tos: 0,
        };
        self.0.range(least..).take_while(move |route| route.to <= to)
    }
}

/// Returns ranges of prefixes, first and last: those that contain `prefix` and are longer than that of a default route,
/// and those within it.
pub(super) fn around_and_within(prefix: Prefix) -> impl Iterator<Item = (Prefix, Prefix)> {
    let around = (DEFAULT_MAX + 1..prefix.length).map(move |length| (prefix.around(length), prefix.around(length)));
    around.chain([(prefix, Prefix::host(prefix.last()))])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        serde_json::from_value(text.into()).unwrap()
    }

    fn route(to: &str, table: u32) -> Route {
        serde_json::from_value(serde_json::json!({ "to": to, "table": table, "links": [3] })).unwrap()
    }

    #[test]
    fn finds_the_routes_that_overlap_a_prefix() {
        let overlaps = |to: &str, of: &str| {
            let mut routes = Routes::default();
            routes.insert(route(to, 100));
            routes.insert(route("198.51.100.0/24", MAIN_TABLE));
            let found: Vec<_> = routes.overlaps(prefix(of)).collect();
            assert!(found.len() < 2 && found.iter().all(|route| route.table == 100), "{found:?}");
            assert!(found.is_empty() || prefix(to).overlaps(prefix(of)));
            !found.is_empty()
        };
        assert!(overlaps("172.31.0.0/16", "172.31.5.0/24"));
        assert!(overlaps("172.31.5.0/24", "172.31.5.0/24"));
        assert!(overlaps("172.31.5.255/32", "172.31.5.0/24"));
        assert!(overlaps("172.31.5.0/32", "172.31.5.0/24"));
        assert!(!overlaps("172.31.6.0/32", "172.31.5.0/24"));
        assert!(!overlaps("172.31.4.0/24", "172.31.5.0/24"));
        assert!(overlaps("128.0.0.0/2", "172.31.5.0/24"));
        assert!(!overlaps("128.0.0.0/1", "172.31.5.0/24"), "one half of a default route");
        assert!(!overlaps("0.0.0.0/0", "172.31.5.0/24"));
    }

    #[test]
    fn prefixes_are_written_as_usual() {
        assert_eq!(Prefix::of("10.20.7.9".parse().unwrap(), 16).to_string(), "10.20.0.0/16");
        assert_eq!(prefix("10.20.7.9/16").last().to_string(), "10.20.255.255");
        assert!(prefix("0.0.0.0/0").contains(Ipv4Addr::BROADCAST));
        serde_json::from_value::<Prefix>("10.0.0.0/33".into()).unwrap_err();
    }
}
