//! Rebuilds all read models in a new file, and swaps it with the old one when it is complete: an interrupted rebuild
//! leaves the old file as it was. No other process may have the old file open.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use otherix_runtime::Runtime;
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::Position;

use crate::READ_MODELS;
use crate::follow::{EventReader, FollowError, SharedStore, last};
use crate::store::{NEW, OpenError, ProjectionError, Store, with_suffix};

/// Events in one transaction.
const BATCH: u32 = 10_000;

/// Why the read models cannot be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error("cannot create new read models")]
    Open(#[from] OpenError),
    #[error("cannot rebuild the read models; the old ones are unchanged")]
    Follow(#[from] FollowError),
    #[error("cannot rebuild the read models; the old ones are unchanged")]
    Projection(#[from] ProjectionError),
    #[error("cannot {attempt} `{}`", path.display())]
    File {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Rebuilds the read models at `path` from all stored events, of which `head` is the last. Returns the position they
/// are at.
///
/// # Errors
/// When the events cannot be read or applied, or the files cannot be written or swapped. The old file is then
/// still in place.
pub async fn rebuild(
    path: &Path,
    cluster: ClusterId,
    head: Position,
    runtime: Arc<dyn Runtime>,
    events: &dyn EventReader,
) -> Result<Position, RebuildError> {
    let new = with_suffix(path, NEW);
    // Left by an interrupted rebuild.
    remove(&new)?;
    remove_log(&new)?;
    let store = SharedStore::new(Store::open(&new, cluster, head, READ_MODELS)?, runtime);
    let mut after = Position::ZERO;
    let mut batch = store.read(events, after, BATCH).await?;
    while !batch.is_empty() {
        let last = last(&batch, after);
        // The next events are read and decoded while these are applied.
        let (applied, next) = tokio::join!(store.apply(after, batch), store.read(events, last, BATCH));
        if let Some(error) = applied?.into_iter().find_map(|applied| applied.error) {
            return Err(error.into());
        }
        (after, batch) = (last, next?);
    }
    // The last connection that is closed empties the write-ahead log and removes it.
    drop(store);
    swap(&new, path)?;
    Ok(after)
}

pub(crate) fn swap(new: &Path, path: &Path) -> Result<(), RebuildError> {
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    sync(new).map_err(file("sync", new))?;
    // SQLite must not apply the old file's log to the new one. Without it the old file is intact, but at an earlier
    // position.
    remove_log(path)?;
    fs::rename(new, path).map_err(file("replace", path))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    sync(folder).map_err(file("sync", folder))
}

fn file<'p>(attempt: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> RebuildError + use<'p> {
    move |source| RebuildError::File { attempt, path: path.to_owned(), source }
}

fn remove_log(path: &Path) -> Result<(), RebuildError> {
    remove(&with_suffix(path, "-wal"))?;
    remove(&with_suffix(path, "-shm"))
}

fn remove(path: &Path) -> Result<(), RebuildError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
