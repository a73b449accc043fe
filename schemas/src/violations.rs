//! The violated rules of a request, by field.

use std::collections::BTreeMap;

use serde::Serialize;

/// Violated rules by field, in alphabetical order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Violations(BTreeMap<String, Vec<String>>);

impl Violations {
    /// A single violation.
    pub fn one(field: &str, rule: impl std::fmt::Display) -> Self {
        let mut violations = Self::default();
        violations.add(field, rule);
        violations
    }

    /// Adds a violation, unless the field has the same one already.
    pub fn add(&mut self, field: &str, rule: impl std::fmt::Display) {
        let rules = self.0.entry(field.to_owned()).or_default();
        let rule = rule.to_string();
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }

    /// Returns the value of `result`, or adds its error as a violation.
    pub fn check<T, E: std::fmt::Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(field, error)).ok()
    }

    /// Combines the violations found while parsing a body with the result of validating it. Validation errors of a
    /// field that could not be parsed are dropped: a value of the wrong type is not also missing.
    ///
    /// # Errors
    /// All violations, if there are any.
    pub fn combine<T>(mut self, validated: Result<T, Self>) -> Result<T, Self> {
        match validated {
            Ok(value) if self.is_empty() => Ok(value),
            Ok(_) => Err(self),
            Err(Self(rules)) => {
                for (field, rules) in rules {
                    self.0.entry(field).or_insert(rules);
                }
                Err(self)
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each violation as field and rule.
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
