//! The event store backend of `otherixd`. The only module that names one.

use otherix_commands::store::{OpenError, SqliteStore};
use otherix_schemas::id::ClusterId;

use crate::args::StateFolder;

/// The store with the cluster's journal.
pub(crate) type JournalStore = SqliteStore;

/// Opens the journal of a state folder for writing; creates it for `new_cluster` if it is missing.
pub(crate) async fn open(state: &StateFolder, new_cluster: ClusterId) -> Result<JournalStore, OpenError> {
    SqliteStore::open(&state.journal(), new_cluster).await
}

/// Opens the journal of a state folder for reading, also while another process writes to it.
pub(crate) async fn open_read_only(state: &StateFolder) -> Result<JournalStore, OpenError> {
    SqliteStore::open_read_only(&state.journal()).await
}
