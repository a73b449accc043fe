//! Reads and writes the ledger's file, `ledger.json`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use otherix_runtime::files;
use otherix_schemas::error::Causes;

use super::Ledger;
use super::format::{self, FormatError};

const FILE: &str = "ledger.json";

/// What is on disk at the start.
#[derive(Debug)]
pub enum Found {
    /// No ledger: this node has joined no cluster, or its ledger was damaged and was renamed.
    Nothing,
    Ledger(Box<Ledger>),
    /// A ledger of a newer version, which must be left as it is.
    Newer(FormatError),
}

/// Reads the ledger in `folder`. A damaged one is logged as an error and renamed to
/// `ledger.json.damaged-<incarnation>`.
pub fn find(folder: &Path, incarnation: u64) -> Found {
    let path = folder.join(FILE);
    let text = match files::read(&path) {
        Ok(Some(text)) => text,
        Ok(None) => return Found::Nothing,
        Err(error) => {
            tracing::error!(
                path = %path.display(), %error,
                "cannot read the ledger: reading all decisions from the stream"
            );
            return Found::Nothing;
        }
    };
    match format::decode(&text) {
        Ok(ledger) => Found::Ledger(Box::new(ledger)),
        Err(error @ (FormatError::Newer(_) | FormatError::Shape(_) | FormatError::Decision(_))) => Found::Newer(error),
        Err(error @ FormatError::Older(_)) => {
            tracing::info!(%error, "reading all decisions from the stream");
            Found::Nothing
        }
        Err(error @ FormatError::Damaged(_)) => {
            let aside = move_aside(folder, &path, incarnation);
            tracing::error!(
                path = %path.display(),
                error = %Causes(&error),
                moved_to = %aside.map_or_else(|error| format!("nowhere: {error}"), |aside| aside.display().to_string()),
                "the ledger is damaged: reading all decisions from the stream; nothing is removed before that"
            );
            Found::Nothing
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
/// If it cannot be written; the previous file is in place then.
pub fn write(folder: &Path, ledger: &Ledger) -> io::Result<()> {
    files::replace(&folder.join(FILE), &format::encode(ledger)?)
}
