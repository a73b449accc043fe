//! The users of earlier versions: passwords, a key that all nodes shared, and an administrator without an event.

use std::path::{Path, PathBuf};

use otherix_identity::PublicKey;
use otherix_runtime::files;
use serde::{Deserialize, Serialize};

use super::error::NatsError;
use super::files::{private_folder, write_private};

/// Credentials files of earlier versions, which do not work any more.
const FILES: [&str; 5] = ["admin.json", "node.json", "otherixd.json", "otherixd-clients.json", "node.creds"];

/// The keys that an earlier version had made, and that no event is about.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FormerUsers {
    /// The first administrator, until there is an event about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    admin: Option<PublicKey>,
    /// The key that all nodes shared. Revoked: each node has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<PublicKey>,
}

impl FormerUsers {
    /// Reads which there are, and removes their files.
    ///
    /// # Errors
    /// If a file cannot be read or removed.
    pub(crate) fn load(state: &Path) -> Result<Self, NatsError> {
        let users = Self::read(state)?;
        let folder = state.join("credentials");
        private_folder(&folder)?;
        remove_files(&folder)?;
        Ok(users)
    }

    /// Reads which there are.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn read(state: &Path) -> Result<Self, NatsError> {
        let path = record(state);
        let failed = |source| NatsError::File { attempt: "read", path: path.clone(), source };
        match files::read(&path).map_err(failed)? {
            Some(content) => serde_json::from_slice(&content).map_err(|error| failed(error.into())),
            None => Ok(Self::default()),
        }
    }

    /// The first administrator, if there was no event about it yet.
    pub(crate) fn admin(&self) -> Option<&PublicKey> {
        self.admin.as_ref()
    }

    /// The key that all nodes shared.
    pub(crate) fn node(&self) -> Option<&PublicKey> {
        self.node.as_ref()
    }

    /// Forgets the first administrator, about which there is an event now.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn forget_admin(&self, state: &Path) -> Result<(), NatsError> {
        let path = record(state);
        let users = Self { admin: None, ..self.clone() };
        let failed = |source| NatsError::File { attempt: "write", path: path.clone(), source };
        let mut text = serde_json::to_vec_pretty(&users).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        write_private(&path, &text)
    }
}

/// The file with the keys of these users.
fn record(state: &Path) -> PathBuf {
    state.join("identity/first-users.json")
}

fn remove_files(folder: &Path) -> Result<(), NatsError> {
    let old: Vec<PathBuf> = FILES.map(|name| folder.join(name)).into_iter().filter(|path| path.exists()).collect();
    for path in &old {
        files::remove(path).map_err(|source| NatsError::File { attempt: "remove", path: path.clone(), source })?;
    }
    if !old.is_empty() {
        tracing::warn!(
            people = %folder.join("admin.creds").display(),
            nodes = "otherix node join-token create --name NODE",
            "passwords, and the key that all nodes shared, do not work any more: create users with this file, and have \
             each node join again with a token that names it"
        );
    }
    Ok(())
}
