//! `join.json`: a join that is under way. It is written before the token is redeemed, so that a join that is repeated
//! after a kill has the same key, and the token is not redeemed twice.

use std::io;
use std::path::Path;

use otherix_identity::{KeyKind, KeyPair};
use otherix_runtime::files;
use otherix_schemas::value::{NodeName, UserKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

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
    /// Returns the join that was interrupted, if it was one with this token. A file that is not usable is none.
    pub(super) fn read(state: &Path, token: &UserKey) -> Option<Self> {
        let content = Zeroizing::new(files::read_private(&state.join(FILE), LENGTH_MAX).ok()?);
        let PendingFile { token: found, name, seed } = serde_json::from_slice(&content).ok()?;
        let key = KeyPair::from_seed(&seed).ok().filter(|key| key.public_key().kind() == KeyKind::User)?;
        (found == *token).then_some(Self { name, key })
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
