//! Maximum transmission units.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An MTU in bytes, 68 (the minimum of IPv4, RFC 791) to 9216 (jumbo frames).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "i64", into = "i64")]
#[schemars(extend("minimum" = 68, "maximum" = 9216))]
pub struct Mtu(u16);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 68 to 9216, not {0}")]
pub struct MtuError(i64);

impl Mtu {
    /// The MTU of a bridge whose definition does not set one: that of Ethernet.
    pub const DEFAULT: Self = Self(1500);

    /// Overhead of VXLAN over WireGuard over IPv4 in bytes: 50 for VXLAN, 60 for WireGuard.
    const OVERLAY_OVERHEAD: u16 = 110;

    /// The MTU in bytes.
    pub fn get(self) -> u16 {
        self.0
    }

    /// The MTU of an overlay on an underlay with this MTU.
    ///
    /// # Errors
    /// If fewer than 68 bytes are left.
    pub fn of_overlay(self) -> Result<Self, MtuError> {
        Self::try_from(i64::from(self.0) - i64::from(Self::OVERLAY_OVERHEAD))
    }
}

impl std::fmt::Display for Mtu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<i64> for Mtu {
    type Error = MtuError;
    fn try_from(number: i64) -> Result<Self, MtuError> {
        match u16::try_from(number) {
            Ok(bytes @ 68..=9216) => Ok(Self(bytes)),
            Ok(_) | Err(_) => Err(MtuError(number)),
        }
    }
}

impl From<Mtu> for i64 {
    fn from(mtu: Mtu) -> i64 {
        i64::from(mtu.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_and_overlay_overhead() {
        assert_eq!(Mtu::try_from(68).unwrap().get(), 68);
        assert_eq!(Mtu::try_from(9216).unwrap().get(), 9216);
        for bad in [-1, 0, 67, 9217, 65536 + 1500] {
            assert_eq!(Mtu::try_from(bad), Err(MtuError(bad)));
        }
        assert_eq!(Mtu::DEFAULT.of_overlay().unwrap().get(), 1390);
    }
}
