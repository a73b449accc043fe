//! A lab's name.

use std::str::FromStr;

/// Longest name of a lab, in bytes.
const NAME_MAX: usize = 20;

/// A lab's name: part of the names of namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LabName(String);

/// The name of a lab is not valid.
#[derive(Clone, Debug, thiserror::Error)]
#[error("must be 1 to {NAME_MAX} of `a-z 0-9 -`, not starting with `-`")]
pub(crate) struct LabNameError;

impl LabName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LabName {
    type Err = LabNameError;
    fn from_str(text: &str) -> Result<Self, LabNameError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let fits = (1..=NAME_MAX).contains(&text.len()) && text.chars().all(allowed) && !text.starts_with('-');
        if fits { Ok(Self(text.to_owned())) } else { Err(LabNameError) }
    }
}

impl std::fmt::Display for LabName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_malformed_names() {
        for bad in ["", "-a", "A", "a/b", "a.b", "aaaaaaaaaaaaaaaaaaaaa"] {
            assert!(bad.parse::<LabName>().is_err(), "{bad}");
        }
        assert_eq!("a-1".parse::<LabName>().unwrap().to_string(), "a-1");
    }
}
