//! Which signatures a checkpoint needs to be believed.

use std::collections::BTreeMap;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::note::{Note, SignatureKind, VerifierKey};

/// The keys that a reader trusts. They come from outside, never out of what is verified.
#[derive(Clone, Debug)]
pub struct Policy {
    log: VerifierKey,
    witnesses: Vec<VerifierKey>,
    quorum: usize,
}

/// A checkpoint that the log has signed, and enough witnesses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedCheckpoint {
    checkpoint: Checkpoint,
    cosignatures: Vec<Cosignature>,
}

/// What a witness has stated about a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosignature {
    /// The witness.
    pub witness: VerifierKey,
    /// When it has seen the checkpoint, in seconds since 1970, as it says.
    pub timestamp: u64,
}

impl Policy {
    /// The log's signature is enough.
    ///
    /// # Errors
    /// [`CheckpointError::Key`], if the key is a witness's.
    pub fn of_log(log: VerifierKey) -> Result<Self, CheckpointError> {
        match log.kind() {
            SignatureKind::Note => Ok(Self { log, witnesses: Vec::new(), quorum: 0 }),
            SignatureKind::Cosignature => Err(CheckpointError::Key),
        }
    }

    /// Also cosignatures of `quorum` of these witnesses are needed. Signatures of the others count as unknown, except
    /// that a wrong one is an error.
    #[must_use]
    pub fn with_witnesses(self, witnesses: Vec<VerifierKey>, quorum: usize) -> Self {
        Self { witnesses, quorum, ..self }
    }

    pub const fn log(&self) -> &VerifierKey {
        &self.log
    }

    /// Verifies a checkpoint as it is stored or sent.
    ///
    /// # Errors
    /// If it is malformed, of another log, or lacks a signature.
    pub fn verify(&self, checkpoint: &[u8]) -> Result<VerifiedCheckpoint, CheckpointError> {
        self.verify_note(&Note::parse(checkpoint)?)
    }

    /// Verifies a checkpoint.
    ///
    /// # Errors
    /// If it is malformed, of another log, or lacks a signature.
    pub fn verify_note(&self, note: &Note) -> Result<VerifiedCheckpoint, CheckpointError> {
        let mut known = self.witnesses.clone();
        known.push(self.log.clone());
        let signatures = note.verify(&known)?;
        if !signatures.iter().any(|signature| signature.key == self.log) {
            return Err(CheckpointError::NotOfLog);
        }
        let checkpoint: Checkpoint = note.text().parse()?;
        if checkpoint.origin() != self.log.name() {
            let (expected, found) = (self.log.name().clone(), checkpoint.origin().clone());
            return Err(CheckpointError::OtherOrigin { expected, found });
        }
        // A key counts once, whatever its names.
        let mut cosignatures = BTreeMap::new();
        for signature in signatures {
            if let Some(timestamp) = signature.timestamp {
                let cosignature = Cosignature { witness: signature.key, timestamp };
                cosignatures.insert(*cosignature.witness.as_bytes(), cosignature);
            }
        }
        let (needed, found) = (self.quorum, cosignatures.len());
        if found < needed {
            return Err(CheckpointError::Witnesses { needed, found });
        }
        Ok(VerifiedCheckpoint { checkpoint, cosignatures: cosignatures.into_values().collect() })
    }
}

impl VerifiedCheckpoint {
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The cosignatures of known witnesses, one of each.
    pub fn cosignatures(&self) -> &[Cosignature] {
        &self.cosignatures
    }
}
