//! A user's credentials: a small JSON file that only its owner may read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use otherix_schemas::value::UserId;
use serde::{Deserialize, Serialize};

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
}

impl Credentials {
    /// Loads a credentials file.
    ///
    /// # Errors
    /// If the file cannot be read, or is not a JSON object with exactly `user` and `password`.
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        let text = fs::read(path).map_err(|source| CredentialsError::Read { path: path.to_owned(), source })?;
        serde_json::from_slice(&text).map_err(|source| CredentialsError::Malformed { path: path.to_owned(), source })
    }
}

/// Omits the password.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}
