//! The packet filters of other programs, as far as they may prevent our networks from working, and what they do with a
//! packet.
//!
//! - [`ForeignFilter`]: tables, chains and rules, as the kernel holds them
//! - [`expression`]: what rules consist of; [`xtables`]: matches of iptables in them; [`set`]: sets and maps
//! - [`packet`]: a packet, and what rules read of it; [`value`]: bytes that are known in part
//! - [`rule`], [`walk`]: what rules and chains do with a packet
//!
//! Whatever cannot be determined is unknown, and makes a result uncertain, but never wrong.

pub mod expression;
mod needed;
pub mod packet;
mod rule;
pub mod set;
pub mod value;
pub mod walk;
pub mod xtables;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use self::expression::Expression;
use self::set::FilterSet;

pub use self::needed::needed;

/// The tables of other programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ForeignFilter {
    pub tables: Vec<ForeignTable>,
}

/// A table of another program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignTable {
    pub family: Family,
    pub name: String,
    pub chains: BTreeMap<String, Chain>,
    #[serde(default)]
    pub sets: BTreeMap<String, FilterSet>,
}

/// A chain of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// Absent if only other chains lead to it.
    #[serde(default)]
    pub base: Option<Base>,
    #[serde(default)]
    pub rules: Vec<Vec<Expression>>,
}

/// Where packets enter a base chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    pub hook: Hook,
    #[serde(default)]
    pub priority: i32,
    /// It translates addresses: only the first packet of a connection enters it.
    #[serde(default)]
    pub nat: bool,
    /// What no rule decides is dropped.
    #[serde(default)]
    pub drops: bool,
    /// The names of the links, at the hooks of links; a trailing `*` stands for any end.
    #[serde(default)]
    pub devices: Vec<String>,
}

/// The families of tables that concern our networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    Ip,
    Inet,
    Arp,
    Bridge,
    Netdev,
}

/// The hooks of base chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    Ingress,
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    Egress,
}

impl Family {
    /// The name that `nft` uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Inet => "inet",
            Self::Arp => "arp",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A base chain with its table.
#[derive(Clone, Copy, Debug)]
pub struct BaseChain<'a> {
    pub table: &'a ForeignTable,
    pub name: &'a str,
    pub chain: &'a Chain,
    pub base: &'a Base,
}

impl ForeignFilter {
    /// All base chains.
    pub fn base_chains(&self) -> impl Iterator<Item = BaseChain<'_>> {
        self.tables.iter().flat_map(ForeignTable::base_chains)
    }

    /// Whether no packet of ours is ever dropped.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }
}

impl ForeignTable {
    /// The base chains of the table.
    pub fn base_chains(&self) -> impl Iterator<Item = BaseChain<'_>> {
        let bases = self.chains.iter().filter_map(|(name, chain)| Some((name, chain, chain.base.as_ref()?)));
        bases.map(|(name, chain, base)| BaseChain { table: self, name, chain, base })
    }
}
