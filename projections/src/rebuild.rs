//! Makes the read models anew beside the old ones, and swaps when they are complete: a rebuild that is interrupted, at whatever
//! point, leaves the old ones as they were. Nothing may have the old ones open.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::id::ClusterId;
use otherix_schemas::position::Position;

use crate::projection::{self, Models, OpenError, Projection, Trouble};

/// Why read models cannot be made anew.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The new ones cannot be opened.
    #[error("cannot make new read models")]
    Open(#[from] OpenError),
    /// An event cannot be taken in.
    #[error("cannot make new read models; the old ones are as they were")]
    Apply(#[from] Trouble),
    /// The files cannot be swapped.
    #[error("cannot {attempt} `{path}`")]
    File {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Read models that are being made.
pub struct Rebuild {
    path: PathBuf,
    beside: PathBuf,
    projection: Projection,
    models: Models,
}

impl Rebuild {
    /// Begins to make those at `path` anew, up to `head`.
    ///
    /// # Errors
    /// When there is no place for them.
    pub async fn begin(path: &Path, cluster: ClusterId, head: Position) -> Result<Self, RebuildError> {
        let beside = with_ending(path, ".new");
        // What an interrupted rebuild left.
        remove(&beside)?;
        remove_log(&beside)?;
        let (projection, models) = projection::open(&beside, cluster, head).await?;
        Ok(Self { path: path.to_owned(), beside, projection, models })
    }

    /// Takes in the next events.
    ///
    /// # Errors
    /// When one cannot be applied.
    pub async fn take_in(&self, events: &[EventEnvelope]) -> Result<(), RebuildError> {
        Ok(self.projection.take_in(events).await?)
    }

    /// Puts the new ones in the place of the old.
    ///
    /// # Errors
    /// When the files cannot be swapped: the old ones are still in their place.
    pub async fn swap(self) -> Result<(), RebuildError> {
        let Self { path, beside, projection, models } = self;
        // The last one to close the database empties and removes its log.
        models.close().await;
        projection.close().await;
        let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
        sync(&beside).map_err(file("sync", &beside))?;
        // The old log belongs to the old file: it must not be taken for the new one's. Without it the old file is whole, and
        // only further back.
        remove_log(&path)?;
        fs::rename(&beside, &path).map_err(file("replace", &path))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        sync(folder).map_err(file("sync", folder))
    }
}

fn file<'p>(attempt: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> RebuildError + use<'p> {
    move |source| RebuildError::File { attempt, path: path.to_owned(), source }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

fn remove_log(path: &Path) -> Result<(), RebuildError> {
    remove(&with_ending(path, "-wal"))?;
    remove(&with_ending(path, "-shm"))
}

fn remove(path: &Path) -> Result<(), RebuildError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
