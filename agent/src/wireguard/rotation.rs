//! `otherix-agent rotate-key`: writes the next key, and waits until the agent has made it the one in use.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::keys::{self, KeyFileError};
use crate::identity;
use otherix_mesh::key::WgPublicKey;

/// How often it is looked whether it is done.
const LOOK: Duration = Duration::from_millis(20);

/// Why the key is not another.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// No agent ever had this folder.
    #[error("`{}` is not the state folder of an agent", .0.display())]
    NoState(PathBuf),
    /// The node has no key yet.
    #[error("this node takes no part in the mesh: there is no key in `{}`", .0.display())]
    NoKey(PathBuf),
    /// A key cannot be read or written.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The agent does not take it up.
    #[error(
        "the new key is not in use after {} s: the agent takes it up when it runs and reaches the control plane; \
        run this again to wait for it", .0.as_secs()
    )]
    Waiting(Duration),
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The key that was in use.
    pub before: WgPublicKey,
    /// The key that is.
    pub now: WgPublicKey,
}

/// Has the node of this state folder use a new key. A rotation that is under way is gone on with.
///
/// # Errors
/// [`RotationError`]; with [`RotationError::Waiting`] the rotation goes on.
pub fn rotate(state: &Path, patience: Duration) -> Result<Rotated, RotationError> {
    if !identity::exists(state) {
        return Err(RotationError::NoState(state.to_owned()));
    }
    let before = keys::public_in_use(state)?.ok_or_else(|| RotationError::NoKey(state.to_owned()))?;
    let now = keys::write_next(state)?;
    let until = Instant::now() + patience;
    while keys::public_in_use(state)? != Some(now) {
        if Instant::now() >= until {
            return Err(RotationError::Waiting(patience));
        }
        std::thread::sleep(LOOK);
    }
    Ok(Rotated { before, now })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_agent_the_next_key_waits_for_it() {
        let folder = otherix_testkit::tempdir().unwrap();
        let rotate = || super::rotate(folder.path(), Duration::ZERO).unwrap_err();
        assert!(matches!(rotate(), RotationError::NoState(_)));
        std::fs::write(folder.path().join("node.json"), "{}").unwrap();
        assert!(matches!(rotate(), RotationError::NoKey(_)));
        keys::Keys::open(folder.path()).unwrap();
        assert!(matches!(rotate(), RotationError::Waiting(_)));
        assert!(folder.path().join(keys::NEXT_KEY_FILE).exists());
    }
}
