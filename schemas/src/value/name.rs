//! The names people give to networks, VMs and nodes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::string_value;

/// Longest name of a network or VM, in Unicode scalar values.
const THING_NAME_MAX: usize = 255;

/// Longest node name, in bytes: that of a DNS label (RFC 1035, section 2.3.4).
const NODE_NAME_MAX: usize = 63;

/// Why a text is no name of a network or VM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is left after trimming.
    #[error("must not be empty")]
    Empty,
    /// Longer than 255 characters.
    #[error("must have at most 255 characters, not {0}")]
    TooLong(usize),
    /// Has a `/`.
    #[error("must not contain `/`")]
    Slash,
    /// Has a control character.
    #[error("must not contain control characters")]
    Control,
    /// Reads as a UUID, so that a command could not tell it from an id.
    #[error("must not have the shape of a UUID")]
    Uuid,
}

/// Every rule of the names of networks and VMs that the text breaks.
fn violations(text: &str) -> impl Iterator<Item = NameError> {
    let name = text.trim();
    let length = name.chars().count();
    let rules = [
        (length == 0, NameError::Empty),
        (length > THING_NAME_MAX, NameError::TooLong(length)),
        (name.contains('/'), NameError::Slash),
        (name.chars().any(char::is_control), NameError::Control),
        (Uuid::try_parse(name).is_ok(), NameError::Uuid),
    ];
    rules.into_iter().filter_map(|(broken, error)| broken.then_some(error))
}

/// The name without regard to case. Upper case and then lower, so that letters with more than one lower-case form (`ß`/`SS`,
/// `σ`/`ς`) meet; lower case before that for those with more than one upper-case form (`ẞ`/`SS`).
fn key(name: &str) -> String {
    name.to_lowercase().to_uppercase().to_lowercase()
}

macro_rules! thing_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);
        string_value!($name, NameError);

        impl $name {
            /// Trims and checks.
            ///
            /// # Errors
            /// The first rule that the text breaks.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                match Self::violations(text).next() {
                    Some(error) => Err(error),
                    None => Ok(Self(text.trim().to_owned())),
                }
            }

            /// Every rule that the text breaks.
            pub fn violations(text: &str) -> impl Iterator<Item = NameError> {
                violations(text)
            }

            /// What must be unique: the name without regard to case.
            pub fn key(&self) -> String {
                key(&self.0)
            }
        }
    };
}

thing_name! {
    /// A network's name: 1 to 255 characters, trimmed, without `/` and control characters, and not to
    /// be mistaken for a UUID. Unique among the networks of a cluster by its [`NetworkName::key`].
    NetworkName
}
thing_name! {
    /// A VM's name: 1 to 255 characters, trimmed, without `/` and control characters, and not to
    /// be mistaken for a UUID. Unique among the VMs of a cluster by its [`VmName::key`].
    VmName
}

/// A node's name: 1 to 63 of `A-Za-z0-9._-`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);
string_value!(NodeName, NodeNameError);

/// Why a text is no node name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 63 of `A-Z a-z 0-9 . _ -`, beginning with a letter or a digit")]
pub struct NodeNameError;

impl NodeName {
    /// Checks.
    ///
    /// # Errors
    /// When the text is no node name.
    pub fn parse(text: &str) -> Result<Self, NodeNameError> {
        let alphanumeric_first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if alphanumeric_first && text.len() <= NODE_NAME_MAX && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NodeNameError)
        }
    }

    /// What must be unique: the name without regard to case.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_trimmed_and_counted_in_characters() {
        assert_eq!(NetworkName::parse("  net-dev\t").unwrap().as_str(), "net-dev");
        assert!(NetworkName::parse(&"ü".repeat(255)).is_ok());
        assert_eq!(NetworkName::parse(&"ü".repeat(256)), Err(NameError::TooLong(256)));
    }

    #[test]
    fn what_is_no_name_says_which_rule_it_breaks() {
        assert_eq!(NetworkName::parse(" "), Err(NameError::Empty));
        assert_eq!(NetworkName::parse("a/b"), Err(NameError::Slash));
        assert_eq!(NetworkName::parse("a\u{7}b"), Err(NameError::Control));
        assert_eq!(NetworkName::parse("01890a5d-ac96-774b-bcce-b302099a8057"), Err(NameError::Uuid));
        assert_eq!(NetworkName::parse("01890A5DAC96774BBCCEB302099A8057"), Err(NameError::Uuid));
        let all: Vec<NameError> = NetworkName::violations(&"/\u{7}".repeat(128)).collect();
        assert_eq!(all, [NameError::TooLong(256), NameError::Slash, NameError::Control]);
    }

    #[test]
    fn keys_meet_whatever_the_case() {
        let key = |text: &str| NetworkName::parse(text).unwrap().key();
        assert_eq!(key("Net-Dev"), key("nET-dEV"));
        assert_eq!(key("STRASSE"), key("straße"));
        assert_eq!(key("GRÖẞE"), key("größe"));
        assert_eq!(key("ΟΔΟΣ"), key("οδος"));
        for c in (char::MIN..=char::MAX).filter(|c| c.is_alphabetic()) {
            let name = format!("{c}a");
            assert_eq!(key(&name.to_uppercase()), key(&name), "{name}");
            assert_eq!(key(&name.to_lowercase()), key(&name), "{name}");
            assert_eq!(key(&key(&name)), key(&name), "{name}");
        }
        assert_ne!(key("net-a"), key("net-b"));
    }

    #[test]
    fn node_names_are_plain() {
        assert!(NodeName::parse("node-1.example").is_ok());
        for bad in ["", "-a", "a b", "a/b", "ä", &"a".repeat(64)] {
            assert_eq!(NodeName::parse(bad), Err(NodeNameError), "{bad}");
        }
    }
}
