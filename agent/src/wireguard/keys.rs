//! The node's private keys, on its disk and nowhere else: the one in use, and the next one while it is being introduced.
//!
//! A rotation is in three steps, each of which may be the last before a kill. `rotate-key` writes the next key. The agent offers its
//! public half to the control plane, which decides it. Every node folds that decision: the others know the node by its new key
//! from then on, and this node makes the next key the one in use.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use otherix_runtime::files;
use otherix_schemas::value;

use super::tunnel::device_key;
use otherix_mesh::key::{WgPrivateKey, WgPublicKey};
use otherix_mesh::{KEY_FILE, MeshRunError, read_key};

/// The file with the next key.
pub(super) const NEXT_KEY_FILE: &str = "mesh.key.next";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] MeshRunError),
    /// It cannot be made.
    #[error("cannot make a private key")]
    Generate(#[source] io::Error),
    /// It cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The public half is none that the cluster takes: one of the few points that every WireGuard refuses.
    #[error("the private key in `{}` has no usable public half: remove the file", .0.display())]
    Unusable(PathBuf),
}

/// The keys of one node.
pub(super) struct Keys {
    folder: PathBuf,
    current: WgPrivateKey,
    next: Option<WgPrivateKey>,
}

impl Keys {
    /// Reads the key in the node's state folder, or makes the first. A next one is known after [`Keys::look`], which may fail
    /// without holding up the node.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub(super) fn open(folder: &Path) -> Result<Self, KeyFileError> {
        let current = match read_key(&folder.join(KEY_FILE))? {
            Some(key) => key,
            None => generate(folder, KEY_FILE)?,
        };
        Ok(Self { folder: folder.to_owned(), current, next: None })
    }

    /// The public half that this node wants to be known by.
    ///
    /// # Errors
    /// When the key's public half is none that the cluster takes.
    pub(super) fn offered(&self) -> Result<value::MeshPublicKey, KeyFileError> {
        let public = self.next.as_ref().unwrap_or(&self.current).public();
        let name = if self.next.is_some() { NEXT_KEY_FILE } else { KEY_FILE };
        value::MeshPublicKey::try_from(*public.as_bytes()).map_err(|_| KeyFileError::Unusable(self.folder.join(name)))
    }

    /// The key that the device must have, where the cluster knows the node by this public half.
    pub(super) fn in_use(&self, decided: value::MeshPublicKey) -> &WgPrivateKey {
        let decided = device_key(decided);
        self.next.as_ref().filter(|next| next.public() == decided).unwrap_or(&self.current)
    }

    /// Makes the next key the one in use, if the cluster knows the node by it. What is written is the key that was decided, whatever
    /// the file of the next one holds by now.
    ///
    /// # Errors
    /// When it cannot be written; both keys are as they were, and the device has the right one all the same.
    pub(super) fn settle(&mut self, decided: value::MeshPublicKey) -> Result<bool, KeyFileError> {
        let decided = device_key(decided);
        let Some(next) = self.next.take_if(|next| next.public() == decided) else { return Ok(false) };
        match self.write_settled(&next) {
            Ok(()) => {
                self.current = next;
                Ok(true)
            }
            Err(source) => {
                self.next = Some(next);
                Err(KeyFileError::Write { path: self.folder.join(KEY_FILE), source })
            }
        }
    }

    fn write_settled(&self, decided: &WgPrivateKey) -> io::Result<()> {
        let file = self.folder.join(NEXT_KEY_FILE);
        if matches!(read_key(&file), Ok(Some(key)) if key == *decided) {
            // Needs no room on the disk.
            fs::rename(file, self.folder.join(KEY_FILE))?;
            return File::open(&self.folder)?.sync_all();
        }
        // It was removed, or somebody wrote another since: that one is the next after this.
        write(&self.folder, KEY_FILE, decided)
    }

    /// Reads the next key, if one has been written since.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub(super) fn look(&mut self) -> Result<(), KeyFileError> {
        if self.next.is_none() {
            self.next = read_key(&self.folder.join(NEXT_KEY_FILE))?;
        }
        Ok(())
    }
}

