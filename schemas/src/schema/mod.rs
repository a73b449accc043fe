//! The JSON Schemas of requests, answers and events, as the control plane serves them.

mod query;

pub use self::query::{GetSchema, ListSchemas, NoBody, QUERIES, SchemaByName, SchemaSummary, SchemaView};
