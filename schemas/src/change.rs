//! What a request that changes or applies a definition did.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The keys of a conflict's details when the resource is of another generation than the request expects: the generation
/// that it has, the resource as it is, and as it would be.
pub const GENERATION: &str = "generation";
pub const CURRENT: &str = "current";
pub const REQUESTED: &str = "requested";

/// Whether a definition was created, changed, or is as requested already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChangeResult {
    Created,
    Changed,
    /// Nothing was recorded.
    Unchanged,
}

/// A field that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldChange {
    /// As in the view; `labels.<key>` for a label.
    pub field: String,
    /// Null if it had no value.
    pub from: Value,
    /// Null if it has none.
    pub to: Value,
}

/// The answer to a request that changes or applies a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Applied<V> {
    pub result: ChangeResult,
    /// Empty unless it was changed.
    pub changes: Vec<FieldChange>,
    /// The resource as it is now.
    pub resource: V,
}

/// Returns the fields that differ between two definitions in JSON. Those of `labels` are compared one by one.
pub fn field_changes(before: &Value, after: &Value) -> Vec<FieldChange> {
    let (before, after) = (flat(before), flat(after));
    let fields: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let changes = fields.into_iter().map(|field| {
        let value = |of: &BTreeMap<String, Value>| of.get(field).cloned().unwrap_or(Value::Null);
        FieldChange { field: field.clone(), from: value(&before), to: value(&after) }
    });
    changes.filter(|change| change.from != change.to).collect()
}

fn flat(definition: &Value) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::new();
    for (name, value) in definition.as_object().into_iter().flatten() {
        match (name.as_str(), value) {
            ("labels", Value::Object(labels)) => {
                fields.extend(labels.iter().map(|(key, value)| (format!("labels.{key}"), value.clone())));
            }
            _ => drop(fields.insert(name.clone(), value.clone())),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_compared_one_by_one() {
        let before = json!({"mtu": 1500, "vlan": null, "labels": {"a": "1", "b": "2"}});
        let after = json!({"mtu": 1400, "vlan": null, "labels": {"a": "1", "c": "3"}});
        let changes = field_changes(&before, &after);
        let changes: Vec<_> = changes.iter().map(|c| (c.field.as_str(), c.from.clone(), c.to.clone())).collect();
        let expected = [
            ("labels.b", json!("2"), json!(null)),
            ("labels.c", json!(null), json!("3")),
            ("mtu", json!(1500), json!(1400)),
        ];
        assert_eq!(changes, expected);
        assert_eq!(field_changes(&after, &after), []);
    }
}
