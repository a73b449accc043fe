//! Who this node is: a folder with `node.json`, readable by its owner only, and a lock that keeps two agents from being
//! the same node. Each start is an incarnation of its own, so that its reports are told from those of the start before.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use otherix_schemas::id::{ClusterId, NodeId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::files;

/// Says who the node is.
const NODE: &str = "node.json";

/// Is there while the present incarnation has joined a cluster.
const JOINED: &str = "joined";

/// The identity; it is this agent's until dropped.
#[derive(Debug)]
pub struct Identity {
    /// The node.
    pub node_id: NodeId,
    /// Counts the starts, from 1.
    pub incarnation: u64,
    folder: PathBuf,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    node_id: NodeId,
    incarnation: u64,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The folder cannot be used.
    #[error("cannot use the state folder `{path}`")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent has the folder.
    #[error("the state folder `{0}` is in use by another otherix-agent")]
    InUse(PathBuf),
    /// The file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is something else. It is left as it is: with another id this would be another node.
    #[error("`{path}` does not say who this node is")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The file cannot be written.
    #[error("cannot write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Identity {
    /// Takes the identity in `folder`, making both at the first start, and begins a new incarnation.
    ///
    /// # Errors
    /// When another agent has it, or the folder cannot be read or written.
    pub fn claim(folder: &Path) -> Result<Self, IdentityError> {
        let lock = lock(folder)?;
        let path = folder.join(NODE);
        let mut node = match files::read(&path) {
            Ok(Some(text)) => serde_json::from_slice(&text)
                .map_err(|source| IdentityError::Malformed { path: path.clone(), source })?,
            Ok(None) => NodeFile { node_id: NodeId::new(Uuid::now_v7()), incarnation: 0 },
            Err(source) => return Err(IdentityError::Read { path, source }),
        };
        node.incarnation += 1;
        let joined = folder.join(JOINED);
        files::remove(&joined).map_err(|source| IdentityError::Write { path: joined, source })?;
        write(folder, &node).map_err(|source| IdentityError::Write { path, source })?;
        let NodeFile { node_id, incarnation } = node;
        Ok(Self { node_id, incarnation, folder: folder.to_owned(), _lock: lock })
    }

    /// Leaves word, in the file `joined`, of the cluster that this incarnation has joined: for whoever waits for it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn note_joined(&self, cluster: ClusterId) -> Result<(), IdentityError> {
        let failed = |source| IdentityError::Write { path: self.folder.join(JOINED), source };
        let text = line(&cluster).map_err(failed)?;
        files::replace(&self.folder, JOINED, &text).map_err(failed)
    }
}

/// Whether the folder is that of an agent which has been started.
pub(crate) fn exists(folder: &Path) -> bool {
    folder.join(NODE).is_file()
}

fn line(content: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(content)?;
    text.push(b'\n');
    Ok(text)
}

/// On a full disk in its own place: with the incarnation of the start before, this one's reports would be taken for old.
fn write(folder: &Path, node: &NodeFile) -> io::Result<()> {
    let text = line(node)?;
    match files::replace(folder, NODE, &text) {
        Err(error) if files::is_full(&error) => files::overwrite(&folder.join(NODE), &text),
        written => written,
    }
}

fn lock(folder: &Path) -> Result<File, IdentityError> {
    let error = |source| IdentityError::Folder { path: folder.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(error)?;
    let path = folder.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(error)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(IdentityError::InUse(folder.to_owned())),
        Err(errno) => Err(error(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_node_stays_and_the_incarnation_grows() {
        let folder = otherix_testkit::tempdir().unwrap();
        let state = folder.path().join("state");
        let first = Identity::claim(&state).unwrap();
        let (node_id, incarnation) = (first.node_id, first.incarnation);
        assert_eq!(incarnation, 1);
        first.note_joined(ClusterId::new(Uuid::nil())).unwrap();
        assert!(state.join("joined").exists());
        let mode = fs::metadata(state.join("node.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(first);
        let second = Identity::claim(&state).unwrap();
        assert_eq!((second.node_id, second.incarnation), (node_id, 2));
        assert!(!state.join("joined").exists(), "this incarnation has not joined yet");
    }

    #[test]
    fn two_agents_cannot_be_one_node() {
        let folder = otherix_testkit::tempdir().unwrap();
        let _first = Identity::claim(folder.path()).unwrap();
        assert!(matches!(Identity::claim(folder.path()), Err(IdentityError::InUse(_))));
    }

    #[test]
    fn a_damaged_file_is_reported_and_left_as_it_is() {
        let folder = otherix_testkit::tempdir().unwrap();
        let path = folder.path().join("node.json");
        fs::write(&path, "{").unwrap();
        assert!(matches!(Identity::claim(folder.path()), Err(IdentityError::Malformed { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "{");
    }
}
