//! VMs and their NICs, with the status that the NIC's node reported.

mod answer;
mod apply;
mod moving;
pub mod query;

use otherix_schemas::cloudevent::EventEnvelope;
use rusqlite::Connection;

pub(crate) use self::answer::QUERIES;
use crate::projection::{ApplyError, Projection};

/// The read model's name.
pub const NAME: &str = "vm";

/// The read model of VMs and NICs.
#[derive(Debug)]
pub struct VmProjection;

impl Projection for VmProjection {
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
