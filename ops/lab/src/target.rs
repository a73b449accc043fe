//! What commands of the lab are about.

use std::str::FromStr;

use crate::lab::Lab;

/// Something that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A node's agent.
    Node(u32),
    /// The control plane.
    Otherixd,
    /// The control plane's nats-server.
    Nats,
}

/// A node, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node(pub(crate) u32);

/// A namespace of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A node.
    Node(u32),
    /// Where the control plane is.
    Underlay,
}

/// A text that names nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[error("must be {0}")]
pub(crate) struct TargetError(&'static str);

fn node(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("node-").filter(|digits| !digits.starts_with(['0', '+']))?;
    digits.parse().ok()
}

impl FromStr for Target {
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

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node-{node}"),
            Self::Otherixd => f.write_str("otherixd"),
            Self::Nats => f.write_str("nats"),
        }
    }
}

impl FromStr for Node {
    type Err = TargetError;
    fn from_str(text: &str) -> Result<Self, TargetError> {
        match (text, node(text)) {
            (_, Some(node)) => Ok(Self(node)),
            ("otherixd" | "nats" | "underlay", None) => Err(TargetError(
                "`node-N`: only nodes can be cut off; to cut off the control plane, cut off every node",
            )),
            (_, None) => Err(TargetError("`node-N`")),
        }
    }
}

impl FromStr for Place {
    type Err = TargetError;
    fn from_str(text: &str) -> Result<Self, TargetError> {
        match (text, node(text)) {
            (_, Some(node)) => Ok(Self::Node(node)),
            ("underlay", None) => Ok(Self::Underlay),
            (_, None) => Err(TargetError("`node-N` or `underlay`")),
        }
    }
}

impl Place {
    /// The namespace's name.
    pub(crate) fn namespace(self, lab: &Lab) -> String {
        match self {
            Self::Node(node) => lab.node(node),
            Self::Underlay => lab.underlay(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        assert_eq!("node-12".parse::<Target>().unwrap(), Target::Node(12));
        assert_eq!("nats".parse::<Target>().unwrap(), Target::Nats);
        assert_eq!("underlay".parse::<Place>().unwrap(), Place::Underlay);
        assert_eq!("node-3".parse::<Node>().unwrap(), Node(3));
        assert!("nats".parse::<Node>().unwrap_err().to_string().contains("only nodes can be cut off"));
        for bad in ["node-", "node-01", "node-+1", "node--1", "node1", "underlay", ""] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
