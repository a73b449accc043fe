//! The private keys of the node: the one in use, and during a rotation the next one. They are stored in the state
//! folder only, and never leave the node except for the mesh device on it.
//!
//! A rotation has three steps, and continues after a kill at any of them. `rotate-key` writes the next key. The agent
//! offers its public key to the control plane, which decides it. On that decision the other nodes identify this node by
//! the new key, and this node activates it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use otherix_mesh::key::{WgPrivateKey, WgPublicKey};
use otherix_mesh::{KEY_FILE, MeshRunError, read_key};
use otherix_runtime::files;
use otherix_schemas::value;

use super::configuration::device_key;

/// The file of the next key, in the state folder.
pub(super) const NEXT_KEY_FILE: &str = "mesh.key.next";

#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error(transparent)]
    Read(#[from] MeshRunError),
    #[error("cannot generate a private key")]
    Generate(#[source] io::Error),
    #[error("cannot write `{}`", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// The public key is one of the few curve points of low order, which every WireGuard rejects.
    #[error("the public key of the private key in `{}` is not valid: remove the file", .0.display())]
    Invalid(PathBuf),
}

pub(super) struct MeshKeys {
    folder: PathBuf,
    current: WgPrivateKey,
    next: Option<WgPrivateKey>,
}

impl MeshKeys {
    /// Reads the key in use from the state folder, or generates the first one. Does not read the next one: see
    /// [`Self::read_next`], whose failure does not prevent the node from using the mesh.
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

    /// Returns the public key to offer to the control plane: that of the next key, if there is one.
    ///
    /// # Errors
    /// [`KeyFileError::Invalid`].
    pub(super) fn offered(&self) -> Result<value::MeshPublicKey, KeyFileError> {
        let public = self.next.as_ref().unwrap_or(&self.current).public();
        let name = if self.next.is_some() { NEXT_KEY_FILE } else { KEY_FILE };
        value::MeshPublicKey::try_from(*public.as_bytes()).map_err(|_| KeyFileError::Invalid(self.folder.join(name)))
    }

    /// Returns the key that the device must have if this public key of the node is decided.
    pub(super) fn required(&self, decided: value::MeshPublicKey) -> &WgPrivateKey {
        let decided = device_key(decided);
        self.next.as_ref().filter(|next| next.public() == decided).unwrap_or(&self.current)
    }

    /// Stores the next key as the one in use if its public key is the decided one, and returns whether it was. Writes
    /// the decided key even if the file of the next key was removed or replaced.
    ///
    /// # Errors
    /// [`KeyFileError::Write`]; both keys remain as they were.
    pub(super) fn activate(&mut self, decided: value::MeshPublicKey) -> Result<bool, KeyFileError> {
        let decided = device_key(decided);
        let Some(next) = self.next.take_if(|next| next.public() == decided) else { return Ok(false) };
        match self.store(&next) {
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

    fn store(&self, decided: &WgPrivateKey) -> io::Result<()> {
        let file = self.folder.join(NEXT_KEY_FILE);
        if matches!(read_key(&file), Ok(Some(key)) if key == *decided) {
            // Succeeds on a full disk.
            fs::rename(file, self.folder.join(KEY_FILE))?;
            return File::open(&self.folder)?.sync_all();
        }
        // The file was removed, or has another key by now: that one is for the next rotation.
        write(&self.folder, KEY_FILE, decided)
    }

    /// Reads the next key, if there is a file of one and none was read.
    ///
    /// # Errors
    /// [`KeyFileError::Read`].
    pub(super) fn read_next(&mut self) -> Result<(), KeyFileError> {
        if self.next.is_none() {
            self.next = read_key(&self.folder.join(NEXT_KEY_FILE))?;
        }
        Ok(())
    }
}

/// Generates and writes the next key, unless a rotation is under way. Returns its public key.
///
/// # Errors
/// [`KeyFileError`].
pub(super) fn write_next(folder: &Path) -> Result<WgPublicKey, KeyFileError> {
    match read_key(&folder.join(NEXT_KEY_FILE))? {
        Some(key) => Ok(key.public()),
        None => Ok(generate(folder, NEXT_KEY_FILE)?.public()),
    }
}

/// Returns the public key of the key in use, if there is one.
///
/// # Errors
/// [`KeyFileError::Read`].
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
    fn the_key_is_generated_once_and_must_be_accessible_to_its_owner_only() {
        let folder = otherix_testkit::tempdir().unwrap();
        let first = MeshKeys::open(folder.path()).unwrap().offered().unwrap();
        let mode = fs::metadata(folder.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(MeshKeys::open(folder.path()).unwrap().offered().unwrap(), first);
        fs::set_permissions(folder.path().join(KEY_FILE), PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(MeshKeys::open(folder.path()), Err(KeyFileError::Read(_))));
    }

    #[test]
    fn the_next_key_is_offered_and_activated_once_it_is_decided() {
        let folder = otherix_testkit::tempdir().unwrap();
        let mut keys = MeshKeys::open(folder.path()).unwrap();
        let first = keys.offered().unwrap();
        let next = write_next(folder.path()).unwrap();
        assert_eq!(write_next(folder.path()).unwrap(), next, "a rotation that is under way continues");
        keys.read_next().unwrap();
        let offered = keys.offered().unwrap();
        assert_eq!(device_key(offered), next);
        assert!(!keys.activate(first).unwrap());
        assert_eq!(keys.required(first).public(), device_key(first));
        // As after a kill between the decision and the activation.
        let mut reopened = MeshKeys::open(folder.path()).unwrap();
        reopened.read_next().unwrap();
        assert_eq!(reopened.required(offered).public(), next);
        assert!(keys.activate(offered).unwrap());
        assert!(!folder.path().join(NEXT_KEY_FILE).exists());
        assert_eq!(MeshKeys::open(folder.path()).unwrap().offered().unwrap(), offered);
    }

    #[test]
    fn the_decided_key_is_stored_even_if_its_file_was_removed_or_replaced() {
        for is_replaced in [false, true] {
            let folder = otherix_testkit::tempdir().unwrap();
            let mut keys = MeshKeys::open(folder.path()).unwrap();
            write_next(folder.path()).unwrap();
            keys.read_next().unwrap();
            let decided = keys.offered().unwrap();
            fs::remove_file(folder.path().join(NEXT_KEY_FILE)).unwrap();
            let replacement = is_replaced.then(|| write_next(folder.path()).unwrap());
            assert!(keys.activate(decided).unwrap());
            assert_eq!(public_in_use(folder.path()).unwrap(), Some(device_key(decided)));
            keys.read_next().unwrap();
            let expected = replacement.unwrap_or(device_key(decided));
            assert_eq!(device_key(keys.offered().unwrap()), expected, "{is_replaced}");
        }
    }

    #[test]
    fn a_next_key_that_others_can_read_is_refused_and_the_current_one_stays_in_use() {
        let folder = otherix_testkit::tempdir().unwrap();
        let first = MeshKeys::open(folder.path()).unwrap().offered().unwrap();
        let next = write_next(folder.path()).unwrap();
        let set_mode = |mode| {
            fs::set_permissions(folder.path().join(NEXT_KEY_FILE), PermissionsExt::from_mode(mode)).unwrap();
        };
        set_mode(0o644);
        let mut keys = MeshKeys::open(folder.path()).unwrap();
        assert!(matches!(keys.read_next(), Err(KeyFileError::Read(_))));
        assert_eq!(keys.offered().unwrap(), first);
        set_mode(0o600);
        keys.read_next().unwrap();
        assert_eq!(device_key(keys.offered().unwrap()), next);
    }
}
