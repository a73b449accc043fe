//! Files and folders that only their owner can access.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::error::NatsError;

/// Creates `folder` and its parents with mode 0700; the mode of an existing folder is corrected.
pub(crate) fn private_folder(folder: &Path) -> Result<(), NatsError> {
    let make = || {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
    };
    make().map_err(|source| NatsError::File { attempt: "create the folder", path: folder.to_owned(), source })
}

/// Writes a file atomically and durably, with mode 0600.
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
