//! `join.json`: a join that is under way. It is written before the token is redeemed, so that a join that is repeated
//! after a kill has the same key, and the token is not redeemed twice.

use std::error::Error;
use std::io;
use std::path::Path;

use otherix_identity::{KeyKind, KeyPair};
use otherix_runtime::files::{self, PrivateFileError};
use otherix_schemas::value::{NodeName, UserKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::JoinError;

const FILE: &str = "join.json";

/// Longest file, in bytes.
const LENGTH_MAX: u64 = 4 << 10;

/// A join that is under way.
pub(super) struct PendingJoin {
    pub(super) name: NodeName,
    /// The node's key.
    pub(super) key: KeyPair,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PendingFile {
    /// The public key of the join token.
    token: UserKey,
    name: NodeName,
    seed: Zeroizing<String>,
}

/// Whether a join was interrupted.
pub(super) fn exists(state: &Path) -> bool {
    state.join(FILE).is_file()
}

impl PendingJoin {
    /// Returns the join that was interrupted, if it was one with this token.
    ///
    /// # Errors
    /// [`JoinError::Pending`], if there is a file that is not usable: the key in it may be registered.
    pub(super) fn read(state: &Path, token: &UserKey) -> Result<Option<Self>, JoinError> {
        let path = state.join(FILE);
        let content = match files::read_private(&path, LENGTH_MAX) {
            Ok(content) => Zeroizing::new(content),
            Err(PrivateFileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(JoinError::Pending { path, source: error.into() }),
        };
        let parsed = Self::parse(&content).map_err(|source| JoinError::Pending { path, source })?;
        Ok(Some(parsed).filter(|(found, _)| found == token).map(|(_, pending)| pending))
    }

    fn parse(content: &[u8]) -> Result<(UserKey, Self), Box<dyn Error + Send + Sync>> {
        let PendingFile { token, name, seed } = serde_json::from_slice(content)?;
        let key = KeyPair::from_seed(&seed)?;
        key.public_key().clone().of_kind(KeyKind::User)?;
        Ok((token, Self { name, key }))
    }

    pub(super) fn write(&self, state: &Path, token: &UserKey) -> io::Result<()> {
        let Self { name, key } = self;
        let file = PendingFile { token: token.clone(), name: name.clone(), seed: key.seed() };
        let content = Zeroizing::new(serde_json::to_vec(&file)?);
        files::replace(&state.join(FILE), &content)
    }
}

/// Removes the file: the join is complete, or was refused.
pub(super) fn remove(state: &Path) -> io::Result<()> {
    files::remove(&state.join(FILE))
}
