//! The folder, beside its place, in which something is prepared that must never be there half. It is locked while it is
//! used; one that a killed process left behind is emptied.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use super::manifest::{GIVEN_UP, JOURNAL, LOG, PRIVATE_FOLDERS};
use super::{ARCHIVE, BackupError, sync_parent};

/// A locked, private folder.
pub(super) struct WorkFolder {
    path: PathBuf,
    lock: File,
}

impl WorkFolder {
    /// Creates the folder, or empties the one that a process left behind.
    ///
    /// # Errors
    /// If another process uses it, it is somebody else's, or it cannot be created.
    pub(super) fn create(path: &Path) -> Result<Self, BackupError> {
        let failed = |source| BackupError::file("create", path, source);
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        let found = path.symlink_metadata().map_err(failed)?;
        if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o077 != 0 {
            return Err(BackupError::Foreign(path.to_owned()));
        }
        let lock = File::open(path).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(BackupError::InUse(path.to_owned())),
            locked => locked.map_err(|error| failed(error.into()))?,
        }
        // Another process may have removed it, and made a new one, before it was locked.
        let (locked, found) = (lock.metadata().map_err(failed)?, path.symlink_metadata());
        if !found.is_ok_and(|found| (found.dev(), found.ino()) == (locked.dev(), locked.ino())) {
            return Err(BackupError::InUse(path.to_owned()));
        }
        let folder = Self { path: path.to_owned(), lock };
        if !folder.is_ours().map_err(failed)? {
            return Err(BackupError::Foreign(path.to_owned()));
        }
        folder.empty().map_err(failed)?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is nothing in it but what a backup or a restore makes.
    fn is_ours(&self) -> io::Result<bool> {
        let is_known = |name: &str| {
            let is_database = [JOURNAL, LOG].iter().any(|database| name.starts_with(database));
            is_database || name == ARCHIVE || name.starts_with(GIVEN_UP) || PRIVATE_FOLDERS.contains(&name)
        };
        for entry in fs::read_dir(&self.path)? {
            if !is_known(&entry?.file_name().to_string_lossy()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn empty(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes the folder with all that is in it.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub(super) fn remove(self) -> Result<(), BackupError> {
        fs::remove_dir_all(&self.path).map_err(|source| BackupError::file("remove", &self.path, source))
    }

    /// Gives the folder, which must be complete, its place. There must be nothing, or an empty folder.
    ///
    /// # Errors
    /// If there is something, or it cannot be moved; it is removed then.
    pub(super) fn become_folder(self, place: &Path) -> Result<(), BackupError> {
        let moved =
            sync_tree(&self.path).and_then(|()| fs::rename(&self.path, place)).and_then(|()| sync_parent(place));
        let Err(source) = moved else {
            drop(self.lock);
            return Ok(());
        };
        let is_taken = matches!(source.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists);
        let error =
            if is_taken { BackupError::NotEmpty(place.to_owned()) } else { BackupError::file("create", place, source) };
        self.remove()?;
        Err(error)
    }
}

/// Gives a file, which must be complete and on the disk, its place.
///
/// # Errors
/// If there is something and it is not to be replaced, or the file cannot be moved.
pub(super) fn put_in_place(file: &Path, place: &Path, replace: bool) -> Result<(), BackupError> {
    let moved = if replace { fs::rename(file, place) } else { rename_new(file, place) };
    match moved.and_then(|()| sync_parent(place)) {
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Err(BackupError::Exists(place.to_owned())),
        Err(source) => Err(BackupError::file("create", place, source)),
        Ok(()) => Ok(()),
    }
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can: with a link, which does not replace anything either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        renamed => Ok(renamed?),
    }
}

fn sync_tree(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            sync_tree(&entry?.path())?;
        }
    }
    File::open(path)?.sync_all()
}
