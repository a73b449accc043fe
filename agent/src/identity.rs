//! The identity of this node: `node.json` in the state folder, readable by its owner only, and a lock that prevents two
//! agents from running as one node. Each start is a new incarnation, which distinguishes its reports from earlier ones.
//!
//! If the state folder was set back, the incarnation is not new: the control plane answers that reports are outdated,
//! and the agent takes one that is newer than the recorded one ([`Identity::renew`]). See docs/adr/0023.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use otherix_runtime::{Runtime, files};
use otherix_schemas::id::{ClusterId, NodeId};
use otherix_schemas::node::REPORT_NUMBER_MAX;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::connection;

const NODE: &str = "node.json";

const LOCK: &str = "lock";

/// Exists while the present incarnation has joined a cluster.
const JOINED: &str = "joined";

/// How much higher the next incarnation is at most. It is random, so that two copies of a state folder do not take the
/// same.
const INCARNATION_STEP: u64 = 1 << 16;

/// The identity of a node. No other agent can claim it until it is dropped.
#[derive(Debug)]
pub struct Identity {
    pub node_id: NodeId,
    /// Increases with each start.
    pub incarnation: u64,
    folder: PathBuf,
    _lock: FolderLock,
}

/// No agent uses the state folder until it is dropped, except the one that has it.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
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
    #[error(
        "there is no `{0}`, and this machine has joined as a node: create a token with `otherix node join-token create \
         --name NODE`, and run `otherix-agent join` with it, which writes the id of the node again"
    )]
    Missing(PathBuf),
    #[error("cannot write `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Identity {
    /// Claims the identity in `folder`, and starts a new incarnation. Creates folder and identity if they do not exist,
    /// unless the node has joined.
    ///
    /// # Errors
    /// [`IdentityError`] if another agent has claimed it, if a file cannot be read or written, or if the identity of a
    /// node that has joined is missing.
    pub fn claim(folder: &Path, runtime: &dyn Runtime) -> Result<Self, IdentityError> {
        let lock = FolderLock::take(folder)?;
        let path = folder.join(NODE);
        let mut node = match files::read(&path) {
            Ok(Some(text)) => serde_json::from_slice(&text)
                .map_err(|source| IdentityError::Malformed { path: path.clone(), source })?,
            // With another id, it would be another node, with the key and the devices of this one.
            Ok(None) if connection::has_joined(folder) => return Err(IdentityError::Missing(path)),
            Ok(None) => NodeFile { node_id: NodeId::new(runtime.uuid_v7()), incarnation: 0 },
            Err(source) => return Err(IdentityError::Read { path, source }),
        };
        if node.incarnation > REPORT_NUMBER_MAX - INCARNATION_STEP {
            tracing::error!(
                path = %path.display(), incarnation = node.incarnation,
                "the incarnation is out of range: taking one after the last that the control plane has recorded"
            );
            node.incarnation = 0;
        }
        node.incarnation = after(node.incarnation, runtime);
        let joined = folder.join(JOINED);
        files::remove(&joined).map_err(|source| IdentityError::Write { path: joined, source })?;
        write(folder, &node).map_err(|source| IdentityError::Write { path, source })?;
        let NodeFile { node_id, incarnation } = node;
        Ok(Self { node_id, incarnation, folder: folder.to_owned(), _lock: lock })
    }

    /// Takes an incarnation that is newer than `recorded`. It is written before it is in use.
    ///
    /// # Errors
    /// If the file cannot be written; the incarnation is unchanged then.
    pub fn renew(&mut self, recorded: u64, runtime: &dyn Runtime) -> Result<(), IdentityError> {
        let node = NodeFile { node_id: self.node_id, incarnation: after(recorded, runtime) };
        write(&self.folder, &node).map_err(|source| IdentityError::Write { path: self.folder.join(NODE), source })?;
        self.incarnation = node.incarnation;
        Ok(())
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

impl FolderLock {
    /// Locks a state folder, which is created if it does not exist.
    ///
    /// # Errors
    /// [`IdentityError::InUse`] if an agent uses it, and if it cannot be created or locked.
    pub fn take(folder: &Path) -> Result<Self, IdentityError> {
        lock(folder).map(|file| Self { _file: file })
    }

    /// Makes the node with this id the one of the folder. A node that is it already keeps its incarnation.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn assign(&self, folder: &Path, node_id: NodeId) -> Result<(), IdentityError> {
        if stored(folder)?.is_some_and(|(stored, _)| stored == node_id) {
            return Ok(());
        }
        let node = NodeFile { node_id, incarnation: 0 };
        write(folder, &node).map_err(|source| IdentityError::Write { path: folder.join(NODE), source })
    }
}

