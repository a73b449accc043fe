//! One change to a lab at a time: whoever makes, removes or starts something holds the lab's folder locked meanwhile. The kernel
//! lets go of the lock with the process, however that ends.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::LabError;
use crate::lab::Lab;
use crate::output::say;

/// The right to change a lab, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _folder: File,
}

impl Lock {
    /// For a lab that is to be made or removed: its folder is made if there is none.
    pub(crate) fn of(lab: &Lab) -> Result<Self, LabError> {
        take(lab, || lab.make_folder())
    }

    /// For a lab that exists.
    pub(crate) fn of_existing(lab: &Lab) -> Result<Self, LabError> {
        take(lab, || lab.opened().map(|_| true))
    }
}

/// Waits for the lock as long as somebody holds it. `prepare` says whether the folder can be there.
fn take(lab: &Lab, prepare: impl Fn() -> Result<bool, LabError>) -> Result<Lock, LabError> {
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
                say(&format!("another command is changing lab `{}`: waiting until it is done", lab.name));
                flock(&folder, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
            }
            Err(error) => return Err(failed(error.into())),
        }
        // Who held it may have removed the folder: then the lock is on nothing.
        if is_at(&folder, &path) {
            return Ok(Lock { _folder: folder });
        }
    }
}

fn is_at(folder: &File, path: &Path) -> bool {
    let number = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let there = fs::metadata(path).map(number).ok();
    there.is_some() && there == folder.metadata().map(number).ok()
}
