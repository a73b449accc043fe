//! The files of a user's private key. A key pair is made and on disk before the control plane learns of its public
//! part, so that no user is created whose key is lost, and no file is overwritten.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use otherix_identity::{Creds, CredsFormatError, KeyKind, KeyPair};
use otherix_runtime::files::{self, PrivateFileError};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::value::UserKey;
use zeroize::Zeroizing;

use crate::exit::Exit;
use crate::failure::Failure;

/// What precedes the extension of the file that reads the buckets of the state.
const STATE: &str = "state";

/// Suffix of the file that has the key until the credentials are complete.
const PARTIAL: &str = ".partial";

/// Longest file with a private key, in bytes.
const LENGTH_MAX: u64 = 64 << 10;

/// What JWTs begin with.
const JWT: &str = "eyJ";

/// What the seeds of users begin with.
const SEED: &str = "SU";

/// The files of a user's credentials that were written.
pub(super) struct Written {
    pub(super) file: PathBuf,
    /// That which reads the buckets of the state.
    pub(super) state: Option<PathBuf>,
}

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
        for path in [&file, &state_file(&file), &partial] {
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

    /// Keeps the key if the control plane may have registered it.
    pub(super) fn after_refusal(self, failure: Failure, name: &str) -> Failure {
        match failure.exit {
            Exit::Usage | Exit::NotFound | Exit::Conflict | Exit::Blocked | Exit::Denied => {
                self.discard();
                failure
            }
            Exit::Success
            | Exit::Unexpected
            | Exit::Differs
            | Exit::NotCompared
            | Exit::Unreachable
            | Exit::NodeFailed
            | Exit::TimedOut => self.kept(failure, name),
        }
    }

    /// Removes the key, which is registered nowhere.
    fn discard(self) {
        // If it stays, the next command says so.
        let _left_behind = files::remove(&self.partial);
    }

    /// Writes the complete credentials, and those for the buckets beside them. Returns the files.
    pub(super) fn complete(&self, jwt: String, state_jwt: Option<String>) -> Result<Written, Failure> {
        write_credentials(&self.partial, self.pair.clone(), jwt)?;
        let state = write_state(&self.file, self.pair.clone(), state_jwt)?;
        // Fails if there is a file by now, unlike a rename.
        fs::hard_link(&self.partial, &self.file).map_err(|error| cannot_write(&self.file, &error))?;
        // It is the same file.
        let _left_behind = files::remove(&self.partial);
        Ok(Written { file: self.file.clone(), state })
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

/// Replaces the JWT in a file that has a user's private key, and writes the file beside it that reads the buckets.
pub(super) fn update(path: &Path, jwt: String, state_jwt: Option<String>) -> Result<Written, Failure> {
    let (pair, _) = read_key(path)?;
    let new = credentials(pair.clone(), jwt)?;
    if state_jwt.is_some() {
        check_own(&state_file(path), &pair)?;
    }
    write(path, &new)?;
    Ok(Written { file: path.to_owned(), state: write_state(path, pair, state_jwt)? })
}

/// Refuses to overwrite a file that has another key: `ann` and `ann.creds` have the same file beside them.
fn check_own(path: &Path, pair: &KeyPair) -> Result<Option<Creds>, Failure> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(None);
    }
    let hint = "move it elsewhere, or the credentials that it is beside";
    let (present, credentials) = read_key(path).map_err(|failure| failure.hint(hint))?;
    if present.public_key() == pair.public_key() {
        return Ok(credentials);
    }
    let message = format!("file `{}` has another key, and is not overwritten", path.display());
    Err(Failure::new(Exit::Conflict, ErrorCode::Conflict, message).hint(hint))
}

/// The file beside a credentials file with which the same user reads the buckets of the state: `ann.state.creds`.
pub(super) fn state_file(path: &Path) -> PathBuf {
    // The key of an interrupted command is beside the file that it was to write.
    let path = if path.extension().is_some_and(|extension| extension == "partial") {
        path.with_extension("")
    } else {
        path.to_owned()
    };
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("creds").to_owned();
    path.with_extension(format!("{STATE}.{extension}"))
}

