//! Signed notes (C2SP signed-note): a text and the signatures of it. Written canonically, parsed strictly; a note that
//! parses prints as it was.

mod key;
mod name;
mod signature;

pub use key::{KeyError, SignatureKind, SignerKey, VerifierKey};
pub use name::{KeyName, KeyNameError};
pub use signature::{NoteSignature, SignatureFormatError, TIMESTAMP_MAX, VerifiedSignature};

use std::fmt;

use crate::text::has_control_character;

/// The longest note, in bytes. As in the reference implementation.
pub const NOTE_MAX: usize = 1_000_000;

/// The most signatures that a note can have. As in the reference implementation.
pub const SIGNATURES_MAX: usize = 100;

/// A text with signatures. Nothing in it is to be believed before [`Self::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// Why bytes are not a note, or a note cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("it is longer than {NOTE_MAX} bytes")]
    Length,
    #[error("it is not UTF-8")]
    Encoding,
    #[error("it has a control character")]
    ControlCharacter,
    #[error("the text of a note must end with a newline")]
    UnfinishedText,
    #[error("no blank line separates text and signatures")]
    NoSeparator,
    #[error("it has more than {SIGNATURES_MAX} signatures")]
    TooManySignatures,
    #[error("a signature line is malformed")]
    Signature(#[from] SignatureFormatError),
}

/// Why a note is not to be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyNoteError {
    #[error("no known key has signed it")]
    Unsigned,
    #[error("a signature of `{0}` is wrong")]
    Wrong(KeyName),
}

impl Note {
    /// A note that nobody has signed yet.
    ///
    /// # Errors
    /// If the text does not end with a newline, or has other control characters.
    pub fn new(text: String) -> Result<Self, NoteError> {
        if has_control_character(&text) {
            return Err(NoteError::ControlCharacter);
        }
        if !text.ends_with('\n') {
            return Err(NoteError::UnfinishedText);
        }
        if text.len() > NOTE_MAX { Err(NoteError::Length) } else { Ok(Self { text, signatures: Vec::new() }) }
    }

    /// Parses a signed note.
    ///
    /// # Errors
    /// If it is not exactly in the format, or too large.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_MAX {
            return Err(NoteError::Length);
        }
        let note = str::from_utf8(bytes).map_err(|_| NoteError::Encoding)?;
        // The separator is the last blank line: the text may have others.
        let end = note.rfind("\n\n").ok_or(NoteError::NoSeparator)?;
        let (text, signatures) = note.split_at_checked(end + 1).ok_or(NoteError::NoSeparator)?;
        let mut parsed = Self::new(text.to_owned())?;
        let lines = signatures.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n'));
        for line in lines.ok_or(SignatureFormatError)?.split('\n') {
            parsed.add(line.parse()?)?;
        }
        Ok(parsed)
    }

    /// The text that is signed, with its final newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All signatures, also those of unknown keys.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a signature, which is not verified.
    ///
    /// # Errors
    /// If there are too many, or the note becomes too long.
    pub fn add(&mut self, signature: NoteSignature) -> Result<(), NoteError> {
        if self.signatures.len() >= SIGNATURES_MAX {
            return Err(NoteError::TooManySignatures);
        }
        let lines = self.signatures.iter().chain([&signature]).map(|signature| signature.text_len() + 1);
        if self.text.len() + 1 + lines.sum::<usize>() > NOTE_MAX {
            return Err(NoteError::Length);
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// Verifies the signatures of known keys, and returns them in the order of the note. Those of unknown keys are
    /// ignored.
    ///
    /// # Errors
    /// If no known key has signed it, or one signature of a known key is wrong.
    pub fn verify(&self, known: &[VerifierKey]) -> Result<Vec<VerifiedSignature>, VerifyNoteError> {
        let mut verified = Vec::new();
        for signature in &self.signatures {
            for key in known.iter().filter(|key| signature.claims(key)) {
                let wrong = || VerifyNoteError::Wrong(key.name().clone());
                verified.push(key.verify(&self.text, signature).ok_or_else(wrong)?);
            }
        }
        if verified.is_empty() { Err(VerifyNoteError::Unsigned) } else { Ok(verified) }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}
