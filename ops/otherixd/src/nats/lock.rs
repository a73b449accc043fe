//! The lock on the server's store. The child inherits the locked descriptor, so that the lock is held until both
//! processes have ended: a server that outlives its parent never shares its store with a new one.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::time::{Instant, sleep};

use super::config::NatsFolder;
use super::error::NatsError;

/// Time-out for processes of an earlier run to end: the kernel kills orphans immediately.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// Locks the store. The kernel releases the lock when its last descriptor is closed, here and in the child.
pub(super) async fn lock_store(folder: &NatsFolder) -> Result<File, NatsError> {
    let path = folder.lock();
    let failed = |source| NatsError::File { attempt: "lock", path: path.clone(), source };
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() >= deadline => {
                return Err(NatsError::InUse { folder: folder.path().to_owned(), waited: LOCK_TIMEOUT });
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => sleep(POLL).await,
            Err(error) => return Err(failed(error.into())),
        }
    }
}
