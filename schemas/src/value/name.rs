//! Names of networks, VMs, users and nodes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

use super::string_value;

/// Maximum length of the name of a network, VM or user, in Unicode scalar values.
const NAME_MAX: usize = 255;

/// Maximum length of a node name in bytes: that of a DNS label (RFC 1035, section 2.3.4).
const NODE_NAME_MAX: usize = 63;

/// A rule that the name of a network, VM or user violates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("must not be empty")]
    Empty,
    #[error("must have at most 255 characters, not {0}")]
    TooLong(usize),
    #[error("must not contain `/`")]
    Slash,
    #[error("must not contain control characters")]
    Control,
    /// It would be taken for an id.
    #[error("must not have the form of a UUID")]
    Uuid,
}

/// Every rule of the names of networks, VMs and users that the text violates.
fn violations(text: &str) -> impl Iterator<Item = NameError> {
    let name = text.trim();
    let length = name.chars().count();
    let rules = [
        (length == 0, NameError::Empty),
        (length > NAME_MAX, NameError::TooLong(length)),
        (name.contains('/'), NameError::Slash),
        (name.chars().any(char::is_control), NameError::Control),
        (Uuid::try_parse(name).is_ok(), NameError::Uuid),
    ];
    rules.into_iter().filter_map(|(violated, error)| violated.then_some(error))
}

/// Folds the case and normalises (Unicode NFC), so that an accented letter and a letter with a combining accent are
/// equal. Upper case and then lower case unifies letters with several lower-case forms (`ß`/`SS`, `σ`/`ς`); lower case
/// before that, those with several upper-case forms (`ẞ`/`SS`). Decomposed before that, because a case form may combine
/// a letter with its accent.
pub fn name_key(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    let decomposed: String = name.nfd().collect();
    decomposed.to_lowercase().to_uppercase().to_lowercase().nfc().collect()
}

macro_rules! resource_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(extend("minLength" = 1, "maxLength" = 255, "pattern" = "^[^/]*$"))]
        pub struct $name(String);
        string_value!($name, NameError);

        impl $name {
            /// Surrounding white space is trimmed.
            ///
            /// # Errors
            /// The first rule that the text violates.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                match Self::violations(text).next() {
                    Some(error) => Err(error),
                    None => Ok(Self(text.trim().to_owned())),
                }
            }

            /// Every rule that the text violates.
            pub fn violations(text: &str) -> impl Iterator<Item = NameError> {
                violations(text)
            }

            /// The name as it is compared, which must be unique: without regard to case, and to how accented letters
            /// are encoded (Unicode NFC).
            pub fn key(&self) -> String {
                name_key(&self.0)
            }
        }
    };
}

resource_name! {
    /// The name of a network: 1 to 255 characters, trimmed, without `/` and control characters, not of the form of a
    /// UUID.
    NetworkName
}
resource_name! {
    /// The name of a VM: 1 to 255 characters, trimmed, without `/` and control characters, not of the form of a UUID.
    VmName
}
resource_name! {
    /// The name of a user: 1 to 255 characters, trimmed, without `/` and control characters, not of the form of a UUID.
    UserName
}

/// The name of a node: 1 to 63 of `A-Za-z0-9._-`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"))]
pub struct NodeName(String);
string_value!(NodeName, NodeNameError);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 63 of `A-Z a-z 0-9 . _ -`, beginning with a letter or a digit")]
pub struct NodeNameError;

impl NodeName {
    /// # Errors
    /// If the text is not a node name.
    pub fn parse(text: &str) -> Result<Self, NodeNameError> {
        let alphanumeric_first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if alphanumeric_first && text.len() <= NODE_NAME_MAX && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NodeNameError)
        }
    }

    /// The case-folded name, which must be unique.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trims_and_counts_characters() {
        assert_eq!(NetworkName::parse("  net-dev\t").unwrap().as_str(), "net-dev");
        assert!(NetworkName::parse(&"ü".repeat(255)).is_ok());
        assert_eq!(NetworkName::parse(&"ü".repeat(256)), Err(NameError::TooLong(256)));
    }

    #[test]
    fn rejects_with_the_violated_rule() {
        assert_eq!(NetworkName::parse(" "), Err(NameError::Empty));
        assert_eq!(NetworkName::parse("a/b"), Err(NameError::Slash));
        assert_eq!(NetworkName::parse("a\u{7}b"), Err(NameError::Control));
        assert_eq!(NetworkName::parse("01890a5d-ac96-774b-bcce-b302099a8057"), Err(NameError::Uuid));
        assert_eq!(NetworkName::parse("01890A5DAC96774BBCCEB302099A8057"), Err(NameError::Uuid));
        let all: Vec<NameError> = NetworkName::violations(&"/\u{7}".repeat(128)).collect();
        assert_eq!(all, [NameError::TooLong(256), NameError::Slash, NameError::Control]);
    }

    #[test]
    fn keys_ignore_case() {
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
    fn keys_ignore_how_letters_are_encoded() {
        let key = |text: &str| NetworkName::parse(text).unwrap().key();
        assert_eq!(key("café"), key("cafe\u{301}"));
        assert_eq!(key("CAFÉ"), key("cafe\u{301}"));
        assert_eq!(key("\u{212b}"), key("å"), "the sign of the unit Ångström");
        assert_eq!(key("\u{1112}\u{1161}\u{11ab}"), key("한"), "Hangul");
        assert_eq!(key("a\u{323}\u{307}"), key("a\u{307}\u{323}"), "order of accents");
        assert_ne!(key("café"), key("cafe"));
        assert_eq!(NetworkName::parse("cafe\u{301}").unwrap().as_str(), "cafe\u{301}", "stored as given");
        for c in (char::MIN..=char::MAX).filter(|c| c.is_alphanumeric()) {
            let name = format!("{c}\u{345}a\u{301}");
            let (composed, decomposed): (String, String) = (name.nfc().collect(), name.nfd().collect());
            assert_eq!(key(&composed), key(&name), "{name}");
            assert_eq!(key(&decomposed), key(&name), "{name}");
            assert_eq!(key(&key(&name)), key(&name), "{name}");
        }
    }

    #[test]
    fn node_name_rules() {
        assert!(NodeName::parse("node-1.example").is_ok());
        for bad in ["", "-a", "a b", "a/b", "ä", &"a".repeat(64)] {
            assert_eq!(NodeName::parse(bad), Err(NodeNameError), "{bad}");
        }
    }
}