/// Writes the next key, unless a rotation is under way; gives its public half.
///
/// # Errors
/// [`KeyFileError`].
pub(super) fn write_next(folder: &Path) -> Result<WgPublicKey, KeyFileError> {
    match read_key(&folder.join(NEXT_KEY_FILE))? {
        Some(key) => Ok(key.public()),
        None => Ok(generate(folder, NEXT_KEY_FILE)?.public()),
    }
}

/// The public half of the key in use, if there is one.
///
/// # Errors
/// [`KeyFileError`].
pub(super) fn public_in_use(folder: &Path) -> Result<Option<WgPublicKey>, KeyFileError> {
    Ok(read_key(&folder.join(KEY_FILE))?.map(|key| key.public()))
}

fn generate(folder: &Path, name: &str) -> Result<WgPrivateKey, KeyFileError> {
    let key = WgPrivateKey::generate().map_err(KeyFileError::Generate)?;
    write(folder, name, &key).map_err(|source| KeyFileError::Write { path: folder.join(name), source })?;
    Ok(key)
}

fn write(folder: &Path, name: &str, key: &WgPrivateKey) -> io::Result<()> {
    let mut line = key.to_base64();
    line.push('\n');
    files::replace(&folder.join(name), line.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_for_its_owner_only() {
        let folder = otherix_testkit::tempdir().unwrap();
        let first = Keys::open(folder.path()).unwrap().offered().unwrap();
        let mode = fs::metadata(folder.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(Keys::open(folder.path()).unwrap().offered().unwrap(), first);
        fs::set_permissions(folder.path().join(KEY_FILE), PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(Keys::open(folder.path()), Err(KeyFileError::Read(_))));
    }

    #[test]
    fn the_next_key_is_offered_and_used_once_it_is_decided() {
        let folder = otherix_testkit::tempdir().unwrap();
        let mut keys = Keys::open(folder.path()).unwrap();
        let first = keys.offered().unwrap();
        let next = write_next(folder.path()).unwrap();
        assert_eq!(write_next(folder.path()).unwrap(), next, "a rotation that is under way is gone on with");
        keys.look().unwrap();
        let offered = keys.offered().unwrap();
        assert_eq!(device_key(offered), next);
        assert!(!keys.settle(first).unwrap());
        assert_eq!(keys.in_use(first).public(), device_key(first));
        // Killed between the decision and the renaming, it uses the decided one all the same.
        let mut again = Keys::open(folder.path()).unwrap();
        again.look().unwrap();
        assert_eq!(again.in_use(offered).public(), next);
        assert!(keys.settle(offered).unwrap());
        assert!(!folder.path().join(NEXT_KEY_FILE).exists());
        assert_eq!(Keys::open(folder.path()).unwrap().offered().unwrap(), offered);
    }
    #[test]
    fn the_decided_key_is_the_one_that_is_kept_whatever_became_of_its_file() {
        for other in [false, true] {
            let folder = otherix_testkit::tempdir().unwrap();
            let mut keys = Keys::open(folder.path()).unwrap();
            write_next(folder.path()).unwrap();
            keys.look().unwrap();
            let decided = keys.offered().unwrap();
            fs::remove_file(folder.path().join(NEXT_KEY_FILE)).unwrap();
            let after = other.then(|| write_next(folder.path()).unwrap());
            assert!(keys.settle(decided).unwrap());
            assert_eq!(public_in_use(folder.path()).unwrap(), Some(device_key(decided)));
            keys.look().unwrap();
            assert_eq!(device_key(keys.offered().unwrap()), after.unwrap_or(device_key(decided)), "{other}");
        }
    }

    #[test]
    fn a_next_key_that_others_may_read_is_refused_and_holds_nothing_up() {
        let folder = otherix_testkit::tempdir().unwrap();
        let first = Keys::open(folder.path()).unwrap().offered().unwrap();
        let next = write_next(folder.path()).unwrap();
        let set_mode = |mode| {
            fs::set_permissions(folder.path().join(NEXT_KEY_FILE), PermissionsExt::from_mode(mode)).unwrap();
        };
        set_mode(0o644);
        let mut keys = Keys::open(folder.path()).unwrap();
        assert!(matches!(keys.look(), Err(KeyFileError::Read(_))));
        assert_eq!(keys.offered().unwrap(), first);
        set_mode(0o600);
        keys.look().unwrap();
        assert_eq!(device_key(keys.offered().unwrap()), next);
    }
}
