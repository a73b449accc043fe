//! What makes a read model: its name, its tables, and what an event changes in them.

use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::position::Position;
use rusqlite::Connection;

/// Applies events to the tables of one read model.
///
/// Each has a checkpoint of its own. It is rebuilt from the first event, alone, when [`Projection::schema`] or
/// [`Projection::version`] is not what its tables were created with.
pub trait Projection: Sync {
    /// Identifies the read model in the database.
    fn name(&self) -> &'static str;

    /// To be increased when [`Projection::apply`] produces other rows than before from the same events.
    fn version(&self) -> u32 {
        1
    }

    /// The statements that create the tables and indexes. No other read model has a table of the same name.
    fn schema(&self) -> &'static str;

    /// Applies one event, in the transaction that moves the checkpoint. Reads and writes the read model's own tables
    /// only, so that the result depends on the events alone and not on how far other read models are.
    ///
    /// # Errors
    /// When a statement fails or a value has no JSON form. The read model then stops before this event.
    fn apply(&self, db: &Connection, event: &EventEnvelope) -> Result<(), ApplyError>;
}

/// Why an event cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("the read models' database failed")]
    Database(#[from] rusqlite::Error),
    #[error("the event has no JSON form")]
    Json(#[from] serde_json::Error),
}

/// A position as SQLite stores it.
pub(crate) fn integer(position: Position) -> i64 {
    position.get().cast_signed()
}

/// Executes a statement that is prepared once per connection.
pub(crate) fn execute(db: &Connection, sql: &str, parameters: impl rusqlite::Params) -> Result<usize, rusqlite::Error> {
    db.prepare_cached(sql)?.execute(parameters)
}
