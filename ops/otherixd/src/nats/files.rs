//! Files that only their owner may read, written whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::error::NatsError;

/// Makes `folder`, and those above it, for the owner alone. What is there already is tightened.
pub(crate) fn private_folder(folder: &Path) -> Result<(), NatsError> {
    let make = || {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
    };
    make().map_err(|source| NatsError::File { attempt: "make the folder", path: folder.to_owned(), source })
}

/// Writes `content` to `path` for the owner alone; after a crash there is the old file or the new one.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), NatsError> {
    write_durably(path, content).map_err(|source| NatsError::File { attempt: "write", path: path.to_owned(), source })
}

fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    // One left behind by a crash may be half written, or readable by others.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
