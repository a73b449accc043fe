//! A user's credentials: a small JSON file that only its owner may read.

use std::io;
use std::path::{Path, PathBuf};

use otherix_runtime::files;
use otherix_schemas::value::UserId;
use serde::{Deserialize, Serialize};

/// Longest credentials file, in bytes.
const LENGTH_MAX: u64 = 64 << 10;

/// A user name and its password.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    pub user: UserId,
    /// Never printed, logged or passed on a command line.
    pub password: String,
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
    #[error("other users have access to the credentials file `{path}` (mode {mode:04o}): run `chmod 600 {path}`")]
    Shared { path: PathBuf, mode: u32 },
    #[error("the credentials file `{path}` has an empty password")]
    NoPassword { path: PathBuf },
}

impl Credentials {
    /// Loads a credentials file.
    ///
    /// # Errors
    /// If it is not a regular file, cannot be read, is not a JSON object with exactly `user` and `password`, has an
    /// empty password, or users other than its owner have access to it.
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        let failed = |source| CredentialsError::Read { path: path.to_owned(), source };
        let file = files::open_regular(path).map_err(failed)?;
        if let Some(mode) = files::shared_mode(&file).map_err(failed)? {
            return Err(CredentialsError::Shared { path: path.to_owned(), mode });
        }
        let text = files::read_at_most(file, LENGTH_MAX).map_err(failed)?;
        let credentials: Self = serde_json::from_slice(&text)
            .map_err(|source| CredentialsError::Malformed { path: path.to_owned(), source })?;
        if credentials.password.is_empty() {
            return Err(CredentialsError::NoPassword { path: path.to_owned() });
        }
        Ok(credentials)
    }
}

/// Omits the password.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
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
            assert_eq!(load(good, mode).unwrap().password, "geheim");
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
        let large = format!("{good}{}", " ".repeat(64 << 10));
        for error in [load(&large, 0o600), Credentials::load(Path::new("/dev/zero")), Credentials::load(folder.path())]
        {
            assert!(matches!(error, Err(CredentialsError::Read { .. })), "{error:?}");
        }
    }
}
