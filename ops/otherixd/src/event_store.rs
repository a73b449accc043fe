//! The event store that this build of `otherixd` uses. The only place that names a backend.

use otherix_commands::store::{OpenError, SqliteStore};
use otherix_schemas::id::ClusterId;

use crate::args::State;

/// The store with the cluster's journal.
pub(crate) type JournalStore = SqliteStore;

/// Opens the journal of a state folder for writing, and creates it for `new_cluster` if there is none.
pub(crate) async fn open(state: &State, new_cluster: ClusterId) -> Result<JournalStore, OpenError> {
    SqliteStore::open(&state.journal(), new_cluster).await
}

/// Opens the journal of a state folder for reading, also while another process writes to it.
pub(crate) async fn open_read_only(state: &State) -> Result<JournalStore, OpenError> {
    SqliteStore::open_read_only(&state.journal()).await
}
