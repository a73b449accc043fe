//! MAC addresses of NICs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The prefix of the addresses assigned to NICs: locally administered, and the one that QEMU and KVM use for guests.
const PREFIX: [u8; 3] = [0x52, 0x54, 0x00];

/// A unicast MAC address (EUI-48): six pairs of lower-case hex digits, separated by `:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$"))]
pub struct MacAddress([u8; 6]);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a unicast MAC address such as `52:54:00:12:34:56`, not `{0}`")]
pub struct MacError(String);

impl MacAddress {
    /// Number of addresses that can be assigned.
    pub const ASSIGNABLE: u32 = 1 << 24;

    /// The assignable address of this number: `52:54:00` and the three low bytes of `number`.
    pub const fn assigned(number: u32) -> Self {
        let [a, b, c] = PREFIX;
        let [_, d, e, f] = number.to_be_bytes();
        Self([a, b, c, d, e, f])
    }

    /// The bytes in transmission order.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl TryFrom<[u8; 6]> for MacAddress {
    type Error = MacError;
    fn try_from(octets: [u8; 6]) -> Result<Self, MacError> {
        let [first, ..] = octets;
        if first & 1 == 0 && octets != [0; 6] { Ok(Self(octets)) } else { Err(MacError(Self(octets).to_string())) }
    }
}

impl std::fmt::Display for MacAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for MacAddress {
    type Err = MacError;
    fn from_str(text: &str) -> Result<Self, MacError> {
        let error = || MacError(text.to_owned());
        let mut parts = text.split(':');
        let mut octets = [0; 6];
        for octet in &mut octets {
            let digits = parts.next().filter(|digits| digits.len() == 2).ok_or_else(error)?;
            if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(error());
            }
            *octet = u8::from_str_radix(digits, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() { Err(error()) } else { Self::try_from(octets).map_err(|_| error()) }
    }
}

impl TryFrom<String> for MacAddress {
    type Error = MacError;
    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let mac = MacAddress::assigned(0x0012_34ab);
        assert_eq!(mac.to_string(), "52:54:00:12:34:ab");
        assert_eq!("52:54:00:12:34:AB".parse(), Ok(mac));
        assert_eq!(MacAddress::assigned(0xff12_34ab), mac, "only three bytes are used");
    }

    #[test]
    fn rejects_malformed_and_multicast_addresses() {
        for bad in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52-54-00-12-34-56",
            "52:54:00:12:34:+6",
            "52:54:00:12:34:5g",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
        ] {
            assert_eq!(bad.parse::<MacAddress>(), Err(MacError(bad.to_owned())));
        }
    }
}
