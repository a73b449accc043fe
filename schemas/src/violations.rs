//! The violated rules of a request, by field.

use std::collections::BTreeMap;

use serde::Serialize;

/// Most fields that are listed; a request that a person makes has fewer.
const FIELDS_MAX: usize = 50;

/// Most characters of a field's name and of a rule, both of which may repeat what the request contains.
const FIELD_MAX: usize = 100;
const RULE_MAX: usize = 500;

/// Violated rules by field, in alphabetical order of the fields. However large and wrong a request is, they are short
/// enough for an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Violations {
    fields: BTreeMap<String, Vec<String>>,
    /// Fields that are not listed.
    #[serde(skip)]
    omitted: usize,
}

impl Violations {
    /// A single violation.
    pub fn one(field: &str, rule: impl std::fmt::Display) -> Self {
        let mut violations = Self::default();
        violations.add(field, rule);
        violations
    }

    /// Adds a violation, unless the field has the same one already.
    pub fn add(&mut self, field: &str, rule: impl std::fmt::Display) {
        let field = shortened(field.to_owned(), FIELD_MAX);
        if self.fields.len() >= FIELDS_MAX && !self.fields.contains_key(&field) {
            self.omitted += 1;
            return;
        }
        let rules = self.fields.entry(field).or_default();
        let rule = shortened(rule.to_string(), RULE_MAX);
        if !rules.contains(&rule) && rules.len() < FIELDS_MAX {
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
            Err(Self { fields, omitted }) => {
                for (field, rules) in fields {
                    self.fields.entry(field).or_insert(rules);
                }
                self.omitted += omitted;
                Err(self)
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Each violation as field and rule.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().flat_map(|(field, rules)| rules.iter().map(move |rule| (field.as_str(), rule.as_str())))
    }
}

impl std::fmt::Display for Violations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        for (field, rule) in self.iter() {
            write!(f, "{separator}`{field}` {rule}")?;
            separator = "; ";
        }
        if self.omitted > 0 {
            write!(f, "; and {} more", self.omitted)?;
        }
        Ok(())
    }
}

/// The beginning of a text that is longer than `max` characters.
pub(crate) fn shortened(text: String, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_are_short_however_many_there_are() {
        let mut violations = Violations::default();
        for number in 0..100_000 {
            violations.add(&format!("field-{number}-{}", "x".repeat(200)), "y".repeat(10_000));
        }
        let text = violations.to_string();
        assert!(text.len() < 50_000 && text.ends_with("; and 99950 more"), "{}", text.len());
        assert!(serde_json::to_vec(&violations).unwrap().len() < 50_000);
        let mut short = Violations::one("a", "is ä");
        short.add("a", "is ä");
        assert_eq!(short.to_string(), "`a` is ä");
    }
}