/// Returns an incarnation after this one: 1 for a new node.
fn after(incarnation: u64, runtime: &dyn Runtime) -> u64 {
    let step = if incarnation == 0 { 1 } else { 1 + runtime.random_u64() % INCARNATION_STEP };
    incarnation.saturating_add(step)
}

/// Whether this is the state folder of an agent.
pub(crate) fn exists(folder: &Path) -> bool {
    folder.join(NODE).is_file()
}

/// Reads the node's id and its last incarnation; `None` if the folder is not that of an agent.
pub(crate) fn stored(folder: &Path) -> Result<Option<(NodeId, u64)>, IdentityError> {
    let path = folder.join(NODE);
    let Some(text) = files::read(&path).map_err(|source| IdentityError::Read { path: path.clone(), source })? else {
        return Ok(None);
    };
    let NodeFile { node_id, incarnation } =
        serde_json::from_slice(&text).map_err(|source| IdentityError::Malformed { path, source })?;
    Ok(Some((node_id, incarnation)))
}

/// Reads which cluster the running agent has joined.
pub(crate) fn joined(folder: &Path) -> Option<ClusterId> {
    serde_json::from_slice(&files::read(&folder.join(JOINED)).ok()??).ok()
}

/// Returns the process that has claimed the identity. Does not claim it, not even for a moment: an agent may start.
pub(crate) fn claimed_by(folder: &Path) -> Option<u32> {
    let inode = fs::metadata(folder.join(LOCK)).ok()?.ino();
    // proc_locks(5): `1: FLOCK  ADVISORY  WRITE 723 08:02:131 0 EOF`
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = words.as_slice() else { return None };
        let is_ours = file.rsplit(':').next()?.parse() == Ok(inode);
        let name = is_ours.then(|| fs::read_to_string(format!("/proc/{pid}/comm")).ok())??;
        name.starts_with("otherix-agent").then(|| pid.parse().ok())?
    })
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
    let path = folder.join(LOCK);
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
        assert_eq!(second.node_id, node_id);
        assert!((2..=1 + INCARNATION_STEP).contains(&second.incarnation), "{}", second.incarnation);
        assert!(!state.join("joined").exists(), "this incarnation has not joined yet");
    }

    #[test]
    fn a_node_that_has_joined_gets_no_other_id() {
        let folder = otherix_testkit::tempdir().unwrap();
        drop(Identity::claim(folder.path(), &SystemRuntime).unwrap());
        fs::write(folder.path().join("connection.json"), "{}").unwrap();
        drop(Identity::claim(folder.path(), &SystemRuntime).unwrap());
        fs::remove_file(folder.path().join(NODE)).unwrap();
        let lost = Identity::claim(folder.path(), &SystemRuntime).unwrap_err();
        assert!(matches!(lost, IdentityError::Missing(_)) && lost.to_string().contains("--name NODE"), "{lost}");
        assert!(!folder.path().join(NODE).exists());
    }

    fn stored(folder: &Path) -> u64 {
        serde_json::from_slice::<NodeFile>(&fs::read(folder.join(NODE)).unwrap()).unwrap().incarnation
    }

    #[test]
    fn an_incarnation_out_of_range_is_replaced() {
        let folder = otherix_testkit::tempdir().unwrap();
        for (incarnation, expected) in [(u64::MAX, 1..=1), (REPORT_NUMBER_MAX, 1..=1), (7, 8..=7 + INCARNATION_STEP)] {
            let node = NodeFile { node_id: NodeId::new(Uuid::nil()), incarnation };
            write(folder.path(), &node).unwrap();
            let identity = Identity::claim(folder.path(), &SystemRuntime).unwrap();
            assert!(expected.contains(&identity.incarnation), "{} after {incarnation}", identity.incarnation);
            assert_eq!(stored(folder.path()), identity.incarnation);
        }
    }

    #[test]
    fn a_newer_incarnation_is_written_before_it_is_in_use() {
        let folder = otherix_testkit::tempdir().unwrap();
        let mut identity = Identity::claim(folder.path(), &SystemRuntime).unwrap();
        identity.renew(5_000_000, &SystemRuntime).unwrap();
        assert!((5_000_001..=5_000_000 + INCARNATION_STEP).contains(&identity.incarnation));
        assert_eq!(stored(folder.path()), identity.incarnation);
        fs::remove_dir_all(folder.path()).unwrap();
        let before = identity.incarnation;
        identity.renew(6_000_000, &SystemRuntime).unwrap_err();
        assert_eq!(identity.incarnation, before);
        fs::create_dir(folder.path()).unwrap();
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
