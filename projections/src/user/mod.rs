//! Users, with the status of their credentials.

mod answer;
mod apply;
pub mod query;

use otherix_schemas::cloudevent::EventEnvelope;
use rusqlite::Connection;

pub(crate) use self::answer::QUERIES;
use crate::projection::{ApplyError, Projection};

/// The read model's name.
pub const NAME: &str = "user";

/// The read model of users.
#[derive(Debug)]
pub struct UserProjection;

impl Projection for UserProjection {
    fn name(&self) -> &'static str {
        NAME
    }

    fn schema(&self) -> &'static str {
        include_str!("schema.sql")
    }

    fn apply(&self, db: &Connection, event: &EventEnvelope) -> Result<(), ApplyError> {
        apply::apply(db, event)
    }
}
