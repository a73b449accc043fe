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
            let events = self.0.read_bodies(after, limit).await?;
            Ok(events.into_iter().map(|(_, body)| body).collect())
        })
    }
}
