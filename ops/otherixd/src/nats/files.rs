//! Files and folders that only their owner can access; errors name the path.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use otherix_runtime::files;

use super::error::NatsError;

/// Creates `folder` and its parents with mode 0700; the mode of an existing folder is corrected.
pub(crate) fn private_folder(folder: &Path) -> Result<(), NatsError> {
    files::create_private_folder(folder)
        .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o700)))
        .map_err(|source| NatsError::File { attempt: "create the folder", path: folder.to_owned(), source })
}

/// Writes a file atomically and durably, with mode 0600.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), NatsError> {
    files::replace(path, content).map_err(|source| NatsError::File { attempt: "write", path: path.to_owned(), source })
}
