//! What people say about a resource, which has no effect on nodes: a description, and labels by which it is selected.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::string_value;
use crate::json_field::text;
use crate::violations::Violations;

/// Most labels of a resource.
pub const LABELS_MAX: usize = 32;

/// Longest key and longest value of a label, in bytes.
const LABEL_MAX: usize = 63;

/// Longest description, in characters.
const DESCRIPTION_MAX: usize = 512;

/// A description: 1 to 512 characters, trimmed, on one line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("minLength" = 1, "maxLength" = 512))]
pub struct Description(String);
string_value!(Description, DescriptionError);

/// A rule that a description violates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptionError {
    #[error("must not be empty: leave it out, or `null`")]
    Empty,
    #[error("must have at most {DESCRIPTION_MAX} characters, not {0}")]
    TooLong(usize),
    #[error("must not contain control characters")]
    Control,
}

impl Description {
    /// Surrounding white space is trimmed.
    ///
    /// # Errors
    /// The first rule that the text violates.
    pub fn parse(text: &str) -> Result<Self, DescriptionError> {
        let text = text.trim();
        let length = text.chars().count();
        if length == 0 {
            Err(DescriptionError::Empty)
        } else if length > DESCRIPTION_MAX {
            Err(DescriptionError::TooLong(length))
        } else if text.chars().any(char::is_control) {
            Err(DescriptionError::Control)
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

/// A rule that labels violate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    #[error(
        "has the key `{0}`: keys are 1 to {LABEL_MAX} of `a-z 0-9 . / -`, and begin and end with a letter or digit"
    )]
    Key(String),
    #[error("has the value `{value}` of `{key}`: values are at most {LABEL_MAX} of `A-Z a-z 0-9 . _ / -`")]
    Value { key: String, value: String },
    #[error("has {0} labels: at most {LABELS_MAX} are possible")]
    TooMany(usize),
}

/// Labels: at most 32, with keys of 1 to 63 of `a-z0-9./-` that begin and end with a letter or digit, and values of at
/// most 63 of `A-Za-z0-9._/-`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
#[schemars(with = "BTreeMap<String, String>")]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// # Errors
    /// Every rule that the labels violate.
    pub fn parse(labels: BTreeMap<String, String>) -> Result<Self, Vec<LabelError>> {
        let mut errors = Vec::new();
        if labels.len() > LABELS_MAX {
            errors.push(LabelError::TooMany(labels.len()));
        }
        errors.extend(labels.keys().filter(|key| !is_key(key)).cloned().map(LabelError::Key));
        let wrong = labels.iter().filter(|(_, value)| !is_value(value));
        errors.extend(wrong.map(|(key, value)| LabelError::Value { key: key.clone(), value: value.clone() }));
        if errors.is_empty() { Ok(Self(labels)) } else { Err(errors) }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = LabelError;
    fn try_from(labels: BTreeMap<String, String>) -> Result<Self, LabelError> {
        Self::parse(labels).map_err(|errors| errors.into_iter().next().unwrap_or(LabelError::TooMany(0)))
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

fn is_key(key: &str) -> bool {
    let is_alphanumeric = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = key.as_bytes();
    bytes.len() <= LABEL_MAX
        && is_alphanumeric(bytes.first())
        && is_alphanumeric(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"./-".contains(b))
}

fn is_value(value: &str) -> bool {
    value.len() <= LABEL_MAX && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b))
}

/// A description and labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Metadata {
    pub description: Option<Description>,
    pub labels: Labels,
}

impl Metadata {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.description.is_none() && self.labels.is_empty()
    }

    /// Validates a description and labels as a client sent them.
    ///
    /// # Errors
    /// Every rule that they violate.
    pub fn check(
        description: Option<&str>,
        labels: Option<&BTreeMap<String, String>>,
        violations: &mut Violations,
    ) -> Self {
        let description = description.and_then(|text| violations.check("description", Description::parse(text)));
        let labels = match Labels::parse(labels.cloned().unwrap_or_default()) {
            Ok(labels) => labels,
            Err(errors) => {
                errors.iter().for_each(|error| violations.add("labels", error));
                Labels::default()
            }
        };
        Self { description, labels }
    }
}

