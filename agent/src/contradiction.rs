//! A contradiction: the control plane has signed another history than the one that this node has followed, in the same
//! epoch. The node keeps what runs and changes nothing, until the control plane continues the history that the node
//! knows, or an operator accepts the other one with `otherix-agent release`.
//!
//! While there is a contradiction, `contradiction.json` in the state folder contains it. The command removes the file,
//! which the agent looks for every second.

use std::io;
use std::path::Path;

use otherix_runtime::{LogLimit, files};
use otherix_schemas::error::Causes;
use otherix_schemas::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

const FILE: &str = "contradiction.json";

/// What contradicts the history of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contradiction {
    /// When it was noticed; `None` if the clock was not set.
    pub at: Option<Timestamp>,
    pub text: String,
}

/// Writes the contradiction, or removes the file if there is none. Returns whether that succeeded.
pub fn write(folder: &Path, contradiction: Option<&Contradiction>) -> bool {
    let path = folder.join(FILE);
    let written = match contradiction {
        Some(it) => serde_json::to_vec(it).map_err(io::Error::from).and_then(|text| files::replace(&path, &text)),
        None => files::remove(&path),
    };
    if let Err(error) = &written {
        static FAILED: LogLimit = LogLimit::new();
        if let Some(hits) = FAILED.hit() {
            tracing::error!(error = %Causes(error), hits, file = FILE, "cannot write or remove the contradiction");
        }
    }
    written.is_ok()
}

/// Reads the contradiction, if there is one.
///
/// # Errors
/// If the file cannot be read or parsed.
pub fn read(folder: &Path) -> io::Result<Option<Contradiction>> {
    let text = files::read(&folder.join(FILE))?;
    Ok(text.map(|text| serde_json::from_slice(&text)).transpose()?)
}

/// Whether an operator has accepted the other history since the file was written.
pub fn is_accepted(folder: &Path) -> bool {
    matches!(files::read(&folder.join(FILE)), Ok(None))
}

/// Accepts the other history. Returns the contradiction; `None` if there was none.
///
/// # Errors
/// If the file cannot be read or removed.
pub fn accept(folder: &Path) -> io::Result<Option<Contradiction>> {
    let contradiction = read(folder)?;
    if contradiction.is_some() {
        files::remove(&folder.join(FILE))?;
    }
    Ok(contradiction)
}
