//! The fields of a view that tell two moments apart.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// Fields that are left out: identity, which does not change; what changes with every event about the resource; what
/// other resources' fields show.
const LEFT_OUT: [&str; 21] = [
    "id",
    "name",
    "generation",
    "observed_generation",
    "created_at",
    "updated_at",
    "reconciled_at",
    "reachable_since",
    "joined_at",
    "network_counts",
    "networks",
    "vms",
    "nics",
    "ready",
    "reported",
    "expected",
    "node_reachable",
    "awaited",
    "peers",
    "node_id",
    "network_id",
];

/// The field of an element of an array by which people know it.
const KEYS: [&str; 2] = ["node_name", "kind"];

/// A field with its values at both moments; null if it was absent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct FieldChange {
    field: String,
    from: Value,
    to: Value,
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, from, to } = self;
        match (from, to) {
            (Value::Null, to) => write!(f, "{field}: {}", text(to)),
            (from, to) => write!(f, "{field}: {} -> {}", text(from), text(to)),
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// The fields that differ between two views, by name. Null has none.
pub(super) fn changes(from: &Value, to: &Value) -> Vec<FieldChange> {
    let [mut before, mut after] = [BTreeMap::new(), BTreeMap::new()];
    collect("", from, &mut before);
    collect("", to, &mut after);
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let change = |name: &String| FieldChange {
        field: name.clone(),
        from: before.get(name).cloned().unwrap_or_default(),
        to: after.get(name).cloned().unwrap_or_default(),
    };
    names.into_iter().map(change).filter(|change| change.from != change.to).collect()
}

/// Collects the fields of a view, however deep, with the path to each.
fn collect(path: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(name, _)| !LEFT_OUT.contains(&name.as_str())) {
                // The status of a node about a network is not that of the node.
                if path.contains("nodes.") && matches!(name.as_str(), "node_name" | "reachable") {
                    continue;
                }
                collect(&joined(path, name), value, into);
            }
        }
        Value::Array(values) => {
            let key = |value: &Value| KEYS.iter().find_map(|key| value.get(key)?.as_str().map(str::to_owned));
            for value in values {
                match key(value) {
                    // Nodes that have not reported are those without a status.
                    Some(_) if path.ends_with("unreported") => {}
                    Some(key) => collect(&joined(path, &key), value, into),
                    None => {
                        let all = into.entry(path.to_owned()).or_insert_with(|| Value::Array(Vec::new()));
                        if let Value::Array(all) = all {
                            all.push(value.clone());
                        }
                    }
                }
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => drop(into.insert(path.to_owned(), value.clone())),
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_shown_by_name() {
        let network = |status: &str, error: Option<&str>, warnings: &[&str]| {
            json!({
                "id": "1", "name": "net-a", "mtu": 1500, "vlan": null, "generation": 7,
                "egress": { "type": "nat" },
                "status": {
                    "nodes": [
                        { "node_id": "9", "node_name": "node-1", "status": status, "error": error, "awaited": true,
                          "reachable": error.is_none(), "reconciled_at": "x" },
                        { "node_id": "8", "node_name": "node-2", "status": "ready", "error": null },
                    ],
                    "unreported": [{ "node_name": "node-3", "reachable": true }],
                    "ready": 1, "warnings": warnings,
                },
            })
        };
        let shown =
            |from: &Value, to: &Value| -> Vec<String> { changes(from, to).iter().map(ToString::to_string).collect() };
        let ready = network("ready", None, &[]);
        assert!(changes(&ready, &ready).is_empty());
        assert_eq!(
            shown(&ready, &network("failed", Some("no tap"), &["a", "b"])),
            [
                "status.nodes.node-1.error: no tap",
                "status.nodes.node-1.status: ready -> failed",
                "status.warnings: [\"a\",\"b\"]",
            ]
        );
        assert_eq!(shown(&network("failed", Some("no tap"), &[]), &ready)[0], "status.nodes.node-1.error: no tap -> -");
        let added = shown(&Value::Null, &ready);
        let expected =
            ["egress.type: nat", "mtu: 1500", "status.nodes.node-1.status: ready", "status.nodes.node-2.status: ready"];
        assert_eq!(added, expected);
    }
}
