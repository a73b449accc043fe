//! Keys of notes: Ed25519, with a name, as a log's key (type 0x01) or a witness's (type 0x04).

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Note;
use super::name::{KeyName, KeyNameError};
use super::signature::{NoteSignature, TIMESTAMP_MAX, VerifiedSignature};

/// What the text form of a private key begins with.
const PRIVATE: &str = "PRIVATE+KEY+";
/// Bytes of a public key or a seed.
const KEY_LEN: usize = 32;

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SignatureKind {
    /// The text of a note (type 0x01).
    Note,
    /// The text of a checkpoint with the time at which its log was seen to be consistent (C2SP tlog-cosignature, type
    /// 0x04).
    Cosignature,
}

/// Why a text is not a key, or a key cannot make a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a key must be NAME+ID+KEY, and a private key PRIVATE+KEY+NAME+ID+KEY")]
    Format,
    #[error(transparent)]
    Name(#[from] KeyNameError),
    #[error("the id is not that of the key and its name")]
    Id,
    #[error("it is no Ed25519 key of type 0x01 or 0x04")]
    Kind,
    #[error("anybody can make signatures for this key")]
    Weak,
    #[error("a key of this type makes no such signatures")]
    OtherKind,
    #[error("the time of a cosignature must be at most {TIMESTAMP_MAX} s")]
    Timestamp,
}

impl SignatureKind {
    const fn identifier(self) -> u8 {
        match self {
            Self::Note => 0x01,
            Self::Cosignature => 0x04,
        }
    }

    /// Splits the type from a key.
    fn split(typed: &[u8]) -> Result<(Self, [u8; KEY_LEN]), KeyError> {
        let (identifier, key) = typed.split_first().ok_or(KeyError::Format)?;
        let kind = [Self::Note, Self::Cosignature].into_iter().find(|kind| kind.identifier() == *identifier);
        Ok((kind.ok_or(KeyError::Kind)?, key.try_into().map_err(|_| KeyError::Kind)?))
    }
}

/// A public key. Its text form is a "vkey": name, id and key.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: KeyName,
    id: u32,
    kind: SignatureKind,
    key: VerifyingKey,
}

impl VerifierKey {
    /// A public key of 32 bytes.
    ///
    /// # Errors
    /// If the bytes are no Ed25519 public key, or one for which anybody can make signatures.
    pub fn new(name: KeyName, kind: SignatureKind, key: &[u8; KEY_LEN]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(key).map_err(|_| KeyError::Kind)?;
        if key.is_weak() { Err(KeyError::Weak) } else { Ok(Self::of(name, kind, key)) }
    }

    fn of(name: KeyName, kind: SignatureKind, key: VerifyingKey) -> Self {
        let hash = Sha256::new()
            .chain_update(name.as_str())
            .chain_update([b'\n', kind.identifier()])
            .chain_update(key.as_bytes())
            .finalize();
        let id = hash.first_chunk().copied().map(u32::from_be_bytes).unwrap_or_default();
        Self { name, id, kind, key }
    }

    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// The first four bytes of a hash of name, type and key. It identifies the key among others, but does not
    /// authenticate it.
    pub fn id(&self) -> u32 {
        self.id
    }

    pub fn kind(&self) -> SignatureKind {
        self.kind
    }

    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        self.key.as_bytes()
    }

    /// Verifies a signature of a note's text that is said to be of this key.
    pub(crate) fn verify(&self, text: &str, signature: &NoteSignature) -> Option<VerifiedSignature> {
        let (timestamp, message, signature) = match self.kind {
            SignatureKind::Note => (None, text.to_owned(), signature.signature()),
            SignatureKind::Cosignature => {
                let (timestamp, signature) = signature.signature().split_first_chunk()?;
                let timestamp = u64::from_be_bytes(*timestamp);
                (Some(timestamp), cosigned(text, timestamp).ok()?, signature)
            }
        };
        let signature = Signature::from_slice(signature).ok()?;
        self.key.verify_strict(message.as_bytes(), &signature).ok()?;
        Some(VerifiedSignature { key: self.clone(), timestamp })
    }
}

