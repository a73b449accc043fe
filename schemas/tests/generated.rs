//! Keeps the checked-in JSON Schemas and the AsyncAPI document up to date.

use std::collections::BTreeSet;

use otherix_schemas::asyncapi::asyncapi;
use otherix_schemas::json_schema;
use otherix_testkit::generated::assert_up_to_date;
use serde_json::{Value, json};

#[test]
fn generated_json_schemas_are_up_to_date() {
    for (name, schema) in json_schema::all() {
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        assert_up_to_date(format!("json/{name}.json"), &text);
    }
}

#[test]
fn generated_schemas_have_a_type() {
    let known: Vec<String> = json_schema::all().into_iter().map(|(name, _)| format!("{name}.json")).collect();
    for file in std::fs::read_dir("json").unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(name == "asyncapi.yaml" || known.contains(&name), "json/{name} is the schema of no type: delete it");
    }
}

#[test]
fn generated_asyncapi_document_is_up_to_date() {
    let text = serde_yaml_ng::to_string(&asyncapi()).unwrap();
    assert_up_to_date("json/asyncapi.yaml", &format!("# Generated from schemas/src/asyncapi.rs.\n{text}"));
}

/// The keywords of JSON Schema 2020-12 that the schemas use. Others, and `format`, are not understood by every
/// validator.
const KEYWORDS: [&str; 23] = [
    "$defs",
    "$id",
    "$ref",
    "$schema",
    "additionalProperties",
    "anyOf",
    "const",
    "default",
    "description",
    "enum",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "oneOf",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
];

/// The keywords of a schema and its subschemas that are not in [`KEYWORDS`].
fn unknown_keywords(schema: &Value, unknown: &mut BTreeSet<String>) {
    let Value::Object(schema) = schema else { return };
    for (keyword, value) in schema {
        match (keyword.as_str(), value) {
            ("properties" | "$defs", Value::Object(named)) => named.values().for_each(|s| unknown_keywords(s, unknown)),
            ("oneOf" | "anyOf", Value::Array(each)) => each.iter().for_each(|s| unknown_keywords(s, unknown)),
            ("items" | "additionalProperties", schema) => unknown_keywords(schema, unknown),
            (known, _) if KEYWORDS.contains(&known) => {}
            (other, _) => {
                unknown.insert(other.to_owned());
            }
        }
    }
}

#[test]
fn schemas_use_standard_keywords() {
    for (name, schema) in json_schema::all() {
        let mut unknown = BTreeSet::new();
        unknown_keywords(&json!(schema), &mut unknown);
        assert_eq!(unknown, BTreeSet::new(), "{name}");
    }
}

#[test]
fn asyncapi_references_resolve() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(reference)) = object.get("$ref") {
                    found.insert(reference.clone());
                }
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(array) => array.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = asyncapi();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    let files: BTreeSet<_> = json_schema::all().into_iter().map(|(name, _)| format!("./{name}.json")).collect();
    for reference in &found {
        let resolves = match reference.strip_prefix('#') {
            Some(pointer) => document.pointer(pointer).is_some(),
            None => files.contains(reference),
        };
        assert!(resolves, "{reference}");
    }
    let unused: Vec<_> = files.difference(&found).collect();
    assert_eq!(unused, Vec::<&String>::new(), "schemas of no message");
}
