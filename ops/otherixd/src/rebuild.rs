//! `otherixd rebuild`: rebuilds the read models from the journal while the control plane is stopped. Holds the
//! journal's lock.

use std::io::Write;
use std::sync::Arc;

use otherix_commands::store::{EventStore, OpenError, StoreError};
use otherix_projections::rebuild::{self, RebuildError};
use otherix_runtime::SystemRuntime;
use otherix_schemas::id::ClusterId;
use uuid::Uuid;

use crate::args::StateFolder;
use crate::event_store;
use crate::journal_events::JournalEvents;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RebuildCommandError {
    #[error("there is no journal `{0}`")]
    Missing(String),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot read the journal")]
    Journal(#[from] StoreError),
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    #[error("cannot write to standard output")]
    Output(#[from] std::io::Error),
}

/// Rebuilds the read models beside the old ones, replaces the old ones, and prints the position.
pub(crate) async fn rebuild(state: &StateFolder) -> Result<(), RebuildCommandError> {
    let path = state.journal();
    if !path.exists() {
        return Err(RebuildCommandError::Missing(path.display().to_string()));
    }
    let journal = Arc::new(event_store::open(state, ClusterId::new(Uuid::nil())).await?);
    let head = journal.head().await?;
    let events = JournalEvents(Arc::clone(&journal));
    let (cluster, runtime) = (journal.identity().cluster, SystemRuntime::shared());
    let position = rebuild::rebuild(&state.read_models(), cluster, head, runtime, &events).await?;
    journal.close().await;
    writeln!(std::io::stdout(), "read models rebuilt, up to position {position}")?;
    Ok(())
}
