//! Queries for JSON Schemas.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json_schema;
use crate::permission::Permission;
use crate::request::{Request, RequestKind, RequestType};

/// The requests that read JSON Schemas.
pub const QUERIES: &[Request] = &[Request::of::<GetSchema>(), Request::of::<ListSchemas>()];

/// Selects a schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SchemaByName {
    /// Such as `network.created.v1` or `network.create.request`; or its `$id`, as in the `dataschema` of an event.
    pub name: String,
}

/// No conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoBody {}

/// A JSON Schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SchemaView {
    pub name: String,
    /// A document of JSON Schema 2020-12, without references to others.
    #[schemars(with = "Map<String, Value>")]
    pub schema: Schema,
}

/// The name of a JSON Schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SchemaSummary {
    pub name: String,
    /// What it describes; the first paragraph of the schema's `description`.
    pub description: String,
}

/// Every schema by its name.
static SCHEMAS: LazyLock<BTreeMap<String, Schema>> = LazyLock::new(|| json_schema::all().into_iter().collect());

impl SchemaByName {
    /// The schema of this name, if there is one.
    pub fn find(&self) -> Option<SchemaView> {
        let (name, schema) = SCHEMAS.get_key_value(json_schema::schema_name(&self.name))?;
        Some(SchemaView { name: name.clone(), schema: schema.clone() })
    }
}

impl SchemaSummary {
    /// Every schema, in the order of the names.
    pub fn all() -> Vec<Self> {
        let summary = |(name, schema): (&String, &Schema)| {
            let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
            let description = text.split("\n\n").next().unwrap_or_default().to_owned();
            Self { name: name.clone(), description }
        };
        SCHEMAS.iter().map(summary).collect()
    }
}

/// `schema.get`
#[derive(Clone, Copy, Debug)]
pub struct GetSchema;

impl RequestType for GetSchema {
    const NAME: &'static str = "schema.get";
    const PERMISSION: Permission = Permission::ClusterRead;
    const KIND: RequestKind = RequestKind::Query;
    const SUMMARY: &'static str = "Get a JSON Schema by its name";
    const DESCRIPTION: &'static str = "That of this version of the control plane. Schemas of stored events never \
        change.";
    type Body = SchemaByName;
    type Answer = SchemaView;
}

/// `schema.list`
#[derive(Clone, Copy, Debug)]
pub struct ListSchemas;

impl RequestType for ListSchemas {
    const NAME: &'static str = "schema.list";
    const PERMISSION: Permission = Permission::ClusterRead;
    const KIND: RequestKind = RequestKind::Query;
    const SUMMARY: &'static str = "List the JSON Schemas";
    const DESCRIPTION: &'static str = "All of them, in the order of their names.";
    type Body = NoBody;
    type Answer = Vec<SchemaSummary>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_found_by_its_name_and_by_its_id() {
        for name in ["network.created.v1", "urn:otherix:schema:network.created.v1"] {
            let view = SchemaByName { name: name.to_owned() }.find().unwrap();
            assert_eq!(view.name, "network.created.v1");
            assert_eq!(view.schema.get("$id").unwrap(), "urn:otherix:schema:network.created.v1");
        }
        for name in ["", "network.created", "urn:otherix:schema:", "network.created.v1.json"] {
            assert_eq!(SchemaByName { name: name.to_owned() }.find(), None, "{name}");
        }
    }

    #[test]
    fn all_schemas_are_listed_and_described() {
        let all = SchemaSummary::all();
        assert_eq!(all.len(), json_schema::all().len(), "two schemas have one name");
        for SchemaSummary { name, description } in all {
            assert!(SchemaByName { name: name.clone() }.find().is_some(), "{name}");
            assert!(name.ends_with(".answer") || !description.is_empty(), "{name}");
        }
    }
}
