//! The journal as the event source of the projections.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use otherix_commands::store::EventStore;
use otherix_projections::follow::{EventReader, ReadError};
use otherix_schemas::position::Position;

use crate::event_store::JournalStore;

/// Reads the journal's events.
pub(crate) struct JournalEvents(pub(crate) Arc<JournalStore>);

impl EventReader for JournalEvents {
    fn read(&self, after: Position, limit: u32) -> BoxFuture<'_, Result<Vec<Bytes>, ReadError>> {
        Box::pin(async move {
            let entries = self.0.read(after, limit).await?;
            Ok(entries.into_iter().map(|entry| entry.body).collect())
        })
    }
}
