//! Which life of which cluster may have something removed from this node. The first that a node joins may; any other only once
//! an operator has released it, with `otherix-agent release` on the node.
//!
//! Two files in the state folder: `released.json`, the lineage that is released (its absence says that none was joined yet),
//! and, while deletions are held back, `held.json`: of which lineage, and of which devices. The command reads the latter and
//! writes the former; the agent looks at it every second while it holds something back.

use std::io;
use std::path::{Path, PathBuf};

use otherix_schemas::error::Causes;
use otherix_schemas::id::ClusterId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::files;
use crate::identity;
use crate::ledger::Lineage;

const RELEASED: &str = "released.json";
const HELD: &str = "held.json";

/// What is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// This node has joined no cluster yet.
    Undecided,
    /// Nothing: what this node knew turned out not to be what happened.
    Nothing,
    /// This lineage.
    Lineage(Lineage),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleasedFile {
    released: Option<Lineage>,
}

/// What is held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The lineage that must be released.
    pub lineage: Lineage,
    /// What would be removed.
    pub devices: Vec<HeldDevice>,
}

/// A device that would be removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeldDevice {
    /// Its name.
    pub name: String,
    /// The network or NIC that it was made for.
    #[serde(alias = "network")]
    pub owner: Uuid,
    /// Of which cluster.
    pub cluster: ClusterId,
}

impl Held {
    /// The devices' names in one line, the first of them if they are many.
    pub fn names(&self) -> String {
        const MOST: usize = 50;
        let names: Vec<_> = self.devices.iter().take(MOST).map(|device| device.name.as_str()).collect();
        let more = self.devices.len().saturating_sub(MOST);
        if more == 0 { names.join(", ") } else { format!("{} and {more} more", names.join(", ")) }
    }
}

/// What `otherix-agent release` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// It released this.
    Done(Held),
    /// This had been released before.
    Before(Lineage),
    /// There was nothing to release.
    Nothing,
}

/// Why nothing could be released.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The folder is not that of an agent.
    #[error("`{0}` is not the state folder of an otherix-agent")]
    NoAgent(PathBuf),
    /// Everything is held back, and what that is has not been found out.
    #[error(
        "the agent has not read all decisions yet, so that nobody can say what there is to release: try again later"
    )]
    NotYet,
    /// A file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file that says what is held back cannot be understood.
    #[error("`{path}` does not say what is held back")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The release cannot be written down.
    #[error("cannot write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What is released, by the file. One that cannot be understood releases nothing.
pub fn released(folder: &Path) -> Released {
    let content = match files::read(&folder.join(RELEASED)) {
        Ok(Some(content)) => content,
        Ok(None) => return Released::Undecided,
        Err(error) => {
            tracing::error!(%error, file = RELEASED, "cannot read what is released: holding all deletions back");
            return Released::Nothing;
        }
    };
    match serde_json::from_slice(&content) {
        Ok(ReleasedFile { released: Some(lineage) }) => Released::Lineage(lineage),
        Ok(ReleasedFile { released: None }) => Released::Nothing,
        Err(error) => {
            tracing::error!(%error, file = RELEASED, "cannot read what is released: holding all deletions back");
            Released::Nothing
        }
    }
}

/// Writes down what is released.
///
/// # Errors
/// When it cannot be written.
pub fn write_released(folder: &Path, released: Option<Lineage>) -> io::Result<()> {
    files::replace(folder, RELEASED, &serde_json::to_vec(&ReleasedFile { released })?)
}

/// Writes down what is held back, for [`release`]; nothing if nothing is.
pub fn write_held(folder: &Path, held: Option<&Held>) {
    let written = match held {
        Some(held) => {
            serde_json::to_vec(held).map_err(io::Error::from).and_then(|text| files::replace(folder, HELD, &text))
        }
        None => files::remove(&folder.join(HELD)),
    };
    if let Err(error) = written {
        tracing::error!(error = %Causes(&error), file = HELD, "cannot write down what is held back");
    }
}

/// Releases what the agent with this state folder holds back; it may run or not.
///
/// # Errors
/// When the folder is not an agent's, or cannot be read or written.
pub fn release(folder: &Path) -> Result<Release, ReleaseError> {
    if !identity::exists(folder) {
        return Err(ReleaseError::NoAgent(folder.to_owned()));
    }
    let path = folder.join(HELD);
    let held = match files::read(&path) {
        Ok(held) => held,
        Err(source) => return Err(ReleaseError::Read { path, source }),
    };
    let before = released(folder);
    let Some(held) = held else {
        return match before {
            Released::Lineage(lineage) => Ok(Release::Before(lineage)),
            Released::Undecided => Ok(Release::Nothing),
            Released::Nothing => Err(ReleaseError::NotYet),
        };
    };
    let held: Held = serde_json::from_slice(&held).map_err(|source| ReleaseError::Malformed { path, source })?;
    if before == Released::Lineage(held.lineage) {
        return Ok(Release::Before(held.lineage));
    }
    write_released(folder, Some(held.lineage))
        .map_err(|source| ReleaseError::Write { path: folder.join(RELEASED), source })?;
    Ok(Release::Done(held))
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
    fn a_release_is_for_what_is_held_and_once_is_enough() {
        let folder = tempdir().unwrap();
        let folder = folder.path();
        assert!(matches!(release(folder), Err(ReleaseError::NoAgent(_))));
        drop(Identity::claim(folder).unwrap());
        assert_eq!(released(folder), Released::Undecided);
        assert_eq!(release(folder).unwrap(), Release::Nothing);
        write_released(folder, Some(lineage(1))).unwrap();
        assert_eq!(release(folder).unwrap(), Release::Before(lineage(1)));
        write_released(folder, None).unwrap();
        assert!(matches!(release(folder), Err(ReleaseError::NotYet)));

        let held = Held { lineage: lineage(2), devices: Vec::new() };
        write_held(folder, Some(&held));
        assert_eq!(release(folder).unwrap(), Release::Done(held));
        assert_eq!(released(folder), Released::Lineage(lineage(2)));
        assert_eq!(release(folder).unwrap(), Release::Before(lineage(2)));
        write_held(folder, None);
        assert_eq!(release(folder).unwrap(), Release::Before(lineage(2)));
    }

    #[test]
    fn what_cannot_be_understood_releases_nothing() {
        let folder = tempdir().unwrap();
        write_released(folder.path(), None).unwrap();
        assert_eq!(released(folder.path()), Released::Nothing);
        std::fs::write(folder.path().join(RELEASED), "{").unwrap();
        assert_eq!(released(folder.path()), Released::Nothing);
    }

    #[test]
    fn many_names_are_cut_short() {
        let device = |number: u32| HeldDevice {
            name: format!("br-{number}"),
            owner: Uuid::nil(),
            cluster: ClusterId::new(Uuid::nil()),
        };
        let held = Held { lineage: lineage(1), devices: (0..60).map(device).collect() };
        assert!(held.names().ends_with("br-49 and 10 more"), "{}", held.names());
    }
}
