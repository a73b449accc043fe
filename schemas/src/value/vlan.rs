//! IEEE 802.1Q VLAN ids.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A VLAN id, 1 to 4094 (0 and 4095 are reserved by IEEE 802.1Q).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "i64", into = "i64")]
#[schemars(extend("minimum" = 1, "maximum" = 4094))]
pub struct VlanId(u16);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 4094, not {0}")]
pub struct VlanIdError(i64);

impl VlanId {
    pub fn get(self) -> u16 {
        self.0
    }
}

impl std::fmt::Display for VlanId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<i64> for VlanId {
    type Error = VlanIdError;
    fn try_from(number: i64) -> Result<Self, VlanIdError> {
        match u16::try_from(number) {
            Ok(id @ 1..=4094) => Ok(Self(id)),
            Ok(_) | Err(_) => Err(VlanIdError(number)),
        }
    }
}

impl From<VlanId> for i64 {
    fn from(vlan: VlanId) -> i64 {
        i64::from(vlan.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range() {
        assert_eq!(VlanId::try_from(1).unwrap().get(), 1);
        assert_eq!(VlanId::try_from(4094).unwrap().get(), 4094);
        for bad in [-5, 0, 4095, 65537] {
            assert_eq!(VlanId::try_from(bad), Err(VlanIdError(bad)));
        }
    }
}