/// The message that a cosignature signs.
fn cosigned(text: &str, timestamp: u64) -> Result<String, KeyError> {
    if timestamp > TIMESTAMP_MAX {
        return Err(KeyError::Timestamp);
    }
    Ok(format!("cosignature/v1\ntime {timestamp}\n{text}"))
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, id, typed) = split_key(text)?;
        let (kind, key) = SignatureKind::split(&typed)?;
        let key = Self::new(name, kind, &key)?;
        if format!("{:08x}", key.id) == id { Ok(key) } else { Err(KeyError::Id) }
    }
}

/// Splits the text form of a key into name, id, and type with key.
fn split_key(text: &str) -> Result<(KeyName, &str, Zeroizing<Vec<u8>>), KeyError> {
    let (name, rest) = text.split_once('+').ok_or(KeyError::Format)?;
    let (id, key) = rest.split_once('+').ok_or(KeyError::Format)?;
    let key = BASE64_STANDARD.decode(key).map_err(|_| KeyError::Format)?;
    Ok((name.parse()?, id, Zeroizing::new(key)))
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed = [&[self.kind.identifier()][..], self.as_bytes()].concat();
        write!(f, "{}+{:08x}+{}", self.name, self.id, BASE64_STANDARD.encode(typed))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

/// A key pair. The private key is erased from memory when it is dropped.
#[derive(Clone)]
pub struct SignerKey {
    signing: SigningKey,
    public: VerifierKey,
}

impl SignerKey {
    /// The key pair of a seed, which must be 32 random bytes. One seed must not be used for keys of both types.
    pub fn from_seed(name: KeyName, kind: SignatureKind, seed: &[u8; KEY_LEN]) -> Self {
        let signing = SigningKey::from_bytes(seed);
        let public = VerifierKey::of(name, kind, signing.verifying_key());
        Self { signing, public }
    }

    /// Parses the text form of a private key.
    ///
    /// # Errors
    /// If it is not exactly in the format.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let (name, id, typed) = split_key(text.strip_prefix(PRIVATE).ok_or(KeyError::Format)?)?;
        let (kind, seed) = SignatureKind::split(&typed)?;
        let key = Self::from_seed(name, kind, &Zeroizing::new(seed));
        if format!("{:08x}", key.public.id) == id { Ok(key) } else { Err(KeyError::Id) }
    }

    /// The text form of the private key. A secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        let seed = Zeroizing::new(self.signing.to_bytes());
        let mut typed = Zeroizing::new(vec![self.public.kind.identifier()]);
        typed.extend_from_slice(seed.as_slice());
        let key = Zeroizing::new(BASE64_STANDARD.encode(&typed));
        Zeroizing::new(format!("{PRIVATE}{}+{:08x}+{}", self.public.name, self.public.id, key.as_str()))
    }

    pub fn public_key(&self) -> &VerifierKey {
        &self.public
    }

    /// Signs the text of a note.
    ///
    /// # Errors
    /// [`KeyError::OtherKind`], if the key is a witness's.
    pub fn sign(&self, note: &Note) -> Result<NoteSignature, KeyError> {
        match self.public.kind {
            SignatureKind::Note => Ok(self.signature(&[], note.text())),
            SignatureKind::Cosignature => Err(KeyError::OtherKind),
        }
    }

    /// Signs the text of a checkpoint: at `timestamp`, in seconds since 1970, it was the newest one of its log that
    /// this witness had seen, and consistent with all older ones.
    ///
    /// # Errors
    /// If the key is not a witness's, or the time is above [`TIMESTAMP_MAX`].
    pub(crate) fn cosign(&self, text: &str, timestamp: u64) -> Result<NoteSignature, KeyError> {
        match self.public.kind {
            SignatureKind::Note => Err(KeyError::OtherKind),
            SignatureKind::Cosignature => Ok(self.signature(&timestamp.to_be_bytes(), &cosigned(text, timestamp)?)),
        }
    }

    fn signature(&self, prefix: &[u8], message: &str) -> NoteSignature {
        let signature = [prefix, &self.signing.sign(message.as_bytes()).to_bytes()].concat();
        NoteSignature::new(self.public.name.clone(), self.public.id, signature)
    }
}

/// Omits the private key.
impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SignerKey").field(&self.public).finish()
    }
}
