//! Checkpoints (C2SP tlog-checkpoint): a note that says size and root of a log's tree.

use std::fmt;
use std::str::FromStr;

use crate::hash::{Hash, HashFormatError};
use crate::head::{EmptyRootError, TreeHead};
use crate::note::{KeyError, KeyName, Note, NoteError, SignerKey, VerifyNoteError};
use crate::text::{decimal, has_control_character};

/// The text of a checkpoint. Its text form is that of the signed note, with the final newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: KeyName,
    head: TreeHead,
    extensions: Vec<String>,
}

/// Why a text is not a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointFormatError {
    #[error("a checkpoint must have an origin, a size, a root, and nothing but lines that are not empty")]
    Lines,
    #[error("the origin cannot be the name of a key")]
    Origin,
    #[error("the size must be a decimal number below 2^64 without leading zeros")]
    Size,
    #[error("the root is malformed")]
    Root(#[from] HashFormatError),
    #[error(transparent)]
    Empty(#[from] EmptyRootError),
}

/// Why a checkpoint cannot be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignCheckpointError {
    #[error("the name of the key is not the checkpoint's origin")]
    Origin,
    #[error("the note is not a checkpoint")]
    Format(#[from] CheckpointFormatError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Note(#[from] NoteError),
}

/// Why a checkpoint is not to be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("the key is not that of a log")]
    Key,
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error(transparent)]
    Signatures(#[from] VerifyNoteError),
    #[error("the log has not signed it")]
    NotOfLog,
    #[error("it is a checkpoint of `{found}`, not of `{expected}`")]
    OtherOrigin { expected: KeyName, found: KeyName },
    #[error("it has cosignatures of {found} known witnesses, and needs {needed}")]
    Witnesses { needed: usize, found: usize },
    #[error("the signed text is not a checkpoint")]
    Format(#[from] CheckpointFormatError),
}

impl Checkpoint {
    /// The checkpoint of a log, without extension lines. The origin identifies the log, and is the name of its key.
    pub const fn new(origin: KeyName, head: TreeHead) -> Self {
        Self { origin, head, extensions: Vec::new() }
    }

    pub const fn origin(&self) -> &KeyName {
        &self.origin
    }

    pub const fn head(&self) -> &TreeHead {
        &self.head
    }

    /// Lines after the root. What they mean is the log's business; otherix writes none.
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }

    /// Signs it with the log's key.
    ///
    /// # Errors
    /// If the key's name is not the origin, or it is a witness's key.
    pub fn sign(&self, key: &SignerKey) -> Result<Note, SignCheckpointError> {
        if *key.public_key().name() != self.origin {
            return Err(SignCheckpointError::Origin);
        }
        let mut note = Note::new(self.to_string())?;
        note.add(key.sign(&note)?)?;
        Ok(note)
    }

    /// Adds the cosignature of a witness to a note with a checkpoint, made at `timestamp`, in seconds since 1970. It
    /// states that this is the newest checkpoint of its log that the witness has seen, and consistent with all older
    /// ones: the caller must have verified that, and the log's signature.
    ///
    /// # Errors
    /// If the note is no checkpoint or has too many signatures, the key is not a witness's, or the time is too high.
    pub fn cosign(note: &mut Note, key: &SignerKey, timestamp: u64) -> Result<(), SignCheckpointError> {
        let _is_a_checkpoint: Self = note.text().parse()?;
        note.add(key.cosign(note.text(), timestamp)?)?;
        Ok(())
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointFormatError;

    fn from_str(text: &str) -> Result<Self, CheckpointFormatError> {
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointFormatError::Lines)?.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(CheckpointFormatError::Lines);
        };
        let origin = origin.parse().map_err(|_| CheckpointFormatError::Origin)?;
        let size = decimal(size).ok_or(CheckpointFormatError::Size)?;
        let root: Hash = root.parse()?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if extensions.iter().any(|line| line.is_empty() || has_control_character(line)) {
            return Err(CheckpointFormatError::Lines);
        }
        Ok(Self { origin, head: TreeHead::new(size, root)?, extensions })
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.head.size(), self.head.root())?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
