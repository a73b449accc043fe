//! Copies what belongs into a backup from a state folder that may be in use.
//!
//! In this order: keys, the log, the journal, what was given up, keys. The log follows the journal, so a later copy of
//! the journal has all that an earlier one of the log covers. Keys change while the control plane is stopped or starts;
//! if they are others after the journal was copied, all is copied again.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use otherix_commands::store::SqliteStore;
use otherix_commands::tlog::TileStore;
use otherix_runtime::files;
use zeroize::Zeroizing;

use super::manifest::{self, GIVEN_UP, PRIVATE_FOLDERS};
use super::{BackupError, remove_file};
use crate::args::StateFolder;

/// Attempts to copy a state whose keys do not change meanwhile.
const ATTEMPTS: u32 = 5;

/// The longest pause between two steps.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// The longest file of a private folder.
const FILE_MAX: u64 = 4 << 20;

/// The contents of the private folders by name, such as `identity/operator.nk`.
type Keys = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// Copies everything to the folder `to`, which must be empty. Blocking.
///
/// # Errors
/// If something cannot be read or written, or the keys change all the time.
pub(super) fn copy_state(state: &StateFolder, to: &Path) -> Result<(), BackupError> {
    if !state.journal().exists() {
        return Err(BackupError::NoJournal(state.journal()));
    }
    let copied = StateFolder { folder: to.to_owned() };
    for _ in 0..ATTEMPTS {
        let keys = read_keys(state)?;
        for path in [copied.log(), copied.journal()] {
            remove_file(&path)?;
        }
        let mut throttle = Throttle(Instant::now());
        if state.log().exists() && !TileStore::copy(&state.log(), &copied.log(), &mut || throttle.pause())? {
            remove_file(&copied.log())?;
        }
        SqliteStore::copy(&state.journal(), &copied.journal(), &mut || throttle.pause())?;
        copy_given_up(&state.folder, to)?;
        if read_keys(state)? == keys {
            return write_keys(&keys, to);
        }
    }
    Err(BackupError::KeysChange(state.identity()))
}

/// Copies what restores gave up: nobody else may have it. These files never change once they have their names.
fn copy_given_up(from: &Path, to: &Path) -> Result<(), BackupError> {
    let entries = fs::read_dir(from).map_err(|source| BackupError::file("read", from, source))?;
    for entry in entries {
        let entry = entry.map_err(|source| BackupError::file("read", from, source))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if !name.starts_with(GIVEN_UP) || !manifest::is_name(&name) {
            continue;
        }
        let copied = to.join(&name);
        remove_file(&copied)?;
        let mut content = files::open_regular(&path).map_err(|source| BackupError::file("read", &path, source))?;
        create_new(&copied)
            .and_then(|mut file| io::copy(&mut content, &mut file))
            .map_err(|source| BackupError::file("copy", &path, source))?;
    }
    Ok(())
}

/// Leaves half of the time to others.
struct Throttle(Instant);

impl Throttle {
    /// Waits as long as the step before took.
    fn pause(&mut self) {
        std::thread::sleep(self.0.elapsed().min(PAUSE_MAX));
        self.0 = Instant::now();
    }
}

fn read_keys(state: &StateFolder) -> Result<Keys, BackupError> {
    let mut keys = Keys::new();
    for name in PRIVATE_FOLDERS {
        read_folder(&state.folder.join(name), name, &mut keys)?;
    }
    Ok(keys)
}

fn read_folder(path: &Path, prefix: &str, keys: &mut Keys) -> Result<(), BackupError> {
    let failed = |source| BackupError::file("read", path, source);
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let (path, name) = (entry.path(), format!("{prefix}/{}", entry.file_name().to_string_lossy()));
        // One that is being replaced, see `files::replace`.
        if name.ends_with(".new") {
            continue;
        }
        if path.is_dir() {
            read_folder(&path, &name, keys)?;
            continue;
        }
        if !manifest::is_name(&name) {
            tracing::warn!(name, "left out: no file of otherixd has such a name");
            continue;
        }
        let content = match files::open_regular(&path).and_then(|file| files::read_at_most(file, FILE_MAX)) {
            // A link that leads nowhere, or a file that was just removed. If it is a key, the check tells.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(name, "left out: it leads to no file");
                continue;
            }
            content => content.map_err(|source| BackupError::file("read", &path, source))?,
        };
        keys.insert(name, Zeroizing::new(content));
    }
    Ok(())
}

fn write_keys(keys: &Keys, to: &Path) -> Result<(), BackupError> {
    for (name, content) in keys {
        write_new(&to.join(name), content).map_err(|source| BackupError::file("write", &to.join(name), source))?;
    }
    Ok(())
}

/// Writes a file with mode 0600, and its folders with mode 0700.
fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    create_new(path)?.write_all(content)
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)
}
