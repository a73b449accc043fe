//! Checks whether the disk of the NATS store has free space. After a failed write nats-server does not resume storing
//! by itself; a restart helps only if there is free space.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Size of the trial file in bytes: enough for a server to start.
const TRIAL_SIZE: usize = 2 << 20;

/// Writes a trial file to the state folder's disk and removes it. Blocks on disk I/O.
pub(crate) fn has_free_space(state: &Path) -> bool {
    let path = state.join("nats/trial");
    let written = write(&path);
    if let Err(error) = &written {
        tracing::warn!(%error, "the disk of the NATS store accepts no data");
    }
    match fs::remove_file(&path) {
        Ok(()) | Err(_) => written.is_ok(),
    }
}

fn write(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&vec![0x55; TRIAL_SIZE])?;
    file.sync_all()
}
