//! A user's credentials: a file that only its owner may read. Either a `.creds` file as the tools of NATS have it, with
//! a signed JWT and the seed of a key, or, for servers with static users, a JSON file with user and password.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use otherix_identity::creds::{Creds, CredsFormatError};
use otherix_runtime::files::{self, PrivateFileError};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::UserId;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::nats::CredentialsRefusal;

/// Longest credentials file, in bytes.
const LENGTH_MAX: u64 = 64 << 10;

/// Who connects, and the proof of it.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A key and what its account's issuer has signed.
    Key(Arc<Creds>),
    /// A static user of the server's configuration.
    Password(PasswordCredentials),
}

/// Where the credentials of a connection come from. They may change from one attempt to connect to the next.
pub trait CredentialsSource: std::fmt::Debug + Send + Sync {
    /// Those for the next attempt. Also called about once a second while there is a lasting connection, which ends when
    /// they are no longer those that it was made with.
    fn current(&self) -> Credentials;

    /// Called when a server has accepted a lasting connection.
    fn accepted(&self, _credentials: &Credentials) {}

    /// Called when a server refuses them, or does so from now on.
    fn refused(&self, _credentials: &Credentials) {}
}

/// The same for every attempt.
impl CredentialsSource for Credentials {
    fn current(&self) -> Credentials {
        self.clone()
    }
}

/// A user name and its password.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasswordCredentials {
    pub user: UserId,
    /// Never printed, logged or passed on a command line.
    pub password: String,
}

/// What `CONNECT` has of the credentials.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Authentication {
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<String>,
    /// The signature of the server's nonce.
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<String>,
}

/// Credentials could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot read the credentials file `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is not a credentials file")]
    Malformed {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{path}` is not a credentials file")]
    MalformedKey {
        path: PathBuf,
        #[source]
        source: CredsFormatError,
    },
    #[error("other users have access to the credentials file `{path}` (mode {mode:04o}): run `chmod 600 {path}`")]
    Shared { path: PathBuf, mode: u32 },
    #[error("the credentials file `{path}` has an empty password")]
    NoPassword { path: PathBuf },
}

impl Credentials {
    /// Loads a credentials file of either kind.
    ///
    /// # Errors
    /// If it is not a regular file of at most 64 KiB, cannot be read, is malformed, has an empty password, or users
    /// other than its owner have access to it.
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        let content = files::read_private(path, LENGTH_MAX).map_err(|error| match error {
            PrivateFileError::Io(source) => CredentialsError::Read { path: path.to_owned(), source },
            PrivateFileError::Shared { mode } => CredentialsError::Shared { path: path.to_owned(), mode },
        });
        let content = Zeroizing::new(content?);
        if content.trim_ascii_start().starts_with(b"{") {
            return PasswordCredentials::parse(&content, path).map(Self::Password);
        }
        let malformed = |source| CredentialsError::MalformedKey { path: path.to_owned(), source };
        let text = std::str::from_utf8(&content).map_err(|_| malformed(CredsFormatError::Binary))?;
        Ok(Self::Key(Arc::new(Creds::parse(text).map_err(malformed)?)))
    }

    /// Returns those of a static user.
    pub fn password(user: UserId, password: impl Into<String>) -> Self {
        Self::Password(PasswordCredentials { user, password: password.into() })
    }

    /// The user as the server attests it: its public key, or its name.
    pub fn user(&self) -> &UserId {
        match self {
            Self::Key(creds) => creds.user(),
            Self::Password(PasswordCredentials { user, .. }) => user,
        }
    }

    /// The role that the issuer has given to the user, where the credentials name one.
    pub fn role(&self) -> Option<&str> {
        match self {
            Self::Key(creds) => creds.role(),
            Self::Password(_) => None,
        }
    }

    /// When they expire; `None` if never.
    pub fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Self::Key(creds) => {
                let seconds = i64::try_from(creds.expires_at()?).ok()?;
                Timestamp::from_unix_micros(seconds.checked_mul(1_000_000)?).ok()
            }
            Self::Password(_) => None,
        }
    }

    /// Whether a server cannot tell the two apart.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Key(one), Self::Key(other)) => one.jwt() == other.jwt(),
            (Self::Password(one), Self::Password(other)) => one.user == other.user && one.password == other.password,
            (Self::Key(_), Self::Password(_)) | (Self::Password(_), Self::Key(_)) => false,
        }
    }

    /// Whether the proof is a password.
    pub(crate) fn is_password(&self) -> bool {
        matches!(self, Self::Password(_))
    }

    /// Proves to a server who connects; `nonce` is what the server asks to be signed.
    ///
    /// # Errors
    /// If the server asks for no signature and the credentials are a key.
    pub(crate) fn authenticate(&self, nonce: Option<&str>) -> Result<Authentication, CredentialsRefusal> {
        match self {
            Self::Key(creds) => {
                let nonce = nonce.ok_or(CredentialsRefusal::NoNonce)?;
                let (jwt, sig) = (Some(creds.jwt().to_owned()), Some(creds.sign_nonce(nonce)));
                Ok(Authentication { jwt, sig, ..Authentication::default() })
            }
            Self::Password(PasswordCredentials { user, password }) => {
                let (user, pass) = (Some(user.to_string()), Some(password.clone()));
                Ok(Authentication { user, pass, ..Authentication::default() })
            }
        }
    }
}

impl PasswordCredentials {
    fn parse(content: &[u8], path: &Path) -> Result<Self, CredentialsError> {
        let credentials: Self = serde_json::from_slice(content)
            .map_err(|source| CredentialsError::Malformed { path: path.to_owned(), source })?;
        if credentials.password.is_empty() {
            return Err(CredentialsError::NoPassword { path: path.to_owned() });
        }
        Ok(credentials)
    }
}

/// Omits the password.
impl std::fmt::Debug for PasswordCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PasswordCredentials").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_private_regular_files_with_a_password_are_used() {
        let folder = otherix_testkit::tempdir().unwrap();
        let path = folder.path().join("admin.json");
        let load = |content: &str, mode: u32| {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Credentials::load(&path)
        };
        let good = r#"{"user": "admin", "password": "geheim"}"#;
        for mode in [0o600, 0o400, 0o700] {
            let Credentials::Password(loaded) = load(good, mode).unwrap() else { panic!("it has a password") };
            assert_eq!((loaded.user.as_str(), loaded.password.as_str()), ("admin", "geheim"));
        }
        for mode in [0o640, 0o604, 0o644, 0o620, 0o777] {
            let error = load(good, mode).unwrap_err().to_string();
            assert!(error.contains(&format!("(mode {mode:04o}): run `chmod 600 ")), "{error}");
        }
        assert!(matches!(
            load(r#"{"user": "admin", "password": ""}"#, 0o600),
            Err(CredentialsError::NoPassword { .. })
        ));
        assert!(matches!(load("{}", 0o600), Err(CredentialsError::Malformed { .. })));
        for text in ["", "-----BEGIN NATS USER JWT-----\nnonsense\n------END NATS USER JWT------", "admin geheim"] {
            let error = load(text, 0o600).unwrap_err();
            assert!(matches!(error, CredentialsError::MalformedKey { .. }), "{error:?}");
            assert!(!format!("{error:?}").contains("geheim"));
        }
        let large = format!("{good}{}", " ".repeat(64 << 10));
        for error in [load(&large, 0o600), Credentials::load(Path::new("/dev/zero")), Credentials::load(folder.path())]
        {
            assert!(matches!(error, Err(CredentialsError::Read { .. })), "{error:?}");
        }
    }
}