/// Writes the file that reads the buckets, if there is a JWT for it. Returns it.
fn write_state(path: &Path, pair: KeyPair, jwt: Option<String>) -> Result<Option<PathBuf>, Failure> {
    let Some(jwt) = jwt else { return Ok(None) };
    let path = state_file(path);
    write_credentials(&path, pair, jwt)?;
    Ok(Some(path))
}

/// Replaces the JWT by the one in another file; `-` is stdin. If there is a second one, it is for the file that reads
/// the buckets. Returns the new credentials, and the files.
pub(super) fn update_from(path: &Path, jwt: &Path) -> Result<(Creds, Written), Failure> {
    let (pair, present) = read_key(path)?;
    let text = if jwt == Path::new("-") {
        files::read_at_most(io::stdin().lock(), LENGTH_MAX)
    } else {
        files::open_regular(jwt).and_then(|file| files::read_at_most(file, LENGTH_MAX))
    };
    let text = text.map_err(|error| cannot_read(jwt, error.into()))?;
    let text = String::from_utf8_lossy(&text);
    let mut tokens = text.lines().map(str::trim).filter(|line| line.starts_with(JWT));
    let token = tokens.next().ok_or_else(|| {
        let message = format!("`{}` has no JWT", jwt.display());
        Failure::new(Exit::Usage, ErrorCode::ValidationFailed, message)
    })?;
    let new = credentials(pair.clone(), token.to_owned())?;
    if let Some(present) = present {
        check_successor(&present, &new)?;
    }
    let state = tokens.next().map(|token| credentials(pair.clone(), token.to_owned())).transpose()?;
    if let Some(state) = &state
        && let Some(present) = check_own(&state_file(path), &pair)?
    {
        check_successor(&present, state)?;
    }
    write(path, &new)?;
    let state = state.map(|state| write(&state_file(path), &state).map(|()| state_file(path))).transpose()?;
    Ok((new, Written { file: path.to_owned(), state }))
}

/// Refuses the JWT of another control plane, and one that the present one has replaced: both would be refused.
fn check_successor(present: &Creds, new: &Creds) -> Result<(), Failure> {
    let (present, new) = (present.claims(), new.claims());
    let refused = |message: &str| Err(Failure::new(Exit::Conflict, ErrorCode::Conflict, message));
    if present.body.issuer_account != new.body.issuer_account {
        return refused("the JWT was issued by another control plane than the one in the file");
    }
    if new.issued_at < present.issued_at {
        return refused("the JWT is older than the one in the file, and revoked");
    }
    Ok(())
}

/// Reads the private key in a file, and the complete credentials if it has them.
fn read_key(path: &Path) -> Result<(KeyPair, Option<Creds>), Failure> {
    let content = Zeroizing::new(files::read_private(path, LENGTH_MAX).map_err(|error| cannot_read(path, error))?);
    let text = std::str::from_utf8(&content).unwrap_or_default();
    let seed = text.lines().map(str::trim).find(|line| line.starts_with(SEED));
    let pair = seed.map(KeyPair::from_seed).and_then(Result::ok).ok_or_else(|| {
        let message = format!("`{}` has no private key of a user", path.display());
        Failure::new(Exit::Usage, ErrorCode::ValidationFailed, message)
    })?;
    Ok((pair, Creds::parse(text).ok()))
}

fn write_credentials(path: &Path, pair: KeyPair, jwt: String) -> Result<(), Failure> {
    write(path, &credentials(pair, jwt)?)
}

fn write(path: &Path, credentials: &Creds) -> Result<(), Failure> {
    files::replace(path, credentials.render().as_bytes()).map_err(|error| cannot_write(path, &error))
}

fn credentials(pair: KeyPair, jwt: String) -> Result<Creds, Failure> {
    let own = pair.public_key().to_string();
    Creds::new(jwt, pair).map_err(|error| match error {
        CredsFormatError::OtherKey => {
            let message = format!("the JWT is not for the key in the file, `{own}`");
            Failure::new(Exit::Conflict, ErrorCode::Conflict, message)
        }
        CredsFormatError::Binary
        | CredsFormatError::Missing(_)
        | CredsFormatError::Jwt(_)
        | CredsFormatError::Seed(_) => {
            let message = format!("the JWT cannot be used: {}", crate::failure::causes(&error));
            Failure::new(Exit::Usage, ErrorCode::ValidationFailed, message)
        }
    })
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
