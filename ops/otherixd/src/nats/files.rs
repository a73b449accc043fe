//! Files and folders that only their owner can access; errors name the path.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use otherix_runtime::files::{self, PrivateFileError};
use zeroize::Zeroizing;

use super::error::NatsError;

/// Longest file of a key or JWT, in bytes.
const LENGTH_MAX: u64 = 64 << 10;

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

/// Reads a text that is a secret; `None` if the file does not exist.
pub(crate) fn read_private(path: &Path) -> Result<Option<Zeroizing<String>>, NatsError> {
    let failed = |source| NatsError::File { attempt: "read", path: path.to_owned(), source };
    let content = match files::read_private(path, LENGTH_MAX) {
        Ok(content) => content,
        Err(PrivateFileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(PrivateFileError::Io(error)) => return Err(failed(error)),
        Err(PrivateFileError::Shared { mode }) => return Err(NatsError::SharedKey { path: path.to_owned(), mode }),
    };
    let text = String::from_utf8(content).map_err(|error| failed(io::Error::other(error.utf8_error())))?;
    Ok(Some(Zeroizing::new(text)))
}
