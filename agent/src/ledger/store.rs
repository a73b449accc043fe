//! The ledger's file, `ledger.json`: found at the start, written whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use otherix_schemas::error::Causes;

use super::Ledger;
use super::format::{self, FormatError};
use crate::files;

/// The file's name.
const FILE: &str = "ledger.json";

/// What was found at the start.
#[derive(Debug)]
pub enum Found {
    /// No ledger: this node has joined no cluster, or its ledger was damaged and is moved aside.
    Nothing,
    /// The ledger.
    Ledger(Box<Ledger>),
    /// One that this version must leave as it is.
    Newer(FormatError),
}

/// Finds the ledger in `folder`. A damaged one is said loudly and moved aside, as `ledger.json.damaged-<incarnation>`.
pub fn find(folder: &Path, incarnation: u64) -> Found {
    let path = folder.join(FILE);
    let text = match files::read(&path) {
        Ok(Some(text)) => text,
        Ok(None) => return Found::Nothing,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot read the ledger: beginning from the stream");
            return Found::Nothing;
        }
    };
    match format::decode(&text) {
        Ok(ledger) => Found::Ledger(Box::new(ledger)),
        Err(error @ (FormatError::Newer(_) | FormatError::Shape(_) | FormatError::Decision(_))) => Found::Newer(error),
        Err(error @ FormatError::Older(_)) => {
            tracing::info!(%error, "beginning from the stream");
            Found::Nothing
        }
        Err(error @ FormatError::Damaged(_)) => {
            let aside = move_aside(folder, &path, incarnation);
            tracing::error!(
                path = %path.display(),
                error = %Causes(&error),
                moved_to = %aside.map_or_else(|error| format!("nowhere: {error}"), |aside| aside.display().to_string()),
                "the ledger cannot be used: beginning from the stream; nothing is removed until all decisions are known"
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
/// When it cannot be written; the one before is there then.
pub fn write(folder: &Path, ledger: &Ledger) -> io::Result<()> {
    files::replace(folder, FILE, &format::encode(ledger)?)
}