impl Metadata {
    /// Returns it with these changes: null removes the description, or a label. Any other field violates the rule.
    ///
    /// # Errors
    /// Every rule that they violate.
    pub fn changed(&self, changes: Map<String, Value>, rule: &str) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let v = &mut violations;
        let mut description = self.description.as_ref().map(ToString::to_string);
        let mut labels: BTreeMap<String, String> = self.labels.clone().into();
        for (field, value) in changes {
            match (field.as_str(), value) {
                ("description", Value::Null) => description = None,
                ("description", value) => description = text("description", value, v),
                ("labels", value) => labels = merge_labels(&self.labels, value, v),
                (field, _) => v.add(field, rule),
            }
        }
        let metadata = Self::check(description.as_deref(), Some(&labels), v);
        if violations.is_empty() { Ok(metadata) } else { Err(violations) }
    }
}

/// What people say about a resource, as far as it is to change. What is left out is as before; null removes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MetadataChanges {
    /// What it is for: 1 to 512 characters on one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Only the labels that change. One that is null is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, Option<String>>>,
}

/// Reads labels from a JSON object.
pub(crate) fn labels_from_json(value: Value, violations: &mut Violations) -> Option<BTreeMap<String, String>> {
    let rule = "must be an object whose values are strings";
    violations.check("labels", serde_json::from_value(value).map_err(|_| rule))
}

/// Changes the labels of a JSON object: null removes one.
pub(crate) fn merge_labels(current: &Labels, changes: Value, violations: &mut Violations) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = current.clone().into();
    let changes = match changes {
        Value::Null => {
            labels.clear();
            Map::new()
        }
        Value::Object(changes) => changes,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            violations.add("labels", "must be an object whose values are strings, or null to remove a label");
            Map::new()
        }
    };
    for (key, value) in changes {
        match value {
            Value::Null => drop(labels.remove(&key)),
            Value::String(text) => drop(labels.insert(key, text)),
            Value::Bool(_) | Value::Number(_) | Value::Object(_) | Value::Array(_) => {
                violations.add("labels", format!("must have a string, or null to remove it, as value of `{key}`"));
            }
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_wrong_label_is_named() {
        let long = "k".repeat(64);
        let wrong =
            labels(&[("App", "x"), ("", "x"), ("-a", "x"), ("a-", "x"), (&long, "x"), ("ok", "a b"), ("n", &long)]);
        assert_eq!(Labels::parse(wrong).unwrap_err().len(), 7);
        let right = labels(&[("a", ""), ("otherix.dev/env-1", "Prod_1.2/x-y"), (&long[1..], &long[1..])]);
        assert_eq!(Labels::parse(right).unwrap().iter().count(), 3);
        let many = (0..33).map(|n| (format!("k{n}"), String::new())).collect();
        assert_eq!(Labels::parse(many).unwrap_err(), [LabelError::TooMany(33)]);
        assert!(serde_json::from_value::<Labels>(json!({"A": "x"})).is_err());
    }

    #[test]
    fn a_description_is_one_line() {
        assert_eq!(Description::parse("  a b ").unwrap().as_str(), "a b");
        for wrong in ["", " ", "a\nb", &"ä".repeat(513)] {
            assert!(Description::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Description::parse(&"ä".repeat(512)).is_ok());
    }

    #[test]
    fn labels_are_merged() {
        let current = Labels::parse(labels(&[("a", "1"), ("b", "2")])).unwrap();
        let merge = |changes| {
            let mut violations = Violations::default();
            let merged = merge_labels(&current, changes, &mut violations);
            (merged, violations.iter().count())
        };
        assert_eq!(merge(json!({"a": null, "c": "3", "x": null})), (labels(&[("b", "2"), ("c", "3")]), 0));
        assert_eq!(merge(json!(null)), (labels(&[]), 0));
        assert_eq!(merge(json!({"a": 1})).1, 1);
        assert_eq!(merge(json!("a=1")).1, 1);
    }
}
