//! The targets of lab commands.

use std::str::FromStr;

/// A process of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LabService {
    Node(u32),
    Otherixd,
    Nats,
}

/// A node, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeNumber(pub(crate) u32);

/// A namespace of the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LabNamespace {
    Node(u32),
    /// The namespace of the control plane.
    Underlay,
    /// The host behind the nodes' default route.
    Outside,
    Guest(GuestName),
}

/// The name of a VM that can have a guest: part of the names of a namespace and of files. It is displayed as `vm:NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GuestName(String);

/// Longest name of a VM that can have a guest, in bytes.
const GUEST_NAME_MAX: usize = 63;

impl GuestName {
    /// `NAME`, without the `vm:`.
    pub(crate) fn of_vm(name: &str) -> Result<Self, TargetError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let has_valid_start = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if has_valid_start && name.len() <= GUEST_NAME_MAX && name.chars().all(allowed) {
            return Ok(Self(name.to_owned()));
        }
        Err(TargetError("1 to 63 of `A-Z a-z 0-9 - _ .`, the first a letter or digit: others cannot name a namespace"))
    }

    pub(crate) fn vm(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for GuestName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "vm:{}", self.0)
    }
}

impl FromStr for GuestName {
    type Err = TargetError;
    fn from_str(text: &str) -> Result<Self, TargetError> {
        text.strip_prefix("vm:").ok_or(TargetError("`vm:NAME`")).and_then(Self::of_vm)
    }
}

/// The text does not name a target of the command.
#[derive(Clone, Debug, thiserror::Error)]
#[error("must be {0}")]
pub(crate) struct TargetError(&'static str);

fn node(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("node-").filter(|digits| !digits.starts_with(['0', '+']))?;
    digits.parse().ok()
}

impl FromStr for LabService {
    type Err = TargetError;
    fn from_str(text: &str) -> Result<Self, TargetError> {
        match (text, node(text)) {
            (_, Some(node)) => Ok(Self::Node(node)),
            ("otherixd", None) => Ok(Self::Otherixd),
            ("nats", None) => Ok(Self::Nats),
            (_, None) => Err(TargetError("`node-N`, `otherixd` or `nats`")),
        }
    }
}

impl std::fmt::Display for LabService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node-{node}"),
            Self::Otherixd => f.write_str("otherixd"),
            Self::Nats => f.write_str("nats"),
        }
    }
}

impl FromStr for NodeNumber {
    type Err = TargetError;
    fn from_str(text: &str) -> Result<Self, TargetError> {
        match (text, node(text)) {
            (_, Some(node)) => Ok(Self(node)),
            ("otherixd" | "nats" | "underlay" | "outside", None) => Err(TargetError(
                "`node-N`: only nodes can be cut off or rebooted; to cut off the control plane, cut off every node",
            )),
            (_, None) => Err(TargetError("`node-N`")),
        }
    }
}

impl FromStr for LabNamespace {
    type Err = TargetError;
    fn from_str(text: &str) -> Result<Self, TargetError> {
        match (text, node(text)) {
            (_, Some(node)) => Ok(Self::Node(node)),
            ("underlay", None) => Ok(Self::Underlay),
            ("outside", None) => Ok(Self::Outside),
            (_, None) if text.starts_with("vm:") => text.parse().map(Self::Guest),
            (_, None) => Err(TargetError("`node-N`, `vm:NAME`, `outside` or `underlay`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_targets() {
        assert_eq!("node-12".parse::<LabService>().unwrap(), LabService::Node(12));
        assert_eq!("nats".parse::<LabService>().unwrap(), LabService::Nats);
        assert_eq!("underlay".parse::<LabNamespace>().unwrap(), LabNamespace::Underlay);
        assert_eq!("outside".parse::<LabNamespace>().unwrap(), LabNamespace::Outside);
        assert_eq!("vm:web.1".parse::<LabNamespace>().unwrap(), LabNamespace::Guest(GuestName("web.1".to_owned())));
        for bad in ["vm:", "vm:.", "vm:-a", "vm:a/b", "vm:a b", "vm:ä", "vm:a:b", "web"] {
            assert!(bad.parse::<LabNamespace>().is_err(), "{bad}");
        }
        assert_eq!("node-3".parse::<NodeNumber>().unwrap(), NodeNumber(3));
        assert!(
            "nats".parse::<NodeNumber>().unwrap_err().to_string().contains("only nodes can be cut off or rebooted")
        );
        for bad in ["node-", "node-01", "node-+1", "node--1", "node1", "underlay", ""] {
            assert!(bad.parse::<LabService>().is_err(), "{bad}");
        }
    }
}
