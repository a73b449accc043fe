//! `otherix-agent leave`: a node that was removed while it was not connected cannot learn of it by a signed decision,
//! because its key is revoked. An operator on the machine can tell it: at its next start, the agent removes all devices
//! of otherix. If the control plane accepts the node after all, it was not removed, and this has no effect any more.
//!
//! The file `left` in the state folder exists from the command on.

use std::io;
use std::path::{Path, PathBuf};

use otherix_runtime::files;
use otherix_schemas::id::ClusterId;

use crate::connection::ConnectionSettings;
use crate::identity::{self, FolderLock, IdentityError};
use crate::join;
use crate::ledger::store;

const LEFT: &str = "left";

/// The errors of `otherix-agent leave`.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    #[error("`{0}` is not the state folder of an otherix-agent")]
    NoAgent(PathBuf),
    /// Stopping the agent shows that nobody relies on it.
    #[error("stop the agent first, and start it after this command")]
    Running(#[source] IdentityError),
    #[error("cannot read the identity of the node")]
    Identity(#[from] IdentityError),
    /// Devices are recognised by the cluster in their alias.
    #[error(
        "`{}` does not say of which cluster this machine was a node (there is no `ledger.json`, `connection.json` or \
         `released.json`): remove the devices by hand; `ip -d link` shows their aliases, `otherix:…`", .0.display()
    )]
    NoCluster(PathBuf),
    #[error("cannot write `{LEFT}` in the state folder")]
    Write(#[source] io::Error),
}

/// Notes that the node has left its cluster.
///
/// # Errors
/// [`LeaveError`], if the folder is not that of an agent, or an agent uses it.
pub fn leave(folder: &Path) -> Result<(), LeaveError> {
    identity::stored(folder)?.ok_or_else(|| LeaveError::NoAgent(folder.to_owned()))?;
    let _lock = FolderLock::take(folder).map_err(LeaveError::Running)?;
    if store::cluster(folder).or_else(|| joined_cluster(folder)).is_none() {
        return Err(LeaveError::NoCluster(folder.to_owned()));
    }
    files::replace(&folder.join(LEFT), b"").map_err(LeaveError::Write)
}

/// Whether the node has left its cluster.
pub fn has_left(folder: &Path) -> bool {
    folder.join(LEFT).exists()
}

/// The cluster that the machine was a node of, as far as it is known without a ledger.
pub(crate) fn joined_cluster(folder: &Path) -> Option<ClusterId> {
    let settings = ConnectionSettings::read(folder).ok().flatten();
    join::cluster_of(folder, settings.as_ref())
}

/// Forgets that the node has left.
///
/// # Errors
/// If the file cannot be removed.
pub fn forget(folder: &Path) -> io::Result<()> {
    files::remove(&folder.join(LEFT))
}
