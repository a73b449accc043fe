//! Rules of policy routing: which table the route of a packet is looked up in.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::route::{LOCAL_TABLE, MAIN_TABLE, Prefix};

/// A rule that selects a table, or drops packets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub priority: u32,
    /// None if it drops the packets (`blackhole`, `unreachable`, `prohibit`).
    #[serde(default)]
    pub table: Option<u32>,
    /// The source addresses; all, if absent.
    #[serde(default)]
    pub from: Option<Prefix>,
    /// The destinations; all, if absent.
    #[serde(default)]
    pub to: Option<Prefix>,
    /// The name of the link that the packet was received on; any, if absent.
    #[serde(default)]
    pub received_on: Option<String>,
    /// It matches only packets that the node itself sends.
    #[serde(default)]
    pub is_local: bool,
    /// It matches what its selectors do not.
    #[serde(default)]
    pub is_inverted: bool,
    /// It has other selectors, such as marks, which a packet may match or not.
    #[serde(default)]
    pub is_partial: bool,
    /// Default routes of the table are not used (`suppress_prefixlength`).
    #[serde(default)]
    pub ignores_defaults: bool,
}

impl Rule {
    /// Whether it may match a packet that is received on one of these links and has a source address in one of these
    /// prefixes.
    fn may_match(&self, links: &BTreeSet<&str>, sources: &[Prefix]) -> bool {
        let is_from = self.from.is_none_or(|from| sources.iter().any(|source| source.overlaps(from)));
        let is_on = self.received_on.as_deref().is_none_or(|link| links.contains(link));
        !self.is_local && (self.is_inverted || (is_from && is_on))
    }

    /// Whether it matches all packets that are received on this link, have a source address in this prefix, and are
    /// sent to a destination in [`Rule::to`].
    pub fn matches(&self, link: &str, source: Prefix) -> bool {
        let is_from = self.from.is_none_or(|from| from.contains_all_of(source));
        let is_on = self.received_on.as_deref().is_none_or(|name| name == link);
        !self.is_local && !self.is_inverted && !self.is_partial && is_from && is_on
    }
}

/// The priorities and tables of the rules that the kernel has from the start.
const KERNEL_RULES: [(u32, Option<u32>); 3] = [(0, Some(LOCAL_TABLE)), (32_766, Some(MAIN_TABLE)), (32_767, Some(253))];

/// The IPv4 rules of policy routing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rules(BTreeSet<Rule>);

impl Rules {
    /// Adds a rule. Returns whether it is new.
    pub fn insert(&mut self, rule: Rule) -> bool {
        self.0.insert(rule)
    }

    /// Whether there are rules that someone added.
    pub fn has_added(&self) -> bool {
        self.0.iter().any(|rule| !KERNEL_RULES.contains(&(rule.priority, rule.table)))
    }

    /// Whether a rule that someone added may lead packets that the node itself sends to this prefix away from where the
    /// main table does. Their source is not chosen yet.
    pub fn may_redirect(&self, to: Prefix) -> bool {
        let added = self.0.iter().filter(|rule| !KERNEL_RULES.contains(&(rule.priority, rule.table)));
        added.into_iter().any(|rule| {
            let is_own = rule.is_local || rule.received_on.is_none();
            let is_to = rule.to.is_none_or(|prefix| prefix.overlaps(to));
            rule.is_inverted || (is_own && is_to && rule.from.is_none_or(|from| from == Prefix::ALL))
        })
    }

    /// Returns the tables that the routes of packets may be looked up in which are received on one of these links and
    /// have a source address in one of these prefixes. A kernel without rules uses the main table.
    pub fn tables(&self, links: &BTreeSet<&str>, sources: &[Prefix]) -> BTreeSet<u32> {
        if self.0.is_empty() {
            return BTreeSet::from([MAIN_TABLE]);
        }
        self.0.iter().filter(|rule| rule.may_match(links, sources)).filter_map(|rule| rule.table).collect()
    }

