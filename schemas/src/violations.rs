//! All the rules that one request breaks, each with its field.

use std::collections::BTreeMap;

use serde::Serialize;

/// Broken rules by field, in the fields' alphabetical order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Violations(BTreeMap<String, Vec<String>>);

impl Violations {
    /// One broken rule.
    pub fn one(field: &str, rule: impl std::fmt::Display) -> Self {
        let mut violations = Self::default();
        violations.add(field, rule);
        violations
    }

    /// Notes one more broken rule; the same one twice is noted once.
    pub fn add(&mut self, field: &str, rule: impl std::fmt::Display) {
        let rules = self.0.entry(field.to_owned()).or_default();
        let rule = rule.to_string();
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }

    /// The value of `result`, or none and its error noted.
    pub fn check<T, E: std::fmt::Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(field, error)).ok()
    }

    /// Whether nothing is broken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields with what is wrong with them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(field, rules)| rules.iter().map(move |rule| (field.as_str(), rule.as_str())))
    }
}

impl std::fmt::Display for Violations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        for (field, rule) in self.iter() {
            write!(f, "{separator}`{field}` {rule}")?;
            separator = "; ";
        }
        Ok(())
    }
}
