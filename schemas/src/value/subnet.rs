//! IPv4 subnets, and those in which the nodes have an address.

use std::net::Ipv4Addr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An IPv4 prefix of length 8 to 30 without host bits, such as `10.20.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/([89]|[12][0-9]|30)$"))]
pub struct Ipv4Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    #[error("must be an IPv4 subnet such as `10.20.0.0/24`, not `{0}`")]
    Syntax(String),
    #[error("must have a prefix length of 8 to 30, not {0}")]
    Prefix(u8),
    #[error("must not overlap `{range}`, which is for {purpose}")]
    Unusable { range: Ipv4Subnet, purpose: &'static str },
}

/// Ranges that no host of a network can have an address of (RFC 6890), and what each is for.
const UNUSABLE: [(Ipv4Subnet, &str); 5] = [
    (Ipv4Subnet { network: Ipv4Addr::new(0, 0, 0, 0), prefix: 8 }, "hosts without an address"),
    (Ipv4Subnet { network: Ipv4Addr::new(127, 0, 0, 0), prefix: 8 }, "loopback"),
    (Ipv4Subnet { network: Ipv4Addr::new(169, 254, 0, 0), prefix: 16 }, "link-local addresses"),
    (Ipv4Subnet { network: Ipv4Addr::new(224, 0, 0, 0), prefix: 4 }, "multicast"),
    (Ipv4Subnet { network: Ipv4Addr::new(240, 0, 0, 0), prefix: 4 }, "future use"),
];

impl Ipv4Subnet {
    /// The default mesh supernet.
    pub const DEFAULT_MESH: Self = Self { network: Ipv4Addr::new(10, 42, 0, 0), prefix: 16 };

    /// The subnet of this prefix length that contains `address`.
    ///
    /// # Errors
    /// If the length is not 8 to 30.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Result<Self, SubnetError> {
        if !(8..=30).contains(&prefix) {
            return Err(SubnetError::Prefix(prefix));
        }
        let network = Ipv4Addr::from_bits(address.to_bits() & Self::mask(prefix));
        Ok(Self { network, prefix })
    }

    fn mask(prefix: u8) -> u32 {
        u32::MAX << (32 - u32::from(prefix))
    }

    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// The prefix length, 8 to 30.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | !Self::mask(self.prefix))
    }

    /// Its mask, such as 255.255.255.0.
    pub fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(Self::mask(self.prefix))
    }

    /// The first host address.
    pub fn first_host(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 1)
    }

    /// The last host address.
    pub fn last_host(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.broadcast().to_bits() - 1)
    }

    /// The host address to assign next: after `highest`, the highest ever assigned, skipping `skipped` addresses that
    /// may have been assigned, too. `None` if the subnet is exhausted.
    pub fn host_after(self, highest: Option<Ipv4Addr>, skipped: u64) -> Option<Ipv4Addr> {
        let first = u64::from(self.first_host().to_bits());
        let next = highest.map_or(first, |highest| u64::from(highest.to_bits()) + 1);
        let candidate = next.saturating_add(skipped).max(first);
        let address = Ipv4Addr::from_bits(u32::try_from(candidate).ok()?);
        (address <= self.last_host()).then_some(address)
    }

    /// Whether the subnet contains the address, network and broadcast address included.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & Self::mask(self.prefix) == self.network.to_bits()
    }

    fn check_host(self, address: Ipv4Addr) -> Result<(), HostAddressError> {
        if !self.contains(address) {
            return Err(HostAddressError::Outside(self));
        }
        if address == self.network() {
            return Err(HostAddressError::Network(self));
        }
        if address == self.broadcast() {
            return Err(HostAddressError::Broadcast(self));
        }
        Ok(())
    }

    /// Whether this subnet is `other` or a part of it.
    pub fn is_within(self, other: Self) -> bool {
        self.prefix >= other.prefix && other.contains(self.network)
    }

    /// Checks that hosts of a network can have the subnet's addresses. Networks that earlier versions recorded may have
    /// others.
    ///
    /// # Errors
    /// If the subnet overlaps a range that is for something else.
    pub fn check_usable(self) -> Result<(), SubnetError> {
        match UNUSABLE.into_iter().find(|(range, _)| range.overlaps(self)) {
            Some((range, purpose)) => Err(SubnetError::Unusable { range, purpose }),
            None => Ok(()),
        }
    }

    /// Whether the two have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.is_within(other) || other.is_within(self)
    }
}

impl FromStr for Ipv4Subnet {
    type Err = SubnetError;
    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let syntax = || SubnetError::Syntax(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(syntax)?;
        // `u8::from_str` accepts a sign and leading zeros.
        if prefix.len() > 2 || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(syntax());
        }
        let address = address.parse().map_err(|_| syntax())?;
        Self::new(address, prefix.parse().map_err(|_| syntax())?)
    }
}

impl std::fmt::Display for Ipv4Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl TryFrom<String> for Ipv4Subnet {
    type Error = SubnetError;
    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Ipv4Subnet> for String {
    fn from(subnet: Ipv4Subnet) -> String {
        subnet.to_string()
    }
}

/// A subnet, and the address in it that is that of each node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GatewaySubnet {
    subnet: Ipv4Subnet,
    gateway: Ipv4Addr,
}

/// Why a gateway or a guest cannot have an address of a subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostAddressError {
    #[error("must be inside the subnet `{0}`")]
    Outside(Ipv4Subnet),
    #[error("must not be the network address of `{0}`")]
    Network(Ipv4Subnet),
    #[error("must not be the broadcast address of `{0}`")]
    Broadcast(Ipv4Subnet),
    #[error("must not be the gateway of `{0}`")]
    Gateway(Ipv4Subnet),
}

impl GatewaySubnet {
    /// The gateway defaults to the first host address.
    ///
    /// # Errors
    /// If the gateway is not a host address of the subnet.
    pub fn new(subnet: Ipv4Subnet, gateway: Option<Ipv4Addr>) -> Result<Self, HostAddressError> {
        let gateway = gateway.unwrap_or_else(|| subnet.first_host());
        subnet.check_host(gateway)?;
        Ok(Self { subnet, gateway })
    }

    pub fn subnet(self) -> Ipv4Subnet {
        self.subnet
    }

    pub fn gateway(self) -> Ipv4Addr {
        self.gateway
    }

    /// Checks that a guest can have the address.
    ///
    /// # Errors
    /// If it is not a host address of the subnet, or is the gateway's.
    pub fn check_guest(self, address: Ipv4Addr) -> Result<(), HostAddressError> {
        self.subnet.check_host(address)?;
        if address == self.gateway { Err(HostAddressError::Gateway(self.subnet)) } else { Ok(()) }
    }

    /// How many addresses guests can have: 1 to 16,777,213.
    pub fn guest_addresses(self) -> u32 {
        // All but the network address, the broadcast address and the gateway.
        (!Ipv4Subnet::mask(self.subnet.prefix)).saturating_sub(2)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subnet(text: &str) -> Ipv4Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn masks_host_bits() {
        assert_eq!(subnet("10.0.0.5/24").to_string(), "10.0.0.0/24");
    }

    #[test]
    fn rejects_malformed_subnets() {
        for bad in ["", "10.0.0.0", "10.0.0.0/", "10.0.0/24", "10.0.0.0/+8", "10.0.0.0/024", "fd00::/8", " 10.0.0.0/24"]
        {
            assert!(matches!(bad.parse::<Ipv4Subnet>(), Err(SubnetError::Syntax(_))), "{bad}");
        }
        for (bad, prefix) in [("10.0.0.0/7", 7), ("10.0.0.0/31", 31), ("0.0.0.0/0", 0)] {
            assert_eq!(bad.parse::<Ipv4Subnet>(), Err(SubnetError::Prefix(prefix)));
        }
    }

    #[test]
    fn some_ranges_are_not_for_hosts() {
        for bad in [
            "0.0.0.0/8",
            "0.1.2.0/24",
            "127.0.0.0/8",
            "127.1.0.0/30",
            "169.254.0.0/16",
            "169.254.7.0/24",
            "169.0.0.0/8",
            "224.0.0.0/8",
            "239.1.0.0/24",
            "240.0.0.0/8",
            "255.255.255.252/30",
        ] {
            assert!(matches!(subnet(bad).check_usable(), Err(SubnetError::Unusable { .. })), "{bad}");
        }
        for good in ["1.0.0.0/8", "126.0.0.0/8", "128.0.0.0/8", "169.253.0.0/16", "169.255.0.0/16", "223.0.0.0/8"] {
            assert_eq!(subnet(good).check_usable(), Ok(()), "{good}");
        }
    }

    #[test]
    fn gateway_must_be_a_host_address() {
        let net = subnet("192.0.2.4/30");
        let gateway = |last| GatewaySubnet::new(net, Some(Ipv4Addr::new(192, 0, 2, last)));
        assert_eq!(GatewaySubnet::new(net, None).unwrap().gateway(), Ipv4Addr::new(192, 0, 2, 5));
        assert_eq!(gateway(3), Err(HostAddressError::Outside(net)));
        assert_eq!(gateway(4), Err(HostAddressError::Network(net)));
        assert!(gateway(6).is_ok());
        assert_eq!(gateway(7), Err(HostAddressError::Broadcast(net)));
    }

    #[test]
    fn a_guests_address_is_a_host_address_other_than_the_gateways() {
        let net = subnet("192.0.2.8/29");
        let with_gateway = GatewaySubnet::new(net, Some(Ipv4Addr::new(192, 0, 2, 10))).unwrap();
        let guest = |last| with_gateway.check_guest(Ipv4Addr::new(192, 0, 2, last));
        let guests = (0..=255).filter(|last| guest(*last).is_ok()).collect::<Vec<u8>>();
        assert_eq!(guests, [9, 11, 12, 13, 14]);
        assert_eq!(with_gateway.guest_addresses(), 5);
        assert_eq!(guest(7), Err(HostAddressError::Outside(net)));
        assert_eq!(guest(8), Err(HostAddressError::Network(net)));
        assert_eq!(guest(15), Err(HostAddressError::Broadcast(net)));
        assert_eq!(guest(10), Err(HostAddressError::Gateway(net)));
        let size = |text| GatewaySubnet::new(subnet(text), None).unwrap().guest_addresses();
        assert_eq!((size("10.0.0.0/30"), size("10.0.0.0/24"), size("10.0.0.0/8")), (1, 253, 16_777_213));
    }

    #[test]
    fn assigns_each_host_once() {
        let net = subnet("192.0.2.4/30");
        let host = |last| Some(Ipv4Addr::new(192, 0, 2, last));
        assert_eq!(
            (net.host_after(None, 0), net.host_after(host(5), 0), net.host_after(host(6), 0)),
            (host(5), host(6), None)
        );
        assert_eq!(
            (net.host_after(None, 1), net.host_after(None, 2), net.host_after(host(5), 1)),
            (host(6), None, None)
        );
        assert_eq!(net.host_after(host(2), 0), host(5), "the subnet was raised");
        assert_eq!((net.host_after(host(2), 2), net.host_after(host(2), 3)), (host(5), host(6)));
        assert_eq!(net.host_after(host(200), 0), None, "the subnet was lowered");
        let last = Some(Ipv4Addr::BROADCAST);
        assert_eq!(
            (net.host_after(last, 0), net.host_after(last, u64::MAX), net.host_after(None, u64::MAX)),
            (None, None, None)
        );
    }

    proptest! {
        #[test]
        fn overlap_is_a_common_address(a: u32, b: u32, pa in 8u8..=30, pb in 8u8..=30) {
            // Close to each other, or they would hardly ever overlap.
            let one = Ipv4Subnet::new(Ipv4Addr::from_bits(a), pa).unwrap();
            let two = Ipv4Subnet::new(Ipv4Addr::from_bits(a ^ (b >> 12)), pb).unwrap();
            let shared = one.network() <= two.broadcast() && two.network() <= one.broadcast();
            prop_assert_eq!(one.overlaps(two), shared);
            prop_assert_eq!(one.overlaps(two), two.overlaps(one));
        }
    }
}
