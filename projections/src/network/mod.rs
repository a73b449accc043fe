//! Networks, and what the nodes reported on them.

mod answer;
mod apply;
pub mod query;

use otherix_schemas::cloudevent::EventEnvelope;
use rusqlite::Connection;

pub(crate) use self::answer::QUERIES;
use crate::projection::{ApplyError, Projection};

/// The read model's name.
pub const NAME: &str = "network";

/// The read model of networks.
#[derive(Debug)]
pub struct NetworkProjection;

impl Projection for NetworkProjection {
    fn name(&self) -> &'static str {
        NAME
    }

    /// 2: the data of the creating event is of version 2. 3: networks can be changed.
    fn version(&self) -> u32 {
        3
    }

    fn schema(&self) -> &'static str {
        include_str!("schema.sql")
    }

    fn apply(&self, db: &Connection, event: &EventEnvelope) -> Result<(), ApplyError> {
        apply::apply(db, event)
    }
}
