//! IP prefixes in CIDR notation, with the host bits masked off. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IPv4 or IPv6 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// The text or length is not that of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address with a prefix length")]
pub struct PrefixError;

impl Prefix {
    /// Creates the prefix of the first `length` bits of `address`.
    ///
    /// # Errors
    /// [`PrefixError`] if `length` exceeds that of the address.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, PrefixError> {
        let address = match address {
            IpAddr::V4(address) if length <= 32 => Ipv4Addr::from_bits(mask_v4(address, length)).into(),
            IpAddr::V6(address) if length <= 128 => Ipv6Addr::from_bits(mask_v6(address, length)).into(),
            IpAddr::V4(_) | IpAddr::V6(_) => return Err(PrefixError),
        };
        Ok(Self { address, length })
    }

    /// The first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// The prefix length in bits.
    #[must_use]
    pub const fn length(&self) -> u8 {
        self.length
    }
}

/// The prefix of a single address.
impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        let length = if address.is_ipv4() { 32 } else { 128 };
        Self { address, length }
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// An address without a length is the prefix of that address.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let Some((address, length)) = text.split_once('/') else {
            return text.parse::<IpAddr>().map(Self::from).map_err(|_| PrefixError);
        };
        if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(PrefixError); // `parse` would accept a sign
        }
        Self::new(address.parse().map_err(|_| PrefixError)?, length.parse().map_err(|_| PrefixError)?)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// The first `length` bits of an address, at most 32.
pub(super) fn mask_v4(address: Ipv4Addr, length: u8) -> u32 {
    address.to_bits() & u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0)
}

/// The first `length` bits of an address, at most 128.
pub(super) fn mask_v6(address: Ipv6Addr, length: u8) -> u128 {
    address.to_bits() & u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_are_masked_off() {
        for (text, stored) in [
            ("10.0.0.5/24", "10.0.0.0/24"),
            ("10.0.0.5", "10.0.0.5/32"),
            ("10.0.0.5/0", "0.0.0.0/0"),
            ("fd00::1/64", "fd00::/64"),
            ("fd00::1", "fd00::1/128"),
            ("::1/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), stored);
        }
    }

    #[test]
    fn invalid_prefixes_are_rejected() {
        for text in ["", "/", "10.0.0.1/", "10.0.0.1/33", "::/129", "10.0.0/8", "10.0.0.1/+8", "10.0.0.1/ 8", "a/8"] {
            assert_eq!(text.parse::<Prefix>(), Err(PrefixError), "{text}");
        }
    }
}
