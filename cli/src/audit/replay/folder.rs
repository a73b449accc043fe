//! The folder of a replay: `read-models.db`, and `replay.json`, which says of what. It is written under another name,
//! and renamed when it is complete.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use otherix_schemas::error::ErrorCode;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use serde::Serialize;

use crate::audit::folder::{INCOMPLETE, begin, sync};
use crate::exit::Exit;
use crate::failure::Failure;

const MODELS: &str = "read-models.db";
const SUMMARY: &str = "replay.json";

/// What was replayed.
#[derive(Serialize)]
pub(super) struct Summary<'a> {
    /// The name of the log.
    pub(super) log: &'a str,
    /// The last event.
    pub(super) position: Position,
    pub(super) time: Timestamp,
    /// The number of events.
    pub(super) events: u64,
    /// Whether they are those that were signed.
    pub(super) verified: bool,
}

/// A replay that is being written; removed unless it is finished.
pub(super) struct NewReplay {
    folder: PathBuf,
    to: PathBuf,
}

impl NewReplay {
    /// Begins a replay, in place of one that was not completed.
    ///
    /// # Errors
    /// If there is something at the path, or it cannot be written.
    pub(super) fn begin(to: &Path) -> io::Result<Self> {
        Ok(Self { folder: begin(to)?, to: to.to_owned() })
    }

    /// Where the read models are made.
    pub(super) fn models(&self) -> PathBuf {
        self.folder.join(MODELS)
    }

    /// Completes the replay: all is on the disk before it has its name.
    pub(super) fn finish(&self, summary: &Summary<'_>) -> io::Result<()> {
        fs::write(self.folder.join(SUMMARY), serde_json::to_string_pretty(summary)? + "\n")?;
        sync(&self.folder)?;
        otherix_runtime::files::rename(&self.folder, &self.to)
    }
}

impl Drop for NewReplay {
    fn drop(&mut self) {
        let _is_finished = fs::remove_dir_all(&self.folder);
    }
}

/// The read models in the folder of a complete replay.
pub(crate) fn replayed_models(folder: &Path) -> Result<PathBuf, Failure> {
    let is_incomplete = folder.to_string_lossy().trim_end_matches('/').ends_with(INCOMPLETE);
    let is_there = |name: &str| {
        fs::metadata(folder.join(name)).map_or_else(|error| error.kind() != ErrorKind::NotFound, |it| it.is_file())
    };
    if is_incomplete || !is_there(SUMMARY) || !is_there(MODELS) {
        let text = format!("`{}` is not a complete folder of `otherix audit replay`", folder.display());
        return Err(Failure::new(Exit::NotFound, ErrorCode::NotFound, text));
    }
    Ok(folder.join(MODELS))
}
