//! Answers queries for JSON Schemas, from the declarations of this version.

use bytes::Bytes;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, Meta, RequestType};
use otherix_schemas::schema::{GetSchema, ListSchemas, NoBody, SchemaByName, SchemaSummary};
use otherix_transport::service::Call;

use crate::service::{encode, not_served};

/// Answers a query. `head` is the last durable position.
pub(crate) fn answer(head: Position, call: &Call) -> Result<Bytes, ErrorBody> {
    let meta = Meta::at(head);
    match call.request.name {
        GetSchema::NAME => {
            let wanted: SchemaByName = call.json()?;
            let missing = || ErrorBody::new(ErrorCode::NotFound, format!("there is no schema `{}`", wanted.name));
            encode(&Answer { data: wanted.find().ok_or_else(missing)?, meta })
        }
        ListSchemas::NAME => {
            let NoBody {} = call.json()?;
            encode(&Answer { data: SchemaSummary::all(), meta })
        }
        _ => Err(not_served(call)),
    }
}
