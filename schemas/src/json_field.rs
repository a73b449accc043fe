//! Reads single fields of a request's JSON body; a value of the wrong type is a violation.

use serde_json::{Map, Value};

use crate::violations::Violations;

pub(crate) fn text(field: &str, value: Value, violations: &mut Violations) -> Option<String> {
    if let Value::String(text) = value {
        return Some(text);
    }
    violations.add(field, "must be a string");
    None
}

pub(crate) fn texts(field: &str, value: Value, violations: &mut Violations) -> Option<Vec<String>> {
    violations.check(field, serde_json::from_value(value).map_err(|_| "must be a list of strings"))
}

pub(crate) fn object(field: &str, value: Value, violations: &mut Violations) -> Option<Map<String, Value>> {
    if let Value::Object(object) = value {
        return Some(object);
    }
    violations.add(field, "must be an object");
    None
}

pub(crate) fn boolean(field: &str, value: &Value, violations: &mut Violations) -> Option<bool> {
    violations.check(field, value.as_bool().ok_or("must be `true` or `false`"))
}

pub(crate) fn integer(field: &str, value: &Value, violations: &mut Violations) -> Option<i64> {
    violations.check(field, value.as_i64().ok_or("must be an integer"))
}
