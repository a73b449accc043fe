//! The key that signs the decisions: `identity/decision-key.json` in the state folder, readable by its owner only. It
//! is generated at the first start. Nodes trust the first key they receive, and its successors.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use otherix_commands::service::DecisionSigning;
use otherix_runtime::files;
use otherix_schemas::decision_chain::{DecisionKey, DecisionSigner, KeyRotation};
use otherix_schemas::id::ClusterId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::{Zeroize, Zeroizing};

use crate::args::StateFolder;
use crate::error::BoxError;
use crate::event_store;
use crate::nats::private_folder;

/// Rotations that are kept: a node that missed more has to be told the key by an operator.
const ROTATIONS_KEPT: usize = 64;

/// The content of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    /// 32 bytes in base64.
    seed: String,
    /// Oldest first; the last one leads to this key.
    rotations: Vec<KeyRotation>,
}

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecisionKeyFileError {
    #[error("cannot use `{path}`")]
    File { path: PathBuf, source: io::Error },
    /// The file is kept: with another key, no node would accept a decision.
    #[error("`{path}` does not contain a decision key: restore it from a backup")]
    Malformed { path: PathBuf },
}

/// Loads the key. Generates one if there is none.
///
/// # Errors
/// If the file cannot be read or written, or is malformed.
pub(crate) fn load_or_create(state: &StateFolder) -> Result<DecisionSigning, BoxError> {
    private_folder(&state.identity())?;
    let path = state.decision_key();
    let file = |source| DecisionKeyFileError::File { path: path.clone(), source };
    let (signer, rotations) = match files::read(&path).map_err(file)? {
        Some(text) => decode(&text).ok_or_else(|| DecisionKeyFileError::Malformed { path: path.clone() })?,
        None => {
            let signer = generate().map_err(file)?;
            write(state, &signer, &[])?;
            tracing::warn!(
                key = %signer.public(),
                "generated the key that signs decisions: nodes that trust an earlier key will refuse it"
            );
            (signer, Vec::new())
        }
    };
    Ok(DecisionSigning { signer: Arc::new(signer), rotations: rotations.into() })
}

/// Replaces the key by a new one, which the old one signs. The control plane must be stopped.
///
/// # Errors
/// If there is no key, the control plane is running, or the file cannot be written.
pub(crate) async fn rotate(state: &StateFolder) -> Result<(DecisionKey, DecisionKey), BoxError> {
    for path in [state.journal(), state.decision_key()] {
        if !path.exists() {
            let source = io::ErrorKind::NotFound.into();
            return Err(DecisionKeyFileError::File { path, source }.into());
        }
    }
    // Locks the journal: a running control plane would sign with the old key until it is restarted.
    let journal = event_store::open(state, ClusterId::new(Uuid::now_v7())).await?;
    let DecisionSigning { signer: old, rotations } = load_or_create(state)?;
    let path = state.decision_key();
    let new = generate().map_err(|source| DecisionKeyFileError::File { path, source })?;
    let rotation = old.succeeded_by(new.public());
    let first = (rotations.len() + 1).saturating_sub(ROTATIONS_KEPT);
    let rotations: Vec<_> = rotations.iter().skip(first).cloned().chain([rotation]).collect();
    write(state, &new, &rotations)?;
    otherix_commands::store::EventStore::close(&journal).await;
    Ok((old.public(), new.public()))
}

fn generate() -> io::Result<DecisionSigner> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(io::Error::other)?;
    Ok(DecisionSigner::from_seed(&seed))
}

fn decode(text: &[u8]) -> Option<(DecisionSigner, Vec<KeyRotation>)> {
    let KeyFile { seed, rotations } = serde_json::from_slice(text).ok()?;
    let seed = Zeroizing::new(STANDARD.decode(Zeroizing::new(seed).as_bytes()).ok()?);
    let seed = Zeroizing::new(<[u8; 32]>::try_from(seed.as_slice()).ok()?);
    Some((DecisionSigner::from_seed(&seed), rotations))
}

fn write(state: &StateFolder, signer: &DecisionSigner, rotations: &[KeyRotation]) -> Result<(), BoxError> {
    let mut file = KeyFile { seed: STANDARD.encode(*signer.seed()), rotations: rotations.to_vec() };
    let text = serde_json::to_vec(&file);
    file.seed.zeroize();
    let mut text = Zeroizing::new(text?);
    text.push(b'\n');
    let path = state.decision_key();
    files::replace(&path, &text).map_err(|source| DecisionKeyFileError::File { path, source })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn the_key_is_generated_once_and_rotated_on_request() {
        let folder = otherix_testkit::tempdir().unwrap();
        let state = StateFolder { folder: folder.path().to_owned() };
        rotate(&state).await.unwrap_err();
        assert!(!state.journal().exists(), "nothing is made in a folder that is no control plane's");
        let first = load_or_create(&state).unwrap();
        let journal = event_store::open(&state, ClusterId::new(Uuid::now_v7())).await.unwrap();
        otherix_commands::store::EventStore::close(&journal).await;
        drop(journal);
        let again = load_or_create(&state).unwrap();
        assert_eq!(first.signer.public(), again.signer.public());
        let mode = fs::metadata(state.decision_key()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (old, new) = rotate(&state).await.unwrap();
        assert_eq!(old, first.signer.public());
        let rotated = load_or_create(&state).unwrap();
        assert_eq!(rotated.signer.public(), new);
        assert_eq!(rotated.rotations.iter().map(|it| (it.old, it.verify().unwrap())).collect::<Vec<_>>(), [(old, new)]);
        // A damaged file is kept.
        fs::write(state.decision_key(), "{}").unwrap();
        load_or_create(&state).unwrap_err();
        assert_eq!(fs::read(state.decision_key()).unwrap(), b"{}");
    }
}
