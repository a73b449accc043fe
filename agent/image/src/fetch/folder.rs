//! `file:` URLs.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::error::FetchError;

/// Opens a regular file below one of the folders. The kernel resolves the path and stops at links (`openat2`, Linux
/// 5.6), so that nobody can put one there in between.
pub(super) fn open(path: &Path, folders: &[PathBuf]) -> Result<File, FetchError> {
    let below = folders.iter().find_map(|folder| Some((folder, path.strip_prefix(folder).ok()?)));
    let Some((folder, name)) = below else {
        return Err(FetchError::Folder { path: path.display().to_string() });
    };
    let failed = |source: io::Error| FetchError::File { path: path.display().to_string(), source };
    let directory = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let directory = directory.map_err(|error| failed(error.into()))?;
    // Opening does not wait for the writer of a FIFO.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(&directory, name, flags, Mode::empty(), resolve);
    let file = File::from(file.map_err(|error| failed(error.into()))?);
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    Ok(file)
}
