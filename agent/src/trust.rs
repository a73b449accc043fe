//! The key by which this node knows its control plane: that of the join token, kept in `decision-key.json` in the state
//! folder, and the successors that it has signed. Without the file, nobody is followed: anybody could answer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use otherix_runtime::files;
use otherix_schemas::decision_chain::{DecisionHead, DecisionKey, HeadError, KeyRotation, Nonce, SignedHead};
use otherix_schemas::node::HeartbeatAnswer;
use serde::{Deserialize, Serialize};

const FILE: &str = "decision-key.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrustFile {
    decision_key: DecisionKey,
}

/// The answer to a heartbeat is not one of this node's control plane.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("the control plane does not sign its decisions: it is older than this agent; upgrade otherixd first")]
    Unsigned,
    #[error(
        "the decision key is {found}, and this node follows {known}: if the control plane was replaced on purpose, \
         stop the agent, remove `{path}`, and run `otherix-agent join` with a token that names this node; otherwise \
         somebody else answers in its place"
    )]
    OtherKey { found: DecisionKey, known: DecisionKey, path: PathBuf },
    #[error(
        "there is no `{0}`, by which this node knows its control plane: it keeps its devices, and follows nobody. \
         Create a token with `otherix node join-token create --name NODE`, stop the agent, run `otherix-agent join` \
         with it, and start the agent"
    )]
    NoKey(PathBuf),
    #[error("the head of the decisions is not signed by the control plane with key {key}: somebody has altered it")]
    Head { key: DecisionKey, source: HeadError },
    #[error("cannot use `{path}`: decisions are not carried out")]
    File { path: PathBuf, source: io::Error },
}

/// The key that is relied on. Clones share it.
#[derive(Clone, Debug)]
pub struct Trust {
    path: PathBuf,
    key: Arc<Mutex<Option<DecisionKey>>>,
}

impl Trust {
    /// Loads the key, if there is one.
    ///
    /// # Errors
    /// If the file cannot be read, or has no key.
    pub fn load(state: &Path) -> Result<Self, TrustError> {
        let path = state.join(FILE);
        let failed = |source| TrustError::File { path: path.clone(), source };
        let text = files::read(&path).map_err(failed)?;
        let file: Option<TrustFile> =
            text.map(|text| serde_json::from_slice(&text)).transpose().map_err(|error| failed(error.into()))?;
        Ok(Self { key: Arc::new(Mutex::new(file.map(|file| file.decision_key))), path })
    }

    /// The key; `None` on a machine that has not joined.
    pub fn key(&self) -> Option<DecisionKey> {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a live head if it is signed with the key.
    pub fn live_head(&self, signed: &SignedHead) -> Option<DecisionHead> {
        signed.verify(&self.key()?, None).ok()
    }

    /// Returns the head in the answer to a heartbeat with this nonce. Relies on a key that the known key has signed.
    ///
    /// # Errors
    /// [`TrustError`]; nothing is relied on then that was not before.
    pub fn accept(&self, answer: &HeartbeatAnswer, nonce: Nonce) -> Result<DecisionHead, TrustError> {
        let (Some(signed), Some(told)) = (&answer.signed_head, answer.decision_key) else {
            return Err(TrustError::Unsigned);
        };
        let known = self.key().ok_or_else(|| TrustError::NoKey(self.path.clone()))?;
        if !succeeds(known, told, &answer.key_rotations) {
            return Err(TrustError::OtherKey { found: told, known, path: self.path.clone() });
        }
        let head = signed.verify(&told, Some(nonce)).map_err(|source| TrustError::Head { key: told, source })?;
        if known != told {
            self.keep(told)?;
        }
        Ok(head)
    }

    /// Relies on this key from now on.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn keep(&self, key: DecisionKey) -> Result<(), TrustError> {
        let failed = |source| TrustError::File { path: self.path.clone(), source };
        let text = serde_json::to_vec(&TrustFile { decision_key: key }).map_err(|error| failed(error.into()))?;
        files::replace(&self.path, &text).map_err(failed)?;
        tracing::info!(%key, "relying on the control plane's decision key");
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
        Ok(())
    }
}

