//! The identity of this node: `node.json` in the state folder, readable by its owner only, and a lock that prevents two
//! agents from running as one node. Each start is a new incarnation, which distinguishes its reports from earlier ones.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use otherix_runtime::{Runtime, files};
use otherix_schemas::id::{ClusterId, NodeId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

const NODE: &str = "node.json";

/// Exists while the present incarnation has joined a cluster.
const JOINED: &str = "joined";

/// The identity of a node. No other agent can claim it until it is dropped.
#[derive(Debug)]
pub struct Identity {
    pub node_id: NodeId,
    /// The number of starts.
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

/// The errors of claiming an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot use the state folder `{path}`")]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the state folder `{0}` is in use by another otherix-agent")]
    InUse(PathBuf),
    #[error("cannot read `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file is kept: with another id this would be another node.
    #[error("`{path}` does not contain the identity of a node")]
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

impl Identity {
    /// Claims the identity in `folder`, and starts a new incarnation. Creates folder and identity if they do not exist.
    ///
    /// # Errors
    /// [`IdentityError`] if another agent has claimed it, or if a file cannot be read or written.
    pub fn claim(folder: &Path, runtime: &dyn Runtime) -> Result<Self, IdentityError> {
        let lock = lock(folder)?;
        let path = folder.join(NODE);
        let mut node = match files::read(&path) {
            Ok(Some(text)) => serde_json::from_slice(&text)
                .map_err(|source| IdentityError::Malformed { path: path.clone(), source })?,
            Ok(None) => NodeFile { node_id: NodeId::new(runtime.uuid_v7()), incarnation: 0 },
            Err(source) => return Err(IdentityError::Read { path, source }),
        };
        node.incarnation += 1;
        let joined = folder.join(JOINED);
        files::remove(&joined).map_err(|source| IdentityError::Write { path: joined, source })?;
        write(folder, &node).map_err(|source| IdentityError::Write { path, source })?;
        let NodeFile { node_id, incarnation } = node;
        Ok(Self { node_id, incarnation, folder: folder.to_owned(), _lock: lock })
    }

    /// Writes the file `joined`, for scripts that wait until the node has joined.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn note_joined(&self, cluster: ClusterId) -> Result<(), IdentityError> {
        let failed = |source| IdentityError::Write { path: self.folder.join(JOINED), source };
        let text = line(&cluster).map_err(failed)?;
        files::replace(&self.folder.join(JOINED), &text).map_err(failed)
    }
}

/// Whether this is the state folder of an agent.
pub(crate) fn exists(folder: &Path) -> bool {
    folder.join(NODE).is_file()
}

fn line(content: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(content)?;
    text.push(b'\n');
    Ok(text)
}

/// On a full disk the file is overwritten in place: with the previous incarnation, the reports of this one would be
/// ignored.
fn write(folder: &Path, node: &NodeFile) -> io::Result<()> {
    let text = line(node)?;
    match files::replace(&folder.join(NODE), &text) {
        Err(error) if files::is_disk_full(&error) => files::overwrite(&folder.join(NODE), &text),
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

    use otherix_runtime::SystemRuntime;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn keeps_the_node_id_and_increments_the_incarnation() {
        let folder = otherix_testkit::tempdir().unwrap();
        let state = folder.path().join("state");
        let first = Identity::claim(&state, &SystemRuntime).unwrap();
        let (node_id, incarnation) = (first.node_id, first.incarnation);
        assert_eq!(incarnation, 1);
        first.note_joined(ClusterId::new(Uuid::nil())).unwrap();
        assert!(state.join("joined").exists());
        let mode = fs::metadata(state.join("node.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(first);
        let second = Identity::claim(&state, &SystemRuntime).unwrap();
        assert_eq!((second.node_id, second.incarnation), (node_id, 2));
        assert!(!state.join("joined").exists(), "this incarnation has not joined yet");
    }

    #[test]
    fn refuses_a_second_agent() {
        let folder = otherix_testkit::tempdir().unwrap();
        let _first = Identity::claim(folder.path(), &SystemRuntime).unwrap();
        assert!(matches!(Identity::claim(folder.path(), &SystemRuntime), Err(IdentityError::InUse(_))));
    }

    #[test]
    fn rejects_a_damaged_file_and_keeps_it() {
        let folder = otherix_testkit::tempdir().unwrap();
        let path = folder.path().join("node.json");
        fs::write(&path, "{").unwrap();
        assert!(matches!(Identity::claim(folder.path(), &SystemRuntime), Err(IdentityError::Malformed { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "{");
    }
}
