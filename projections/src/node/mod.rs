//! Nodes: presence, membership in the mesh, and what their mesh devices report on their peers.

mod answer;
mod apply;
pub mod query;
pub mod telemetry;

use otherix_schemas::cloudevent::EventEnvelope;
use rusqlite::Connection;

pub(crate) use self::answer::QUERIES;
use crate::projection::{ApplyError, Projection};

/// The read model's name.
pub const NAME: &str = "node";

/// The read model of nodes.
#[derive(Debug)]
pub struct NodeProjection;

impl Projection for NodeProjection {
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