/// Whether the rotations lead from the known key to the one that is told.
fn succeeds(known: DecisionKey, told: DecisionKey, rotations: &[KeyRotation]) -> bool {
    let mut current = known;
    // Oldest first: each is used once.
    for rotation in rotations {
        if current != told && rotation.old == current {
            match rotation.verify() {
                Ok(new) => current = new,
                Err(_) => return false,
            }
        }
    }
    current == told
}

#[cfg(test)]
mod tests {
    use otherix_schemas::decision_chain::{ChainDigest, DecisionSigner};
    use otherix_schemas::id::ClusterId;
    use otherix_schemas::position::{Epoch, Position};
    use uuid::Uuid;

    use super::*;

    fn signer(number: u8) -> DecisionSigner {
        DecisionSigner::from_seed(&[number; 32])
    }

    const NONCE: Nonce = Nonce::new([5; 16]);

    fn answer(by: &DecisionSigner, told: &DecisionSigner, key_rotations: Vec<KeyRotation>) -> HeartbeatAnswer {
        let head = DecisionHead {
            cluster: ClusterId::new(Uuid::nil()),
            epoch: Epoch::FIRST,
            position: Position::new(3),
            digest: ChainDigest::START,
        };
        HeartbeatAnswer {
            decision_head: head.position,
            other_agent: None,
            set_back: None,
            signed_head: Some(head.sign(by, Some(NONCE))),
            decision_key: Some(told.public()),
            key_rotations,
            checkpoint: None,
            log_key: None,
            log_contradiction: None,
        }
    }

    #[test]
    fn no_key_is_accepted_but_that_of_the_token() {
        let folder = otherix_testkit::tempdir().unwrap();
        let trust = Trust::load(folder.path()).unwrap();
        let first = trust.accept(&answer(&signer(1), &signer(1), vec![]), NONCE);
        assert!(matches!(first, Err(TrustError::NoKey(_))), "{first:?}");
        assert_eq!((trust.key(), folder.path().join(FILE).exists()), (None, false));
        trust.keep(signer(1).public()).unwrap();
        assert!(matches!(trust.accept(&answer(&signer(2), &signer(1), vec![]), NONCE), Err(TrustError::Head { .. })));
        assert_eq!(trust.accept(&answer(&signer(1), &signer(1), vec![]), NONCE).unwrap().position, Position::new(3));
        let again = Trust::load(folder.path()).unwrap();
        assert_eq!(again.key(), Some(signer(1).public()));
        let refused = again.accept(&answer(&signer(2), &signer(2), vec![]), NONCE);
        assert!(matches!(refused, Err(TrustError::OtherKey { .. })), "{refused:?}");
        let earlier = again.accept(&answer(&signer(1), &signer(1), vec![]), Nonce::new([6; 16]));
        assert!(matches!(earlier, Err(TrustError::Head { .. })), "the answer to another heartbeat: {earlier:?}");
        let unsigned = HeartbeatAnswer { signed_head: None, ..answer(&signer(1), &signer(1), vec![]) };
        assert!(matches!(again.accept(&unsigned, NONCE), Err(TrustError::Unsigned)));
    }

    #[test]
    fn successors_are_accepted_if_each_is_signed() {
        let folder = otherix_testkit::tempdir().unwrap();
        let trust = Trust::load(folder.path()).unwrap();
        trust.keep(signer(1).public()).unwrap();
        let rotations = || vec![signer(1).succeeded_by(signer(2).public()), signer(2).succeeded_by(signer(3).public())];
        let forged = vec![KeyRotation { old: signer(1).public(), ..signer(9).succeeded_by(signer(9).public()) }];
        assert!(matches!(
            trust.accept(&answer(&signer(9), &signer(9), forged), NONCE),
            Err(TrustError::OtherKey { .. })
        ));
        trust.accept(&answer(&signer(3), &signer(3), rotations()), NONCE).unwrap();
        assert_eq!(Trust::load(folder.path()).unwrap().key(), Some(signer(3).public()));
        // The keys before are no longer accepted.
        assert!(trust.accept(&answer(&signer(1), &signer(1), rotations()), NONCE).is_err());
    }

    #[test]
    fn a_damaged_file_is_no_new_beginning() {
        let folder = otherix_testkit::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "{}").unwrap();
        assert!(matches!(Trust::load(folder.path()), Err(TrustError::File { .. })));
    }
}
