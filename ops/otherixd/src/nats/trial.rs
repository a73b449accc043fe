//! Whether the disk that NATS stores on takes data. A server that was once refused does not store again by itself, however
//! much room there is later; this says whether starting it again can help.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// So much is written on trial, in bytes: enough for a server to start and go on.
const TRIAL: usize = 2 << 20;

/// Writes to the disk of the state folder on trial. Blocks for as long as the disk takes.
pub(crate) fn has_room(state: &Path) -> bool {
    let path = state.join("nats/trial");
    let tried = write(&path);
    if let Err(error) = &tried {
        tracing::warn!(%error, "the disk that NATS stores on takes no data");
    }
    match fs::remove_file(&path) {
        Ok(()) | Err(_) => tried.is_ok(),
    }
}

fn write(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&vec![0x55; TRIAL])?;
    file.sync_all()
}
