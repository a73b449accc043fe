//! Checks whether NATS's disk has room. After a failed write nats-server does not resume storing by itself; this tells
//! whether a restart can help.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Bytes written as a trial: enough for a server to start.
const TRIAL: usize = 2 << 20;

/// Writes a trial file to the state folder's disk and removes it. Blocks on the disk.
pub(crate) fn has_room(state: &Path) -> bool {
    let path = state.join("nats/trial");
    let tried = write(&path);
    if let Err(error) = &tried {
        tracing::warn!(%error, "the disk of the NATS store accepts no data");
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
