//! The lineage whose decisions may remove devices from this node: the first that the node joins, and any other only
//! after an operator has released it with `otherix-agent release` on the node.
//!
//! Two files in the state folder: `released.json` contains the released lineage (absent if the node has joined no
//! cluster). While deletions are held, `held.json` contains the lineage to release, and the devices. The command reads
//! the latter and writes the former, which the agent reads every second while it holds deletions.

use std::io;
use std::path::{Path, PathBuf};

use otherix_runtime::files;
use otherix_schemas::error::Causes;
use otherix_schemas::id::ClusterId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identity;
use crate::ledger::Lineage;

const RELEASED: &str = "released.json";
const HELD: &str = "held.json";

/// The released lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleasedLineage {
    /// The node has joined no cluster yet.
    Undecided,
    /// None, because the decisions diverged from the ledger.
    Nothing,
    Lineage(Lineage),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleasedFile {
    released: Option<Lineage>,
}

/// The held deletions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldDeletions {
    pub lineage: Lineage,
    pub devices: Vec<HeldDevice>,
}

/// A device whose deletion is held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeldDevice {
    pub name: String,
    /// The id of the network or NIC.
    #[serde(alias = "network")]
    pub owner: Uuid,
    pub cluster: ClusterId,
}

impl HeldDeletions {
    /// Returns the names of at most 50 of the devices, in one line.
    pub fn names(&self) -> String {
        const MOST: usize = 50;
        let names: Vec<_> = self.devices.iter().take(MOST).map(|device| device.name.as_str()).collect();
        let more = self.devices.len().saturating_sub(MOST);
        if more == 0 { names.join(", ") } else { format!("{} and {more} more", names.join(", ")) }
    }
}

/// The result of `otherix-agent release`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleaseOutcome {
    Released(HeldDeletions),
    AlreadyReleased(Lineage),
    NothingHeld,
}

