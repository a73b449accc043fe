//! The file format `.tlog-proof` (C2SP tlog-proof): the proof that one entry is in a log, which anybody can verify with
//! nothing but the log's public key.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::checkpoint::CheckpointError;
use crate::hash::Hash;
use crate::note::{NOTE_MAX, Note, NoteError};
use crate::policy::{Policy, VerifiedCheckpoint};
use crate::proof::{INCLUSION_HASHES_MAX, InclusionProof, ProofError};
use crate::text::decimal;

/// The first line, and the version of the format.
const HEADER: &str = "c2sp.org/tlog-proof@v1";
const EXTRA: &str = "extra ";
const INDEX: &str = "index ";

/// The longest extra data, in bytes: the longest message on NATS.
pub const EXTRA_MAX: usize = 1 << 20;

/// The longest proof, in bytes: the checkpoint, extra data in base64, and 5,000 for all other lines.
pub const ENTRY_PROOF_MAX: usize = NOTE_MAX + EXTRA_MAX.div_ceil(3) * 4 + 5_000;

/// An entry's index and proof of inclusion, and the signed checkpoint of the tree. Nothing in it is to be believed
/// before it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryProof {
    /// The index of the entry's leaf.
    pub index: u64,
    /// The path from the leaf to the root.
    pub inclusion: InclusionProof,
    /// The checkpoint.
    pub checkpoint: Note,
    /// Data of the application, which no signature covers. otherix puts the entry itself here.
    pub extra: Option<Vec<u8>>,
}

/// Why bytes are not a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryProofFormatError {
    #[error("it is longer than {ENTRY_PROOF_MAX} bytes")]
    Length,
    #[error("it is not UTF-8")]
    Encoding,
    #[error("its first line must be `{HEADER}`")]
    Header,
    #[error("its extra data must be at most {EXTRA_MAX} bytes in canonical base64")]
    Extra,
    #[error("it must have a line `index` with a decimal number below 2^64 without leading zeros")]
    Index,
    #[error("its hashes must be at most {INCLUSION_HASHES_MAX} lines of canonical base64, before an empty line")]
    Hashes,
    #[error("its checkpoint is no signed note")]
    Checkpoint(#[from] NoteError),
}

/// Why a proof does not prove that an entry is in a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryProofError {
    #[error("its checkpoint cannot be believed")]
    Checkpoint(#[from] CheckpointError),
    #[error("the entry is not the one in the log")]
    Inclusion(#[from] ProofError),
    #[error("the proof does not contain the entry")]
    NoEntry,
}

impl EntryProof {
    /// Parses a proof.
    ///
    /// # Errors
    /// If it is not exactly in the format, or too large.
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryProofFormatError> {
        if bytes.len() > ENTRY_PROOF_MAX {
            return Err(EntryProofFormatError::Length);
        }
        let text = str::from_utf8(bytes).map_err(|_| EntryProofFormatError::Encoding)?;
        let (proof, checkpoint) = text.split_once("\n\n").ok_or(EntryProofFormatError::Hashes)?;
        let mut lines = proof.split('\n');
        if lines.next() != Some(HEADER) {
            return Err(EntryProofFormatError::Header);
        }
        let mut line = lines.next().ok_or(EntryProofFormatError::Index)?;
        let mut extra = None;
        if let Some(encoded) = line.strip_prefix(EXTRA) {
            let decoded = BASE64_STANDARD.decode(encoded).ok().filter(|extra| extra.len() <= EXTRA_MAX);
            extra = Some(decoded.ok_or(EntryProofFormatError::Extra)?);
            line = lines.next().ok_or(EntryProofFormatError::Index)?;
        }
        let index = line.strip_prefix(INDEX).and_then(decimal).ok_or(EntryProofFormatError::Index)?;
        let hashes = lines.take(INCLUSION_HASHES_MAX + 1).map(str::parse).collect::<Result<Vec<Hash>, _>>();
        let inclusion = hashes.ok().and_then(InclusionProof::new).ok_or(EntryProofFormatError::Hashes)?;
        Ok(Self { index, inclusion, checkpoint: Note::parse(checkpoint.as_bytes())?, extra })
    }

    /// Verifies that the leaf with this hash is in the log, at [`Self::index`].
    ///
    /// # Errors
    /// If the checkpoint is not to be believed, or the leaf not in its tree at this index.
    pub fn verify(&self, leaf: &Hash, policy: &Policy) -> Result<VerifiedCheckpoint, EntryProofError> {
        let checkpoint = policy.verify_note(&self.checkpoint)?;
        self.inclusion.verify(leaf, self.index, checkpoint.checkpoint().head())?;
        Ok(checkpoint)
    }

    /// Verifies that the extra data is an entry of the log, at [`Self::index`].
    ///
    /// # Errors
    /// As [`Self::verify`], and if there is no extra data.
    pub fn verify_extra(&self, policy: &Policy) -> Result<VerifiedCheckpoint, EntryProofError> {
        let entry = self.extra.as_ref().ok_or(EntryProofError::NoEntry)?;
        self.verify(&Hash::of_leaf(entry), policy)
    }
}

impl fmt::Display for EntryProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "{EXTRA}{}", BASE64_STANDARD.encode(extra))?;
        }
        writeln!(f, "{INDEX}{}", self.index)?;
        self.inclusion.hashes().iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}
