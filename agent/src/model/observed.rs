//! The node's links as the kernel told of them. [`Observed::apply`] keeps them up to date from what it tells next.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The kind of a bridge, as the kernel calls it.
pub const BRIDGE: &str = "bridge";

/// One link: what matters of it to us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The interface index, unique as long as the link exists.
    pub index: u32,
    /// The name.
    pub name: String,
    /// The kind, such as `bridge`; empty for hardware.
    #[serde(default)]
    pub kind: String,
    /// The MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// The alias.
    #[serde(default)]
    pub alias: Option<String>,
    /// The index of the bridge (or other link) that it is a port of.
    #[serde(default)]
    pub master: Option<u32>,
}

/// Something the kernel told of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// It is like this.
    Seen(Link),
    /// The link with this index is gone.
    Gone(u32),
}

/// All links of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Link>", into = "Vec<Link>")]
pub struct Observed(BTreeMap<u32, Link>);

impl Observed {
    /// The links, in the order of their indexes.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.0.values()
    }

    /// The link with this index.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.0.get(&index)
    }

    /// Takes a change in; says whether it was one.
    pub fn apply(&mut self, change: LinkChange) -> bool {
        match change {
            LinkChange::Seen(link) => {
                let index = link.index;
                let differs = self.0.get(&index) != Some(&link);
                self.0.insert(index, link);
                differs
            }
            LinkChange::Gone(index) => self.0.remove(&index).is_some(),
        }
    }
}

impl From<Vec<Link>> for Observed {
    fn from(links: Vec<Link>) -> Self {
        Self(links.into_iter().map(|link| (link.index, link)).collect())
    }
}

impl From<Observed> for Vec<Link> {
    fn from(observed: Observed) -> Self {
        observed.0.into_values().collect()
    }
}
