//! Small state files: readable by their owner only, and replaced atomically. After a crash or a loss of power a file
//! has either its old content or its new content.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Suffix of the temporary file that the new content is written to.
const TEMPORARY: &str = ".new";

/// Opening does not wait for a writer, and does not take over a terminal.
const FLAGS: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY);

/// The permissions of everyone but the owner.
const OTHERS: u32 = 0o077;

/// The permission of everyone but the owner to write.
const OTHERS_WRITE: u32 = 0o022;

/// The permissions of everyone but owner and group.
const WORLD: u32 = 0o007;

/// Replaces the content of a file, or creates it with mode 0600.
///
/// The content is written to a temporary file in the same folder (`<name>.new`), synced to disk and renamed. The file
/// takes the temporary file's mode: 0600, whatever it was before. Two processes must not replace the same file at the
/// same time.
///
/// # Errors
/// If the file system refuses a step. The old content is then still in place, unless the last step failed: the sync of
/// the folder after the rename.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    // A crash may have left one, partly written or readable by others.
    remove(&temporary)?;
    let renamed = write_new(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = renamed {
        // On a full disk it would occupy space that is needed. If it cannot be removed, the next call removes it.
        let _result = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_folder_of(path)
}

/// Renames a file within a file system and syncs the folder it is renamed into.
///
/// # Errors
/// If the rename or the sync fails; in the latter case the file has its new name.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder_of(to)
}

/// Overwrites a small file in place, which works on a full disk, too. Not atomic: a crash may leave a mixture of both
/// contents. The content should not span blocks.
///
/// # Errors
/// If there is no such file, or it cannot be written.
pub fn overwrite(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(content)?;
    file.set_len(content.len().try_into().unwrap_or(u64::MAX))?;
    file.sync_all()
}

/// Reads a regular file; returns `None` if it does not exist.
///
/// # Errors
/// If it exists and cannot be read, or is not a regular file.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    match open_regular(path).and_then(|mut file| file.read_to_end(&mut content)) {
        Ok(_) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a regular file for reading. Never waits, as opening a FIFO does until something writes to it.
///
/// # Errors
/// If it cannot be opened, or is something else: a FIFO, a device (which may never end), a folder.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(FLAGS.bits().cast_signed()).open(path)?;
    let kind = file.metadata()?.file_type();
    let found = if kind.is_file() {
        return Ok(file);
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "of another kind"
    };
    Err(io::Error::other(format!("it is {found}, not a regular file")))
}

/// Why a secret file was not read.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The content is not used: whoever put it there may be somebody else.
    #[error("other users have access to it (mode {mode:04o})")]
    Shared { mode: u32 },
}

/// Reads a secret regular file of at most `max` bytes. The caller wipes the content.
///
/// # Errors
/// If it does not exist, cannot be read, is longer, is not a regular file, or is accessible to others
/// ([`shared_mode`]).
pub fn read_private(path: &Path, max: u64) -> Result<Vec<u8>, PrivateFileError> {
    let file = open_regular(path)?;
    match shared_mode(&file)? {
        Some(mode) => Err(PrivateFileError::Shared { mode }),
        None => Ok(read_at_most(file, max)?),
    }
}

/// Returns the mode of a secret file that others may read or change. As with ssh's keys, one that belongs to another
/// user may be accessible to its group: that is how its owner grants access to it.
///
/// # Errors
/// If the file system does not tell.
pub fn shared_mode(file: &File) -> io::Result<Option<u32>> {
    let metadata = file.metadata()?;
    let mode = metadata.mode() & 0o7777;
    let forbidden = if metadata.uid() == rustix::process::geteuid().as_raw() { OTHERS } else { WORLD };
    Ok((mode & forbidden != 0).then_some(mode))
}

/// Returns the mode of a file that users other than its owner may change.
///
/// # Errors
/// If the file system does not tell.
pub fn mode_writable_by_others(file: &File) -> io::Result<Option<u32>> {
    let mode = file.metadata()?.mode() & 0o7777;
    Ok((mode & OTHERS_WRITE != 0).then_some(mode))
}

/// Reads what is left, if it is at most `max` bytes.
///
/// # Errors
/// If it is longer, or cannot be read.
pub fn read_at_most(from: impl Read, max: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    from.take(max.saturating_add(1)).read_to_end(&mut content)?;
    if u64::try_from(content.len()).is_ok_and(|length| length <= max) {
        return Ok(content);
    }
    let limit = if max >= 1 << 20 { format!("{} MiB", max >> 20) } else { format!("{} KiB", max >> 10) };
    Err(io::Error::other(format!("it is larger than {limit}")))
}

/// Removes a file if it exists.
///
/// # Errors
/// If it exists and cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Creates a folder and its missing parents with mode 0700. Folders that exist keep their modes.
///
/// # Errors
/// If a folder cannot be created.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Returns whether an operation failed because the disk, or the user's share of it, is full.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(TEMPORARY);
    name.into()
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn replaces_and_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        replace(&path, b"one").unwrap();
        assert_eq!((read(&path).unwrap().as_deref(), mode(&path)), (Some(&b"one"[..]), 0o600));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        // Partly written by a process that crashed, and readable by others.
        fs::write(folder.path().join("state.json.new"), "tw").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!((read(&path).unwrap().as_deref(), mode(&path)), (Some(&b"two"[..]), 0o600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn failure_keeps_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        // A file cannot replace a folder that is not empty.
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "old").unwrap();
        replace(&path, b"new").unwrap_err();
        assert_eq!(fs::read(path.join("inside")).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the temporary file is removed");
    }

    #[test]
    fn overwrites_in_place_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert_eq!(overwrite(&path, b"new").unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&path, "longer content").unwrap();
        overwrite(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn missing_files_are_not_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing");
        assert_eq!(read(&path).unwrap(), None);
        remove(&path).unwrap();
    }

    #[test]
    fn only_regular_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        for (path, kind) in
            [(fifo.as_path(), "a FIFO"), (Path::new("/dev/zero"), "a device"), (folder.path(), "a directory")]
        {
            let error = read(path).unwrap_err().to_string();
            assert_eq!(error, format!("it is {kind}, not a regular file"));
        }
        let file = folder.path().join("file");
        fs::write(&file, [7; 1025]).unwrap();
        assert_eq!(read_at_most(open_regular(&file).unwrap(), 2048).unwrap().len(), 1025);
        let error = read_at_most(open_regular(&file).unwrap(), 1024).unwrap_err().to_string();
        assert_eq!(error, "it is larger than 1 KiB");
    }

    #[test]
    fn secret_files_that_others_can_access_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let read = || read_private(&path, 16);
        assert!(matches!(read(), Err(PrivateFileError::Io(error)) if error.kind() == io::ErrorKind::NotFound));
        replace(&path, b"seed").unwrap();
        assert_eq!(read().unwrap(), b"seed");
        for shared in [0o640, 0o604, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(shared)).unwrap();
            assert!(matches!(read(), Err(PrivateFileError::Shared { mode }) if mode == shared), "{shared:o}");
        }
        replace(&path, &[7; 17]).unwrap();
        assert!(matches!(read(), Err(PrivateFileError::Io(_))));
    }

    #[test]
    fn private_folders_have_mode_0700() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        create_private_folder(&inner).unwrap();
        create_private_folder(&inner).unwrap();
        assert_eq!((mode(&folder.path().join("a")), mode(&inner)), (0o700, 0o700));
    }
}
