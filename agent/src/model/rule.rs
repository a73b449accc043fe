//! Rules of policy routing: which table the route of a packet is looked up in.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::route::{MAIN_TABLE, Prefix};

/// A rule that selects a table. Other rules, and selectors that may match any packet, such as marks, are left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub priority: u32,
    pub table: u32,
    /// The source addresses; all, if absent.
    #[serde(default)]
    pub from: Option<Prefix>,
    /// The name of the link that the packet was received on; any, if absent.
    #[serde(default)]
    pub received_on: Option<String>,
    /// It matches only packets that the node itself sends.
    #[serde(default)]
    pub is_local: bool,
    /// It matches what its selectors do not.
    #[serde(default)]
    pub is_inverted: bool,
}

/// The IPv4 rules of policy routing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rules(BTreeSet<Rule>);

impl Rules {
    /// Adds a rule. Returns whether it is new.
    pub fn insert(&mut self, rule: Rule) -> bool {
        self.0.insert(rule)
    }

    /// Returns the tables that the routes of packets may be looked up in which are received on one of these links and
    /// have a source address in one of these prefixes. A kernel without rules uses the main table.
    pub fn tables(&self, links: &BTreeSet<&str>, sources: &[Prefix]) -> BTreeSet<u32> {
        if self.0.is_empty() {
            return BTreeSet::from([MAIN_TABLE]);
        }
        let may_match = |rule: &&Rule| {
            let Rule { priority: _, table: _, from, received_on, is_local, is_inverted } = rule;
            let is_from = from.is_none_or(|from| sources.iter().any(|source| source.overlaps(from)));
            let is_on = received_on.as_deref().is_none_or(|link| links.contains(link));
            !is_local && (*is_inverted || (is_from && is_on))
        };
        self.0.iter().filter(may_match).map(|rule| rule.table).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_the_tables_that_packets_may_use() {
        let rule = |rule: serde_json::Value| -> Rule {
            let mut all = serde_json::json!({ "priority": 1 });
            all.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
            serde_json::from_value(all).unwrap()
        };
        let mut rules = Rules::default();
        let sources = [Prefix::of([10, 20, 0, 0].into(), 24)];
        let tables = |rules: &Rules| rules.tables(&["br-app"].into(), &sources);
        assert_eq!(tables(&rules), [MAIN_TABLE].into());
        for all in [
            serde_json::json!({ "table": 254 }),
            serde_json::json!({ "table": 10, "from": "10.20.0.128/25" }),
            serde_json::json!({ "table": 11, "from": "10.21.0.0/24" }),
            serde_json::json!({ "table": 12, "received_on": "br-app" }),
            serde_json::json!({ "table": 13, "received_on": "eth0" }),
            serde_json::json!({ "table": 14, "is_local": true }),
            serde_json::json!({ "table": 15, "is_inverted": true, "received_on": "eth0" }),
        ] {
            rules.insert(rule(all));
        }
        assert_eq!(tables(&rules), [10, 12, 15, 254].into());
    }
}
