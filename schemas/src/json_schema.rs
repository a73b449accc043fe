//! The JSON Schemas of everything that crosses a boundary. They are checked in under `schemas/json/`, and a test keeps
//! them up to date.
//!
//! The schemas use the vocabulary of JSON Schema 2020-12 alone: limits and patterns take the place of `format`, whose
//! values are not standardised for numbers and not asserted for strings.

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value};

use crate::cloudevent::CloudEventDocument;
use crate::error::ErrorBody;
use crate::event::Event;
use crate::node::{Heartbeat, HeartbeatAnswer};
use crate::request::Request;

/// An RFC 9562 UUID with hyphens.
const UUID: &str = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";

/// An IPv4 address in dotted-decimal notation.
const IPV4: &str = r"^((25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(\.(?!$)|$)){4}$";

/// Every schema with its name; the file is `<name>.json`.
pub fn all() -> Vec<(String, Schema)> {
    let named = |name: &str, schema: fn(&str) -> Schema| (name.to_owned(), schema(name));
    let mut schemas = vec![
        named("event", schema::<CloudEventDocument<Map<String, Value>>>),
        named("error", schema::<ErrorBody>),
        named("heartbeat.request", schema::<Heartbeat>),
        named("heartbeat.answer", schema::<HeartbeatAnswer>),
    ];
    let events = Event::declarations();
    schemas.extend(events.map(|declaration| (declaration.schema_name().to_owned(), declaration.schema())));
    for request in Request::all() {
        schemas.push((request.body_schema_name(), request.body_schema()));
        schemas.push((request.answer_schema_name(), request.answer_schema()));
    }
    schemas
}

/// The `$id` of the JSON Schema of this name.
pub fn schema_id(name: &str) -> String {
    format!("urn:otherix:schema:{name}")
}

/// The name in the `$id` of a JSON Schema; a text that is none is a name itself.
pub(crate) fn schema_name(id: &str) -> &str {
    id.strip_prefix("urn:otherix:schema:").unwrap_or(id)
}

/// The JSON Schema of `T` under this name.
pub(crate) fn schema<T: JsonSchema>(name: &str) -> Schema {
    let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(|schema: &mut Schema| {
        unwrap_description(schema);
        replace_format(schema);
    }));
    let mut schema = SchemaGenerator::new(settings).into_root_schema_for::<T>();
    schema.insert("$id".to_owned(), Value::from(schema_id(name)));
    schema
}

/// Joins the lines of a description's paragraphs, which are wrapped in the doc comment that it comes from.
fn unwrap_description(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
    }
}

/// Replaces `format` by limits or a pattern.
fn replace_format(schema: &mut Schema) {
    let Some(Value::String(format)) = schema.remove("format") else { return };
    let limits = match format.as_str() {
        "uint16" => Some((Value::from(0), Value::from(u16::MAX))),
        "uint32" => Some((Value::from(0), Value::from(u32::MAX))),
        "uint64" => Some((Value::from(0), Value::from(u64::MAX))),
        "int64" => Some((Value::from(i64::MIN), Value::from(i64::MAX))),
        _ => None,
    };
    let pattern = match format.as_str() {
        "uuid" => Some(UUID),
        "ipv4" => Some(IPV4),
        _ => None,
    };
    if let Some((minimum, maximum)) = limits {
        schema.ensure_object().entry("minimum").or_insert(minimum);
        schema.ensure_object().entry("maximum").or_insert(maximum);
    } else if let Some(pattern) = pattern {
        schema.insert("pattern".to_owned(), Value::from(pattern));
    } else {
        // Unknown: kept, so that the test of the checked-in schemas finds it.
        schema.insert("format".to_owned(), Value::from(format));
    }
}
