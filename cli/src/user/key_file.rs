//! The files of a user's private key. A key pair is made and on disk before the control plane learns of its public
//! part, so that no user is created whose key is lost, and no file is overwritten.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use otherix_identity::{Creds, KeyKind, KeyPair};
use otherix_runtime::files::{self, PrivateFileError};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::user::CredentialView;
use otherix_schemas::value::UserKey;

use crate::exit::Exit;
use crate::failure::Failure;

/// Suffix of the file that has the key until the credentials are complete.
const PARTIAL: &str = ".partial";

/// Longest file with a private key, in bytes.
const LENGTH_MAX: u64 = 64 << 10;

/// What the seeds of users begin with.
const SEED: &str = "SU";

/// A new key pair, whose private part is in `<file>.partial` until the credentials in `<file>` are complete.
pub(super) struct NewKeyFile {
    file: PathBuf,
    partial: PathBuf,
    pair: KeyPair,
}

impl NewKeyFile {
    /// Makes a key pair and writes it to the temporary file.
    pub(super) fn create(file: PathBuf) -> Result<Self, Failure> {
        let mut partial = file.clone().into_os_string();
        partial.push(PARTIAL);
        let partial = PathBuf::from(partial);
        for path in [&file, &partial] {
            if fs::symlink_metadata(path).is_ok() {
                let message = format!("file `{}` exists, and is not overwritten", path.display());
                let failure = Failure::new(Exit::Usage, ErrorCode::ValidationFailed, message);
                return Err(if *path == partial {
                    failure.hint(format!(
                        "an interrupted command left it: if its user exists, complete it with `otherix user \
                         credential NAME --update {}`; otherwise delete it",
                        path.display()
                    ))
                } else {
                    failure.hint("select another file with `--out FILE`")
                });
            }
        }
        let pair = KeyPair::generate(KeyKind::User).map_err(|error| unexpected("make a key", &error))?;
        files::replace(&partial, format!("{}\n", pair.seed().as_str()).as_bytes())
            .map_err(|error| cannot_write(&partial, &error))?;
        Ok(Self { file, partial, pair })
    }

    /// The public key.
    pub(super) fn public_key(&self) -> Result<UserKey, Failure> {
        self.pair.public_key().as_str().parse::<UserKey>().map_err(|error| unexpected("use the key", &error))
    }

    /// Removes the key, which is registered nowhere.
    pub(super) fn discard(self) {
        // If it stays, the next command says so.
        let _left_behind = files::remove(&self.partial);
    }

    /// Writes the complete credentials. Returns the file.
    pub(super) fn complete(&self, credential: &CredentialView) -> Result<&Path, Failure> {
        write_credentials(&self.partial, self.pair.clone(), credential)?;
        // Fails if there is a file by now, unlike a rename.
        fs::hard_link(&self.partial, &self.file).map_err(|error| cannot_write(&self.file, &error))?;
        // It is the same file.
        let _left_behind = files::remove(&self.partial);
        Ok(&self.file)
    }

    /// Adds how to go on after a failure which leaves the key in the temporary file.
    pub(super) fn kept(&self, failure: Failure, name: &str) -> Failure {
        let partial = self.partial.display();
        failure.hint(format!(
            "the private key is in `{partial}`; if the user has this key (see `otherix user get {name}`), complete the \
             credentials with `otherix user credential {name} --update {partial}`; otherwise delete the file"
        ))
    }
}

/// Replaces the JWT in a file that has a user's private key.
pub(super) fn update(path: &Path, credential: &CredentialView) -> Result<(), Failure> {
    let content = files::read_private(path, LENGTH_MAX).map_err(|error| cannot_read(path, error))?;
    let text = String::from_utf8_lossy(&content);
    let seed = text.lines().map(str::trim).find(|line| line.starts_with(SEED));
    let pair = seed.map(KeyPair::from_seed).and_then(Result::ok).ok_or_else(|| {
        let message = format!("`{}` has no private key of a user", path.display());
        Failure::new(Exit::Usage, ErrorCode::ValidationFailed, message)
    })?;
    write_credentials(path, pair, credential)
}

fn write_credentials(path: &Path, pair: KeyPair, credential: &CredentialView) -> Result<(), Failure> {
    let CredentialView { name, key, jwt, .. } = credential;
    if pair.public_key().as_str() != key.as_str() {
        let message = format!("user `{name}` has the key `{key}`, and the file the key `{}`", pair.public_key());
        return Err(Failure::new(Exit::Conflict, ErrorCode::Conflict, message));
    }
    let credentials = Creds::new(jwt.clone(), pair).map_err(|error| unexpected("use the JWT", &error))?;
    files::replace(path, credentials.render().as_bytes()).map_err(|error| cannot_write(path, &error))
}

fn cannot_read(path: &Path, error: PrivateFileError) -> Failure {
    let path = path.display();
    match error {
        PrivateFileError::Io(error) => {
            Failure::new(Exit::Usage, ErrorCode::ValidationFailed, format!("cannot read `{path}`: {error}"))
        }
        PrivateFileError::Shared { mode } => {
            let message = format!("other users have access to `{path}` (mode {mode:04o})");
            Failure::new(Exit::Denied, ErrorCode::Unauthenticated, message).hint(format!("run `chmod 600 {path}`"))
        }
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    unexpected(&format!("write `{}`", path.display()), error)
}

fn unexpected(attempt: &str, error: &dyn std::error::Error) -> Failure {
    let message = format!("cannot {attempt}: {}", crate::failure::causes(error));
    Failure::new(Exit::Unexpected, ErrorCode::Internal, message)
}
