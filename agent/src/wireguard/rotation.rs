//! `otherix-agent rotate-key`: writes the next key, and waits until the agent uses it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use otherix_mesh::key::WgPublicKey;

use super::keys::{self, KeyFileError};
use crate::identity;

/// How often the key file is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error("`{}` is not the state folder of an agent", .0.display())]
    NoState(PathBuf),
    #[error("this node is not part of the mesh: there is no key in `{}`", .0.display())]
    NoKey(PathBuf),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The rotation continues.
    #[error(
        "the new key is not in use after {} s: the agent uses it once it runs and reaches the control plane; \
        repeat this command to wait for it", .0.as_secs()
    )]
    Timeout(Duration),
}

/// The public keys before and after a completed rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    pub previous: WgPublicKey,
    pub current: WgPublicKey,
}

/// Rotates the key of the node with this state folder. Continues a rotation that is under way.
///
/// # Errors
/// [`RotationError`].
pub fn rotate(state: &Path, timeout: Duration) -> Result<Rotation, RotationError> {
    if !identity::exists(state) {
        return Err(RotationError::NoState(state.to_owned()));
    }
    let previous = keys::public_in_use(state)?.ok_or_else(|| RotationError::NoKey(state.to_owned()))?;
    let next = keys::write_next(state)?;
    let deadline = Instant::now() + timeout;
    while keys::public_in_use(state)? != Some(next) {
        if Instant::now() >= deadline {
            return Err(RotationError::Timeout(timeout));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(Rotation { previous, current: next })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_key_remains_if_no_agent_runs() {
        let folder = otherix_testkit::tempdir().unwrap();
        let rotate = || super::rotate(folder.path(), Duration::ZERO).unwrap_err();
        assert!(matches!(rotate(), RotationError::NoState(_)));
        std::fs::write(folder.path().join("node.json"), "{}").unwrap();
        assert!(matches!(rotate(), RotationError::NoKey(_)));
        keys::MeshKeys::open(folder.path()).unwrap();
        assert!(matches!(rotate(), RotationError::Timeout(_)));
        assert!(folder.path().join(keys::NEXT_KEY_FILE).exists());
    }
}
