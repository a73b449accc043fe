//! What a witness is sent, and whether it accepts it (C2SP tlog-witness): a newer checkpoint, with the proof that its
//! tree begins with the tree of the newest checkpoint that the witness has kept.

use std::fmt;

use crate::checkpoint::CheckpointError;
use crate::hash::{HASH_TEXT_LEN, Hash};
use crate::head::TreeHead;
use crate::note::{NOTE_MAX, Note, NoteError};
use crate::policy::{Policy, VerifiedCheckpoint};
use crate::proof::{ConsistencyProof, ProofError};
use crate::text::decimal;

const OLD: &str = "old ";

/// The most hashes of a request.
const HASHES_MAX: usize = 63;

/// The longest request, in bytes.
pub const ADD_CHECKPOINT_MAX: usize = NOTE_MAX + HASHES_MAX * (HASH_TEXT_LEN + 1) + 100;

/// A checkpoint for a witness. Nothing in it is to be believed before [`Self::accept`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size of the tree that the proof begins at.
    pub old: u64,
    /// The proof from there.
    pub consistency: ConsistencyProof,
    /// The newer checkpoint.
    pub checkpoint: Note,
}

/// Why bytes are not such a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddCheckpointFormatError {
    #[error("it is longer than {ADD_CHECKPOINT_MAX} bytes")]
    Length,
    #[error("it is not UTF-8")]
    Encoding,
    #[error("its first line must be `old` with a decimal number below 2^64 without leading zeros")]
    Old,
    #[error("its hashes must be at most {HASHES_MAX} lines of canonical base64, before an empty line")]
    Hashes,
    #[error("its checkpoint is no signed note")]
    Checkpoint(#[from] NoteError),
}

/// Why a witness does not accept a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    #[error("the checkpoint cannot be believed")]
    Checkpoint(#[from] CheckpointError),
    /// No contradiction: the log has to prove consistency from `kept`.
    #[error("the proof begins at size {found}, and the witness has kept size {kept}")]
    OtherSize { kept: u64, found: u64 },
    /// Signed by the log, and not proven to go on with what it signed before.
    #[error("the log does not prove that its tree only grew")]
    Inconsistent(#[from] ProofError),
}

impl AddCheckpoint {
    /// Parses a request.
    ///
    /// # Errors
    /// If it is not exactly in the format, or too large.
    pub fn parse(bytes: &[u8]) -> Result<Self, AddCheckpointFormatError> {
        if bytes.len() > ADD_CHECKPOINT_MAX {
            return Err(AddCheckpointFormatError::Length);
        }
        let text = str::from_utf8(bytes).map_err(|_| AddCheckpointFormatError::Encoding)?;
        let (proof, checkpoint) = text.split_once("\n\n").ok_or(AddCheckpointFormatError::Hashes)?;
        let mut lines = proof.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix(OLD)).and_then(decimal);
        let old = old.ok_or(AddCheckpointFormatError::Old)?;
        let hashes = lines.take(HASHES_MAX + 1).map(str::parse).collect::<Result<Vec<Hash>, _>>();
        let hashes = hashes.ok().filter(|hashes| hashes.len() <= HASHES_MAX);
        let consistency = hashes.and_then(ConsistencyProof::new).ok_or(AddCheckpointFormatError::Hashes)?;
        Ok(Self { old, consistency, checkpoint: Note::parse(checkpoint.as_bytes())? })
    }

    /// Decides whether a witness that has kept the tree `kept` accepts the checkpoint: then it has to store it, in the
    /// place of the one it had, before it says so or signs it.
    ///
    /// # Errors
    /// If the checkpoint is not the log's, the proof does not begin at `kept`, or it does not prove that the tree only
    /// grew.
    pub fn accept(&self, kept: &TreeHead, policy: &Policy) -> Result<VerifiedCheckpoint, WitnessError> {
        let verified = policy.verify_note(&self.checkpoint)?;
        let (kept_size, found) = (kept.size(), self.old);
        if found != kept_size {
            return Err(WitnessError::OtherSize { kept: kept_size, found });
        }
        self.consistency.verify(kept, verified.checkpoint().head())?;
        Ok(verified)
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{OLD}{}", self.old)?;
        self.consistency.hashes().iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}
