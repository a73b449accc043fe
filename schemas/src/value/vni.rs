//! VXLAN network identifiers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The largest VNI: 24 bits (RFC 7348, section 5).
const MAX: u32 = 0x00ff_ffff;

/// A VXLAN network identifier, 1 to 16777215.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u32", into = "u32")]
#[schemars(extend("minimum" = 1, "maximum" = 16_777_215))]
pub struct Vni(u32);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VniError {
    #[error("must be 1 to 16777215, not {0}")]
    Range(u32),
    /// The last VNI is below the first.
    #[error("the range `{first}..{last}` is empty")]
    Empty { first: Vni, last: Vni },
}

impl Vni {
    pub fn get(self) -> u32 {
        self.0
    }

    /// The next VNI, unless this is the last.
    pub fn next(self) -> Option<Self> {
        Self::try_from(self.0 + 1).ok()
    }
}

impl std::fmt::Display for Vni {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u32> for Vni {
    type Error = VniError;
    fn try_from(number: u32) -> Result<Self, VniError> {
        if (1..=MAX).contains(&number) { Ok(Self(number)) } else { Err(VniError::Range(number)) }
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> u32 {
        vni.0
    }
}

/// The range of VNIs that overlays are assigned from, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VniRange {
    first: Vni,
    last: Vni,
}

impl VniRange {
    /// 1000 to 16777215.
    pub const DEFAULT: Self = Self { first: Vni(1000), last: Vni(MAX) };

    /// # Errors
    /// If `last` is below `first`.
    pub fn new(first: Vni, last: Vni) -> Result<Self, VniError> {
        if first <= last { Ok(Self { first, last }) } else { Err(VniError::Empty { first, last }) }
    }

    /// The VNI to assign next, after `highest`, the highest ever assigned. `None` if the range is exhausted.
    pub fn after(self, highest: Option<Vni>) -> Option<Vni> {
        let candidate = match highest {
            None => self.first,
            Some(highest) => highest.next()?.max(self.first),
        };
        (candidate <= self.last).then_some(candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_assigns_each_vni_once() {
        let vni = |n| Vni::try_from(n).unwrap();
        let range = VniRange::new(vni(7), vni(8)).unwrap();
        assert_eq!(range.after(None), Some(vni(7)));
        assert_eq!(range.after(Some(vni(3))), Some(vni(7)), "the range was raised");
        assert_eq!(range.after(Some(vni(7))), Some(vni(8)));
        assert_eq!(range.after(Some(vni(8))), None);
        assert_eq!(VniRange::DEFAULT.after(Some(vni(MAX))), None);
        assert!(VniRange::new(vni(8), vni(7)).is_err());
        assert_eq!(Vni::try_from(0), Err(VniError::Range(0)));
        assert_eq!(Vni::try_from(MAX + 1), Err(VniError::Range(MAX + 1)));
    }
}
