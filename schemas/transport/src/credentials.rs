//! A user's credentials: a small JSON file that only its owner may read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use otherix_schemas::value::UserId;
use serde::{Deserialize, Serialize};

/// Who connects, and the proof of it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The user.
    pub user: UserId,
    /// The proof. It is never printed, logged or passed on a command line.
    pub password: String,
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("cannot read the credentials `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is something else.
    #[error("`{path}` is not a credentials file")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
}

impl Credentials {
    /// Reads a credentials file.
    ///
    /// # Errors
    /// When the file cannot be read, or is something else.
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        let text = fs::read(path).map_err(|source| CredentialsError::Read { path: path.to_owned(), source })?;
        serde_json::from_slice(&text).map_err(|source| CredentialsError::Malformed { path: path.to_owned(), source })
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}
