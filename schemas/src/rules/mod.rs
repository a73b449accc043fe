//! The rules of requests: all that are broken are reported, each with its field.

mod network;
mod vm;

use serde_json::{Map, Value};

pub use self::network::{check, draft_from_json};
pub use self::vm::{check_vm, vm_from_json};
use crate::request::{ListNetworks, ListPage};
use crate::violations::Violations;

/// Reads the question for a page from a JSON object; a field that does not exist, or has a value of the wrong type, is a
/// violation.
pub fn list_from_json(object: Map<String, Value>) -> (ListNetworks, Violations) {
    let mut violations = Violations::default();
    let mut list = ListNetworks::default();
    for (field, value) in object.into_iter().filter(|(_, value)| !value.is_null()) {
        let v = &mut violations;
        match field.as_str() {
            "type" => list.kind = text(&field, value, v),
            "cursor" => list.cursor = text(&field, value, v),
            "limit" => list.limit = v.check(&field, value.as_i64().ok_or("must be a whole number")),
            _ => v.add(&field, "is not a field of a list"),
        }
    }
    (list, violations)
}

/// Reads the question for a page of things that are of one kind, as [`list_from_json`].
pub fn things_from_json(object: Map<String, Value>) -> (ListPage, Violations) {
    let kind = object.contains_key("type");
    let (ListNetworks { kind: _, limit, cursor }, mut violations) = list_from_json(object);
    if kind {
        violations.add("type", "is not a field of this list");
    }
    (ListPage { limit, cursor }, violations)
}

/// The checked thing, if nothing was wrong with how it was written either. A field whose value is of the wrong type is not
/// also missing.
///
/// # Errors
/// Every rule that is broken.
pub fn together<T>(written: Violations, checked: Result<T, Violations>) -> Result<T, Violations> {
    match checked {
        Ok(resource) if written.is_empty() => Ok(resource),
        Ok(_) => Err(written),
        Err(broken) => {
            let mut all = written.clone();
            let written: Vec<&str> = written.iter().map(|(field, _)| field).collect();
            for (field, rule) in broken.iter().filter(|(field, _)| !written.contains(field)) {
                all.add(field, rule);
            }
            Err(all)
        }
    }
}

fn text(field: &str, value: Value, violations: &mut Violations) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            violations.add(field, "must be a text");
            None
        }
    }
}
