//! Reads and writes the ledger's file, `ledger.json`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use otherix_runtime::files;
use otherix_schemas::error::Causes;
use otherix_schemas::id::ClusterId;

use super::Ledger;
use super::format::{self, FormatError};

const FILE: &str = "ledger.json";

/// The ledger on disk.
#[derive(Debug)]
pub enum StoredLedger {
    /// The node has joined no cluster, or its ledger was unusable.
    Absent,
    Present(Box<Ledger>),
    /// A newer version wrote it, and the file must be kept.
    Newer(FormatError),
}

/// The cluster of the ledger in `folder`, if there is a readable one.
pub(crate) fn cluster(folder: &Path) -> Option<ClusterId> {
    let text = files::read(&folder.join(FILE)).ok()??;
    format::decode(&text).ok().map(|ledger| ledger.lineage().cluster)
}

/// Reads the ledger in `folder`. A damaged one is logged and renamed to `ledger.json.damaged-<incarnation>`.
pub fn read(folder: &Path, incarnation: u64) -> StoredLedger {
    let path = folder.join(FILE);
    let text = match files::read(&path) {
        Ok(Some(text)) => text,
        Ok(None) => return StoredLedger::Absent,
        Err(error) => {
            tracing::error!(
                path = %path.display(), %error,
                "cannot read the ledger: reading all decisions from the stream"
            );
            return StoredLedger::Absent;
        }
    };
    match format::decode(&text) {
        Ok(ledger) => StoredLedger::Present(Box::new(ledger)),
        Err(error @ (FormatError::Newer(_) | FormatError::Shape(_) | FormatError::Decision(_))) => {
            StoredLedger::Newer(error)
        }
        Err(error @ FormatError::Older(_)) => {
            tracing::info!(%error, "reading all decisions from the stream");
            StoredLedger::Absent
        }
        Err(error @ FormatError::Damaged(_)) => {
            let aside = move_aside(folder, &path, incarnation);
            tracing::error!(
                path = %path.display(),
                error = %Causes(&error),
                moved_to = %aside.map_or_else(|error| format!("nowhere: {error}"), |aside| aside.display().to_string()),
                "the ledger is damaged: reading all decisions from the stream; nothing is removed before that"
            );
            StoredLedger::Absent
        }
    }
}

fn move_aside(folder: &Path, path: &Path, incarnation: u64) -> io::Result<PathBuf> {
    let aside = folder.join(format!("{FILE}.damaged-{incarnation}"));
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Writes the ledger.
///
/// # Errors
/// If it cannot be written. The previous file then remains.
pub fn write(folder: &Path, ledger: &Ledger) -> io::Result<()> {
    files::replace(&folder.join(FILE), &format::encode(ledger)?)
}
