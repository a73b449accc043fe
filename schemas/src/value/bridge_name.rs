//! The name of a bridge on the nodes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Vni, string_value};

/// Longest interface name, in bytes: `IFNAMSIZ` less the terminating zero (linux/if.h).
const MAX: usize = 15;

/// Names with these beginnings belong to overlays and the mesh.
const RESERVED: [&str; 3] = ["otb", "otvx", "otwg"];

/// Hex digits behind `ot` in a VM tap's name.
const TAP_DIGITS: usize = 12;

/// A bridge name that a user may ask for: 1 to 15 of `[A-Za-z][A-Za-z0-9_-]*` and not reserved.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct BridgeName(String);
string_value!(BridgeName, BridgeNameError);

/// Why a text is no bridge name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BridgeNameError {
    /// Empty, or longer than an interface name can be.
    #[error("must have 1 to 15 characters, not {0}")]
    Length(usize),
    /// Does not begin with a letter, or has a character that is not allowed.
    #[error("must begin with a letter and have only letters, digits, `_` and `-`")]
    Characters,
    /// Belongs to overlays and the mesh.
    #[error("must not begin with `{0}`, which is reserved")]
    Reserved(&'static str),
    /// A VM's tap could be called that.
    #[error("must not be `ot` and 12 hexadecimal digits, which is reserved for taps")]
    Tap,
}

impl BridgeName {
    /// Checks.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, BridgeNameError> {
        match Self::violations(text).next() {
            Some(error) => Err(error),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// Every rule that the text breaks.
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
    fn the_rules() {
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
        let all: Vec<BridgeNameError> = BridgeName::violations("otb.aaaaaaaaaaaaa").collect();
        let wanted = [BridgeNameError::Length(17), BridgeNameError::Characters, BridgeNameError::Reserved("otb")];
        assert_eq!(all, wanted);
    }
}