    /// Returns the rules that may match a packet that is received on this link and has a source address in this
    /// prefix, in the order in which they are tried. None if the kernel has no rules.
    pub fn of(&self, link: &str, source: Prefix) -> Option<impl Iterator<Item = &Rule>> {
        let links = BTreeSet::from([link]);
        let rules = self.0.iter().filter(move |rule| rule.may_match(&links, &[source]));
        (!self.0.is_empty()).then_some(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(rule: serde_json::Value) -> Rule {
        let mut all = serde_json::json!({ "priority": 1 });
        all.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn selects_the_tables_that_packets_may_use() {
        let mut rules = Rules::default();
        let sources = [Prefix::of([10, 20, 0, 0].into(), 24)];
        let tables = |rules: &Rules| rules.tables(&["br-app"].into(), &sources);
        assert_eq!(tables(&rules), [MAIN_TABLE].into());
        rules.insert(rule(serde_json::json!({ "priority": 32_766, "table": 254 })));
        assert!(!rules.has_added());
        for all in [
            serde_json::json!({ "table": 10, "from": "10.20.0.128/25" }),
            serde_json::json!({ "table": 11, "from": "10.21.0.0/24" }),
            serde_json::json!({ "table": 12, "received_on": "br-app" }),
            serde_json::json!({ "table": 13, "received_on": "eth0" }),
            serde_json::json!({ "table": 14, "is_local": true }),
            serde_json::json!({ "table": 15, "is_inverted": true, "received_on": "eth0" }),
            serde_json::json!({ "from": "10.20.0.0/24" }),
        ] {
            rules.insert(rule(all));
        }
        assert_eq!(tables(&rules), [10, 12, 15, 254].into());
        assert!(rules.has_added());
    }

    #[test]
    fn finds_the_rules_that_may_redirect_packets_of_the_node() {
        let may_redirect = |all: serde_json::Value| {
            let mut rules = Rules::default();
            rules.insert(rule(serde_json::json!({ "priority": 32_766, "table": 254 })));
            rules.insert(rule(all));
            rules.may_redirect(Prefix::of([10, 20, 0, 0].into(), 24))
        };
        for rule in [
            serde_json::json!({ "table": 77 }),
            serde_json::json!({ "table": 77, "to": "10.0.0.0/8" }),
            serde_json::json!({ "table": 77, "to": "10.20.0.77/32" }),
            serde_json::json!({ "table": 77, "is_local": true, "received_on": "lo" }),
            serde_json::json!({ "table": 77, "is_inverted": true, "is_partial": true, "from": "10.20.0.0/24" }),
            serde_json::json!({ "is_partial": true }),
        ] {
            assert!(may_redirect(rule.clone()), "{rule}");
        }
        for rule in [
            serde_json::json!({ "table": 77, "from": "10.20.0.0/24" }),
            serde_json::json!({ "table": 77, "received_on": "br-app" }),
            serde_json::json!({ "table": 77, "to": "10.21.0.0/24" }),
            serde_json::json!({ "priority": 0, "table": 255 }),
        ] {
            assert!(!may_redirect(rule.clone()), "{rule}");
        }
    }

    #[test]
    fn tells_rules_for_all_packets_of_a_network_from_those_for_some() {
        let matches = |all| rule(all).matches("br-app", Prefix::of([10, 20, 0, 0].into(), 24));
        assert!(matches(serde_json::json!({})));
        assert!(matches(serde_json::json!({ "from": "10.16.0.0/12", "received_on": "br-app", "to": "10.0.0.0/8" })));
        assert!(!matches(serde_json::json!({ "from": "10.20.0.0/25" })), "half of the network");
        assert!(!matches(serde_json::json!({ "received_on": "br-other" })));
        assert!(!matches(serde_json::json!({ "is_partial": true })), "only packets with a mark");
        assert!(!matches(serde_json::json!({ "is_local": true })));
        assert!(!matches(serde_json::json!({ "is_inverted": true, "from": "10.30.0.0/24" })));
    }
}