/// The errors of `otherix-agent release`.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    #[error("`{0}` is not the state folder of an otherix-agent")]
    NoAgent(PathBuf),
    /// All deletions are held, and the agent has not determined yet which there are.
    #[error("the agent has not read all decisions yet, so what is held back is not known: try again later")]
    NotYet,
    #[error("cannot read `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot parse `{path}`")]
    Malformed {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot write `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Reads the released lineage. A file that cannot be parsed releases nothing.
pub fn released(folder: &Path) -> ReleasedLineage {
    let content = match files::read(&folder.join(RELEASED)) {
        Ok(Some(content)) => content,
        Ok(None) => return ReleasedLineage::Undecided,
        Err(error) => {
            tracing::error!(%error, file = RELEASED, "cannot read what is released: holding all deletions back");
            return ReleasedLineage::Nothing;
        }
    };
    match serde_json::from_slice(&content) {
        Ok(ReleasedFile { released: Some(lineage) }) => ReleasedLineage::Lineage(lineage),
        Ok(ReleasedFile { released: None }) => ReleasedLineage::Nothing,
        Err(error) => {
            tracing::error!(%error, file = RELEASED, "cannot read what is released: holding all deletions back");
            ReleasedLineage::Nothing
        }
    }
}

/// Writes the released lineage.
///
/// # Errors
/// If the file cannot be written.
pub fn write_released(folder: &Path, released: Option<Lineage>) -> io::Result<()> {
    files::replace(&folder.join(RELEASED), &serde_json::to_vec(&ReleasedFile { released })?)
}

/// Writes the held deletions for [`release`]; removes the file if there are none.
pub fn write_held(folder: &Path, held: Option<&HeldDeletions>) {
    let written = match held {
        Some(held) => {
            serde_json::to_vec(held).map_err(io::Error::from).and_then(|text| files::replace(&folder.join(HELD), &text))
        }
        None => files::remove(&folder.join(HELD)),
    };
    if let Err(error) = written {
        tracing::error!(error = %Causes(&error), file = HELD, "cannot write what is held back");
    }
}

/// Reads the held deletions.
pub(crate) fn held(folder: &Path) -> Result<Option<HeldDeletions>, ReleaseError> {
    let path = folder.join(HELD);
    match files::read(&path) {
        Ok(Some(text)) => {
            serde_json::from_slice(&text).map(Some).map_err(|source| ReleaseError::Malformed { path, source })
        }
        Ok(None) => Ok(None),
        Err(source) => Err(ReleaseError::Read { path, source }),
    }
}

/// Releases the deletions that the agent with this state folder holds, whether or not it is running.
///
/// # Errors
/// [`ReleaseError`] if the folder is not that of an agent, the agent has not determined the deletions yet, or a file
/// cannot be read or written.
pub fn release(folder: &Path) -> Result<ReleaseOutcome, ReleaseError> {
    if !identity::exists(folder) {
        return Err(ReleaseError::NoAgent(folder.to_owned()));
    }
    let before = released(folder);
    let Some(held) = held(folder)? else {
        return match before {
            ReleasedLineage::Lineage(lineage) => Ok(ReleaseOutcome::AlreadyReleased(lineage)),
            ReleasedLineage::Undecided => Ok(ReleaseOutcome::NothingHeld),
            ReleasedLineage::Nothing => Err(ReleaseError::NotYet),
        };
    };
    if before == ReleasedLineage::Lineage(held.lineage) {
        return Ok(ReleaseOutcome::AlreadyReleased(held.lineage));
    }
    write_released(folder, Some(held.lineage))
        .map_err(|source| ReleaseError::Write { path: folder.join(RELEASED), source })?;
    Ok(ReleaseOutcome::Released(held))
}

#[cfg(test)]
mod tests {
    use otherix_schemas::position::Epoch;
    use otherix_testkit::tempdir;

    use super::*;
    use crate::identity::Identity;

    fn lineage(epoch: u32) -> Lineage {
        Lineage { cluster: ClusterId::new(Uuid::nil()), epoch: Epoch::new(epoch) }
    }

    #[test]
    fn releases_held_deletions_once() {
        let folder = tempdir().unwrap();
        let folder = folder.path();
        assert!(matches!(release(folder), Err(ReleaseError::NoAgent(_))));
        drop(Identity::claim(folder, &otherix_runtime::SystemRuntime).unwrap());
        assert_eq!(released(folder), ReleasedLineage::Undecided);
        assert_eq!(release(folder).unwrap(), ReleaseOutcome::NothingHeld);
        write_released(folder, Some(lineage(1))).unwrap();
        assert_eq!(release(folder).unwrap(), ReleaseOutcome::AlreadyReleased(lineage(1)));
        write_released(folder, None).unwrap();
        assert!(matches!(release(folder), Err(ReleaseError::NotYet)));

        let held = HeldDeletions { lineage: lineage(2), devices: Vec::new() };
        write_held(folder, Some(&held));
        assert_eq!(release(folder).unwrap(), ReleaseOutcome::Released(held));
        assert_eq!(released(folder), ReleasedLineage::Lineage(lineage(2)));
        assert_eq!(release(folder).unwrap(), ReleaseOutcome::AlreadyReleased(lineage(2)));
        write_held(folder, None);
        assert_eq!(release(folder).unwrap(), ReleaseOutcome::AlreadyReleased(lineage(2)));
    }

    #[test]
    fn malformed_files_release_nothing() {
        let folder = tempdir().unwrap();
        write_released(folder.path(), None).unwrap();
        assert_eq!(released(folder.path()), ReleasedLineage::Nothing);
        std::fs::write(folder.path().join(RELEASED), "{").unwrap();
        assert_eq!(released(folder.path()), ReleasedLineage::Nothing);
    }

    #[test]
    fn truncates_long_lists_of_names() {
        let device = |number: u32| HeldDevice {
            name: format!("br-{number}"),
            owner: Uuid::nil(),
            cluster: ClusterId::new(Uuid::nil()),
        };
        let held = HeldDeletions { lineage: lineage(1), devices: (0..60).map(device).collect() };
        assert!(held.names().ends_with("br-49 and 10 more"), "{}", held.names());
    }
}
