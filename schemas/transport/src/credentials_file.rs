//! Credentials in a file, which is read again when it was changed: a program need not be restarted for new ones.
//!
//! A second file may hold their successor, with a key that is valid beside that of the first one. It is used as soon as
//! it is there, and takes the first one's place once a server has accepted it. While it is refused, the first one stays
//! in use. A process that is killed at any line has one of the two when it starts again.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use otherix_runtime::files;
use otherix_schemas::error::Causes;

use crate::credentials::{Credentials, CredentialsError, CredentialsSource};

/// A credentials file, and maybe one of its successor.
#[derive(Debug)]
pub struct CredentialsFile {
    path: PathBuf,
    successor: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The content of the first file.
    first: Loaded,
    successor: Option<Loaded>,
    /// The successor that a server refuses.
    refused: Option<Stamp>,
    /// The files that could not be used, as they were logged.
    unusable: [Option<Stamp>; 2],
}

#[derive(Clone, Debug)]
struct Loaded {
    stamp: Stamp,
    credentials: Credentials,
}

/// What changes with the content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        let modified = (file.mtime(), file.mtime_nsec());
        Some(Self { device: file.dev(), inode: file.ino(), size: file.size(), modified })
    }
}

impl CredentialsFile {
    /// Loads a credentials file; `successor` need not exist.
    ///
    /// # Errors
    /// As [`Credentials::load`], of the first file.
    pub fn load(path: &Path, successor: Option<&Path>) -> Result<Self, CredentialsError> {
        let missing = || CredentialsError::Read { path: path.to_owned(), source: io::ErrorKind::NotFound.into() };
        let stamp = Stamp::of(path).ok_or_else(missing)?;
        let first = Loaded { stamp, credentials: Credentials::load(path)? };
        let state = State { first, successor: None, refused: None, unusable: [None; 2] };
        Ok(Self { path: path.to_owned(), successor: successor.map(Path::to_owned), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn read_again(&mut self, first: &Path, successor: Option<&Path>) {
        let [first_unusable, successor_unusable] = &mut self.unusable;
        // If it was removed, its last content stays in use.
        if let Some(stamp) = Stamp::of(first).filter(|stamp| *stamp != self.first.stamp)
            && let Some(credentials) = load_changed(first, stamp, first_unusable)
        {
            self.first = Loaded { stamp, credentials };
            // Whatever it is about.
            self.refused = None;
        }
        let Some(successor) = successor else { return };
        match Stamp::of(successor) {
            None => self.successor = None,
            Some(stamp) if self.successor.as_ref().is_some_and(|known| known.stamp == stamp) => {}
            Some(stamp) => {
                let credentials = load_changed(successor, stamp, successor_unusable);
                self.successor = credentials.map(|credentials| Loaded { stamp, credentials });
            }
        }
    }

    fn current(&self) -> &Loaded {
        self.successor.as_ref().filter(|next| self.refused != Some(next.stamp)).unwrap_or(&self.first)
    }
}

/// Loads a file that was changed. One that cannot be used is logged once.
fn load_changed(path: &Path, stamp: Stamp, unusable: &mut Option<Stamp>) -> Option<Credentials> {
    if *unusable == Some(stamp) {
        return None;
    }
    match Credentials::load(path) {
        Ok(credentials) => Some(credentials),
        Err(error) => {
            *unusable = Some(stamp);
            tracing::error!(error = %Causes(&error), "new credentials cannot be used: going on with the present ones");
            None
        }
    }
}

impl CredentialsSource for CredentialsFile {
    fn current(&self) -> Credentials {
        let mut state = self.state();
        state.read_again(&self.path, self.successor.as_deref());
        state.current().credentials.clone()
    }

    fn accepted(&self, credentials: &Credentials) {
        let state = &mut *self.state();
        let Some(path) = &self.successor else { return };
        let Some(next) = state.successor.take_if(|next| next.credentials.is_same(credentials)) else { return };
        match files::rename(path, &self.path) {
            // If another one was put in its place just now, that one is the first file now, and is read as such.
            Ok(()) => {
                tracing::info!(file = %self.path.display(), "the new credentials have replaced the earlier ones");
                state.first = next;
            }
            Err(error) => {
                tracing::error!(%error, file = %self.path.display(), "cannot replace the earlier credentials");
                state.successor = Some(next);
            }
        }
    }

    fn refused(&self, credentials: &Credentials) {
        let state = &mut *self.state();
        let refused = state.successor.as_ref().filter(|next| next.credentials.is_same(credentials));
        // If the first one is refused as well, the successor is tried again.
        state.refused = refused.map(|next| next.stamp);
    }
}

#[cfg(test)]
mod tests {
    use otherix_testkit::{TempDir, tempdir};

    use super::*;

    struct Fixture {
        folder: TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let fixture = Self { folder: tempdir().unwrap() };
            fixture.write("first", "one");
            fixture
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str, user: &str) {
            let text = serde_json::json!({ "user": user, "password": "x" }).to_string();
            files::replace(&self.path(name), text.as_bytes()).unwrap();
        }

        fn load(&self) -> CredentialsFile {
            CredentialsFile::load(&self.path("first"), Some(&self.path("next"))).unwrap()
        }
    }

    fn user(file: &CredentialsFile) -> String {
        file.current().user().to_string()
    }

    #[test]
    fn a_changed_file_is_read_again_and_an_unusable_one_is_not_used() {
        let fixture = Fixture::new();
        let file = fixture.load();
        assert_eq!(user(&file), "one");
        fixture.write("first", "two");
        assert_eq!(user(&file), "two");
        fs::write(fixture.path("first"), "nonsense").unwrap();
        assert_eq!(user(&file), "two");
        fs::remove_file(fixture.path("first")).unwrap();
        assert_eq!(user(&file), "two");
        assert!(matches!(
            CredentialsFile::load(&fixture.path("first"), None),
            Err(CredentialsError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound
        ));
        fixture.write("first", "three");
        assert_eq!(user(&file), "three");
    }

    #[test]
    fn the_successor_takes_the_place_once_it_is_accepted() {
        let fixture = Fixture::new();
        let file = fixture.load();
        file.accepted(&file.current());
        fixture.write("next", "two");
        let next = file.current();
        assert_eq!(next.user().as_str(), "two");
        // Only attempted: the earlier one is still there.
        assert_eq!(Credentials::load(&fixture.path("first")).unwrap().user().as_str(), "one");
        file.accepted(&next);
        assert_eq!(Credentials::load(&fixture.path("first")).unwrap().user().as_str(), "two");
        assert!(!fixture.path("next").exists());
        assert!(file.current().is_same(&next));
        // As after a kill between the two.
        fixture.write("next", "three");
        assert_eq!(user(&fixture.load()), "three");
        fs::remove_file(fixture.path("next")).unwrap();
        assert_eq!(user(&file), "two");
    }

    #[test]
    fn a_successor_that_was_replaced_meanwhile_is_not_lost() {
        let fixture = Fixture::new();
        let file = fixture.load();
        fixture.write("next", "two");
        let next = file.current();
        fixture.write("next", "three");
        file.accepted(&next);
        assert_eq!(user(&file), "three");
    }

    #[test]
    fn a_refused_successor_is_tried_again_when_it_changed_or_the_first_one_is_refused_too() {
        let fixture = Fixture::new();
        let file = fixture.load();
        let first = file.current();
        fixture.write("next", "two");
        let next = file.current();
        file.refused(&next);
        assert_eq!(user(&file), "one");
        assert_eq!(user(&file), "one");
        file.refused(&first);
        assert_eq!(user(&file), "two");
        file.refused(&next);
        fixture.write("next", "three");
        assert_eq!(user(&file), "three");
        file.refused(&file.current());
        assert_eq!(user(&file), "one");
        file.accepted(&first);
        assert!(fixture.path("next").exists());
    }
}
