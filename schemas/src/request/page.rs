//! Requests that resources have in common: lookup by name, and pages of a list.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json_field::{integer, text};
use crate::violations::Violations;

/// Maximum number of resources on one page.
pub const PAGE_MAX: u64 = 200;

/// Number of resources on one page if the request does not set `limit`.
pub const PAGE_DEFAULT: u64 = 20;

/// Selects a resource by its name, without regard to case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ByName {
    pub name: String,
}

/// Selects a page of resources in the order in which they were created or, for nodes, joined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PageRequest {
    /// Maximum number of resources on the page, 1 to 200 (default: 20).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// `meta.next_cursor` of the previous page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl PageRequest {
    /// Reads the request from a JSON object. An unknown field, or a value of the wrong type, is a violation.
    pub fn from_json(object: Map<String, Value>) -> (Self, Violations) {
        let mut violations = Violations::default();
        let mut page = Self::default();
        for (field, value) in object.into_iter().filter(|(_, value)| !value.is_null()) {
            let v = &mut violations;
            match field.as_str() {
                "cursor" => page.cursor = text(&field, value, v),
                "limit" => page.limit = integer(&field, &value, v),
                _ => v.add(&field, "is not a field of this list"),
            }
        }
        (page, violations)
    }
}
