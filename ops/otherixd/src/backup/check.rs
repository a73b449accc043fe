//! Checks the files of a backup against each other: before it gets its name, and before it becomes a state folder.

use std::path::Path;

use otherix_commands::store::{EventStore, check_idempotency_records, replay};
use otherix_commands::tlog::{CheckedLog, LeafNumbering, check_log};
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::{Epoch, Position};

use super::BackupError;
use crate::args::StateFolder;
use crate::error::BoxError;
use crate::event_store::{self, JournalStore};
use crate::nats::needed_files;
use crate::{decision_key, log_key};

/// What the files say.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) cluster: ClusterId,
    pub(super) epoch: Epoch,
    /// The journal's last event.
    pub(super) position: Position,
    /// The number of events.
    pub(super) events: u64,
    /// Of the last event, in hexadecimal.
    pub(super) digest: String,
    /// The newest checkpoint of this epoch, and the number of events that it covers.
    pub(super) checkpoint: Option<(String, u64)>,
    /// Checkpoints that the log had found to contradict the journal.
    pub(super) contradictions: usize,
}

/// Checks the database of the journal, every event (digest chain, columns, decisions), its idempotency records, the
/// log's signatures, roots and tiles, and that no key is missing.
///
/// # Errors
/// If something cannot be read, or does not belong to the rest.
pub(super) async fn check(state: &StateFolder) -> Result<Checked, BoxError> {
    let journal = event_store::open_read_only(state).await.map_err(BackupError::Open)?;
    let checked = check_with(&journal, state).await;
    journal.close().await;
    checked
}

async fn check_with(journal: &JournalStore, state: &StateFolder) -> Result<Checked, BoxError> {
    journal.check().await.map_err(BackupError::Store)?;
    let replayed = replay(journal).await.map_err(BackupError::Journal)?;
    let position = replayed.state.position();
    check_idempotency_records(journal, position).await.map_err(BackupError::Journal)?;
    let events = LeafNumbering::new(journal.gaps().await.map_err(BackupError::Store)?).size_at(position);
    let identity = journal.identity();
    check_keys(state)?;
    decision_key::load_or_create(state)?;
    let key = log_key::load_or_create(state, identity)?;
    let log = if state.log().exists() {
        check_log(journal, &state.log(), key.public_key()).await.map_err(BackupError::Log)?
    } else {
        CheckedLog { newest: None, contradictions: 0 }
    };
    Ok(Checked {
        cluster: identity.cluster,
        epoch: identity.epoch,
        position,
        events,
        digest: format!("{:?}", replayed.digest),
        checkpoint: log.newest.map(|(note, head)| (note, head.size())),
        contradictions: log.contradictions,
    })
}

/// Without one of its keys, a restored control plane would make another, which nodes and users do not know.
fn check_keys(state: &StateFolder) -> Result<(), BackupError> {
    let folder = state.identity();
    let own = [state.decision_key(), state.log_key()];
    let files = needed_files(&folder).into_iter().map(|name| folder.join(name)).chain(own);
    let missing = files.into_iter().find(|file| !file.is_file());
    let name = missing.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    name.map_or(Ok(()), |name| Err(BackupError::NoKey(name)))
}
