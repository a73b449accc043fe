//! The key that signs the checkpoints of the transparency log: `identity/log-key.json` in the state folder, readable by
//! its owner only. It is generated at the first start, and is the same in all epochs; the name differs.

use std::io;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use otherix_runtime::files;
use otherix_schemas::log::origin;
use otherix_tlog::{SignatureKind, SignerKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::args::StateFolder;
use crate::error::BoxError;
use crate::nats::private_folder;
use otherix_commands::config::StoreIdentity;

/// The content of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    /// 32 bytes in base64.
    seed: String,
}

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogKeyFileError {
    #[error("cannot use `{path}`")]
    File { path: PathBuf, source: io::Error },
    /// The file is kept: with another key, every node would find that the log contradicts itself.
    #[error("`{path}` does not contain the key of the log: restore it from a backup")]
    Malformed { path: PathBuf },
}

/// Loads the key of the current epoch's log. Generates one if there is none.
///
/// # Errors
/// If the file cannot be read or written, or is malformed.
pub(crate) fn load_or_create(state: &StateFolder, identity: StoreIdentity) -> Result<SignerKey, BoxError> {
    private_folder(&state.identity())?;
    let path = state.log_key();
    let file = |source| LogKeyFileError::File { path: path.clone(), source };
    let seed = match files::read(&path).map_err(file)? {
        Some(text) => decode(&Zeroizing::new(text)).ok_or_else(|| LogKeyFileError::Malformed { path: path.clone() })?,
        None => {
            let mut seed = Zeroizing::new([0; 32]);
            getrandom::fill(seed.as_mut()).map_err(io::Error::other).map_err(file)?;
            let mut content = KeyFile { seed: STANDARD.encode(*seed) };
            let text = serde_json::to_vec(&content);
            content.seed.zeroize();
            let mut text = Zeroizing::new(text?);
            text.push(b'\n');
            files::replace(&path, &text).map_err(file)?;
            tracing::info!("generated the key of the transparency log: `otherix audit key` prints its public half");
            seed
        }
    };
    let name = origin(identity.cluster, identity.epoch).parse()?;
    Ok(SignerKey::from_seed(name, SignatureKind::Note, &seed))
}

fn decode(text: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let KeyFile { seed } = serde_json::from_slice(text).ok()?;
    let seed = Zeroizing::new(STANDARD.decode(Zeroizing::new(seed).as_bytes()).ok()?);
    <[u8; 32]>::try_from(seed.as_slice()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use otherix_schemas::id::ClusterId;
    use otherix_schemas::position::Epoch;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_key_is_generated_once_and_named_after_the_epoch() {
        let folder = otherix_testkit::tempdir().unwrap();
        let state = StateFolder { folder: folder.path().to_owned() };
        let identity = |epoch| StoreIdentity { cluster: ClusterId::new(Uuid::nil()), epoch: Epoch::new(epoch) };
        let first = load_or_create(&state, identity(1)).unwrap();
        assert_eq!(fs::metadata(state.log_key()).unwrap().permissions().mode() & 0o777, 0o600);
        let again = load_or_create(&state, identity(1)).unwrap();
        assert_eq!(first.public_key(), again.public_key());
        let next = load_or_create(&state, identity(2)).unwrap();
        assert_eq!(first.public_key().as_bytes(), next.public_key().as_bytes());
        assert_eq!(next.public_key().name().as_str(), format!("otherix.dev/{}/2", Uuid::nil()));
        // A damaged file is kept.
        fs::write(state.log_key(), "{}").unwrap();
        load_or_create(&state, identity(1)).unwrap_err();
        assert_eq!(fs::read(state.log_key()).unwrap(), b"{}");
    }
}
