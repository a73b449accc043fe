//! Serialises changes to a lab: commands that create, remove or start something lock the lab's folder. The kernel
//! releases the lock when the process ends.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::LabError;
use crate::lab::Lab;
use crate::output::report_progress;

/// The exclusive right to change a lab; released on drop.
#[derive(Debug)]
pub(crate) struct LabLock {
    _folder: File,
}

impl LabLock {
    /// Locks a lab that is to be created or removed; its folder is created if missing.
    pub(crate) fn of(lab: &Lab) -> Result<Self, LabError> {
        acquire(lab, || lab.create_folder())
    }

    /// Locks an existing lab.
    pub(crate) fn of_existing(lab: &Lab) -> Result<Self, LabError> {
        acquire(lab, || lab.open().map(|_| true))
    }
}

/// Waits for the lock without a time-out. `prepare` returns false if it must be retried.
fn acquire(lab: &Lab, prepare: impl Fn() -> Result<bool, LabError>) -> Result<LabLock, LabError> {
    let path = lab.folder();
    let failed = |source| LabError::File { attempt: "lock the folder", path: path.clone(), source };
    loop {
        if !prepare()? {
            continue;
        }
        let folder = match File::open(&path) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                report_progress(&format!("another command is changing lab `{}`: waiting until it is done", lab.name));
                flock(&folder, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
            }
            Err(error) => return Err(failed(error.into())),
        }
        // The previous holder may have removed the folder; the lock would then be on a deleted inode.
        if is_same_inode(&folder, &path) {
            return Ok(LabLock { _folder: folder });
        }
    }
}

fn is_same_inode(folder: &File, path: &Path) -> bool {
    let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let current = fs::metadata(path).map(inode).ok();
    current.is_some() && current == folder.metadata().map(inode).ok()
}
