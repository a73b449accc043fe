//! The lock on the server's store. The child inherits the locked descriptor: the lock is held for as long as either
//! process lives, so that a server that outlived its parent never shares its store with a new one.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::time::{Instant, sleep};

use super::config::Folder;
use super::error::NatsError;

/// How long the processes of an earlier run get to be gone: the kernel kills an orphan at once.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// Locks the store. The lock is on the open file: it goes when the last descriptor of it is closed, here and in the child.
pub(super) async fn lock_store(folder: &Folder) -> Result<File, NatsError> {
    let path = folder.lock();
    let failed = |source| NatsError::File { attempt: "lock", path: path.clone(), source };
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
    let give_up = Instant::now() + PATIENCE;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() >= give_up => {
                return Err(NatsError::InUse { folder: folder.path().to_owned(), waited: PATIENCE });
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => sleep(POLL).await,
            Err(error) => return Err(failed(error.into())),
        }
    }
}
