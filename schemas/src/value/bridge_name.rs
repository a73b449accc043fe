//! Names of bridges.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Vni, string_value};

/// Longest interface name, in bytes: `IFNAMSIZ` less the terminating zero (linux/if.h).
const MAX: usize = 15;

/// Prefixes of the names of overlays' bridges, VTEPs and mesh devices.
const RESERVED: [&str; 3] = ["otb", "otvx", "otwg"];

/// Names that mean something else to the kernel: folders of `/proc/sys/net/*/conf`, the loopback device, and a file in
/// `/sys/class/net`.
const TAKEN: [&str; 4] = ["all", "bonding_masters", "default", "lo"];

/// Hex digits after `ot` in the name of a NIC's tap.
const TAP_DIGITS: usize = 12;

/// The name of a bridge: 1 to 15 of `A-Za-z0-9_-`, beginning with a letter. Names that begin with `otb`, `otvx` or
/// `otwg`, and `ot` with 12 hex digits, are reserved, without regard to case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[A-Za-z][A-Za-z0-9_-]{0,14}$"))]
pub struct BridgeName(String);
string_value!(BridgeName, BridgeNameError);

/// A rule that a bridge name violates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BridgeNameError {
    #[error("must have 1 to 15 characters, not {0}")]
    Length(usize),
    #[error("must begin with a letter and have only letters, digits, `_` and `-`")]
    Characters,
    #[error("must not begin with `{0}`, which is reserved")]
    Reserved(&'static str),
    #[error("must not be `ot` and 12 hexadecimal digits, which is reserved for taps")]
    Tap,
    #[error("must not be `{0}`, which has a meaning of its own on Linux")]
    Taken(&'static str),
}

impl BridgeName {
    /// # Errors
    /// The first rule that the text violates.
    pub fn parse(text: &str) -> Result<Self, BridgeNameError> {
        match Self::violations(text).next() {
            Some(error) => Err(error),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// Every rule that the text violates as the bridge of a new network. Networks that earlier versions recorded may
    /// have a name that the kernel uses for something else.
    pub fn violations_of_new(text: &str) -> impl Iterator<Item = BridgeNameError> {
        let taken = TAKEN.into_iter().find(|name| *name == text).map(BridgeNameError::Taken);
        Self::violations(text).chain(taken)
    }

    /// Every rule of the type that the text violates.
    pub fn violations(text: &str) -> impl Iterator<Item = BridgeNameError> {
        let length = text.chars().count();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let plain = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(allowed);
        let lower = text.to_ascii_lowercase();
        let reserved = RESERVED.into_iter().find(|prefix| lower.starts_with(prefix));
        let is_tap = |digits: &str| digits.len() == TAP_DIGITS && digits.chars().all(|c| c.is_ascii_hexdigit());
        let rules = [
            (!(1..=MAX).contains(&length)).then_some(BridgeNameError::Length(length)),
            (length > 0 && !plain).then_some(BridgeNameError::Characters),
            reserved.map(BridgeNameError::Reserved),
            lower.strip_prefix("ot").is_some_and(is_tap).then_some(BridgeNameError::Tap),
        ];
        rules.into_iter().flatten()
    }

    /// The bridge of the overlay with this VNI: `otb<vni>`.
    pub fn of_overlay(vni: Vni) -> String {
        format!("otb{vni}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        for good in ["a", "br-app", "Br_0", "abcdefghijklmno", "ot", "ota1b2c3d4e5f", "otx"] {
            assert!(BridgeName::parse(good).is_ok(), "{good}");
        }
        assert_eq!(BridgeName::parse(""), Err(BridgeNameError::Length(0)));
        assert_eq!(BridgeName::parse("abcdefghijklmnop"), Err(BridgeNameError::Length(16)));
        for bad in ["0a", "-a", "a.b", "a b", "bü", "a:b"] {
            assert_eq!(BridgeName::parse(bad), Err(BridgeNameError::Characters), "{bad}");
        }
        assert_eq!(BridgeName::parse("OTB1"), Err(BridgeNameError::Reserved("otb")));
        assert_eq!(BridgeName::parse("otVx9"), Err(BridgeNameError::Reserved("otvx")));
        assert_eq!(BridgeName::parse("OtWg0"), Err(BridgeNameError::Reserved("otwg")));
        assert_eq!(BridgeName::parse("ot0123456789ab"), Err(BridgeNameError::Tap));
        assert_eq!(BridgeName::parse("OT0123456789AB"), Err(BridgeNameError::Tap));
        for taken in TAKEN {
            assert!(BridgeName::parse(taken).is_ok(), "an event of an earlier version may have it");
            let all: Vec<BridgeNameError> = BridgeName::violations_of_new(taken).collect();
            assert_eq!(all, [BridgeNameError::Taken(taken)]);
        }
        let all: Vec<BridgeNameError> = BridgeName::violations("otb.aaaaaaaaaaaaa").collect();
        let expected = [BridgeNameError::Length(17), BridgeNameError::Characters, BridgeNameError::Reserved("otb")];
        assert_eq!(all, expected);
    }
}
