//! JWTs of NATS, claims version 2: what an issuer says about a subject, signed with Ed25519.

mod account;
mod operator;
mod user;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use data_encoding::BASE32_NOPAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha512_256};

use crate::key::{KeyError, KeyKind, KeyPair, PublicKey};

pub use account::{
    Account, AccountLimits, Export, ExportKind, Import, JetStreamLimits, Mapping, ResponseKind, Scope, ScopeKind,
};
pub use operator::Operator;
pub use user::{ConnectionKind, Permissions, SubjectPermissions, User, UserLimits, UserPermissions};

/// Longest JWT that is decoded, in bytes.
const LENGTH_MAX: usize = 1 << 20;

/// The version of the claims.
const VERSION: u8 = 2;

const HEADER_TYPE: &str = "JWT";
const ALGORITHM: &str = "ed25519-nkey";

/// No limit.
pub(crate) const UNLIMITED: i64 = -1;

/// Why a text is not a JWT that can be used.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    #[error("it is not a JWT: {0}")]
    Malformed(&'static str),
    #[error("it is not a JWT of this kind")]
    Claims(#[from] serde_json::Error),
    #[error("it is signed with the algorithm `{0}`, not with `{ALGORITHM}`")]
    Algorithm(String),
    #[error("it is of type `{found}`, not `{expected}`")]
    OtherType { expected: &'static str, found: String },
    #[error("its version is {0}, not {VERSION}")]
    Version(u8),
    #[error("its key is refused")]
    Key(#[from] KeyError),
    #[error("its issuer `{0}` is not trusted")]
    Issuer(PublicKey),
    #[error("it expired at {0} (Unix time)")]
    Expired(u64),
    #[error("it is valid from {0} (Unix time)")]
    NotYetValid(u64),
}

/// What a JWT says about its subject, beyond the fields that all JWTs have.
pub trait Body: Serialize + DeserializeOwned {
    /// The type on the wire.
    const TYPE: &'static str;
    /// Whom it is about.
    const SUBJECT: KeyKind;
    /// Who may sign it.
    const ISSUER: KeyKind;
    /// Whether its subject may sign it itself, so that somebody else signs it later.
    const SELF_SIGNED: bool = false;
}

/// The claims of a JWT. Times are Unix times in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims<T> {
    pub subject: PublicKey,
    pub name: String,
    pub issued_at: u64,
    /// The first second in which it is no longer valid.
    pub expires_at: Option<u64>,
    pub not_before: Option<u64>,
    pub body: T,
    /// Who signed it; `None` until it is encoded.
    pub issuer: Option<PublicKey>,
}

impl<T> Claims<T> {
    /// Claims that never expire.
    pub fn new(subject: &PublicKey, name: &str, issued_at: u64, body: T) -> Self {
        let (subject, name) = (subject.clone(), name.to_owned());
        Self { subject, name, issued_at, expires_at: None, not_before: None, body, issuer: None }
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    typ: String,
    alg: String,
}

/// The claims on the wire.
#[derive(Serialize, Deserialize)]
struct Wire<T> {
    #[serde(default, skip_serializing_if = "is_zero")]
    exp: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    jti: String,
    #[serde(default)]
    iat: u64,
    iss: PublicKey,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    nbf: u64,
    sub: PublicKey,
    nats: WireBody<T>,
}

#[derive(Serialize, Deserialize)]
struct WireBody<T> {
    #[serde(flatten)]
    body: T,
    #[serde(rename = "type")]
    kind: String,
    version: u8,
}

/// Only what tells whether the rest can be read.
#[derive(Deserialize)]
struct Probe {
    nats: ProbeBody,
}

#[derive(Deserialize)]
struct ProbeBody {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    version: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Signs claims. An [`issuer`](Claims::issuer) that they name is ignored.
///
/// # Errors
/// If subject or issuer are keys of other kinds.
pub fn encode<T: Body>(claims: Claims<T>, issuer: &KeyPair) -> Result<String, JwtError> {
    let Claims { subject, name, issued_at, expires_at, not_before, body, issuer: _ } = claims;
    let mut wire = Wire {
        exp: expires_at.unwrap_or_default(),
        jti: String::new(),
        iat: issued_at,
        iss: issuer_of::<T>(issuer.public_key().clone(), &subject)?,
        name,
        nbf: not_before.unwrap_or_default(),
        sub: subject.of_kind(T::SUBJECT)?,
        nats: WireBody { body, kind: T::TYPE.to_owned(), version: VERSION },
    };
    wire.jti = BASE32_NOPAD.encode(&Sha512_256::digest(serde_json::to_vec(&wire)?));
    let header = Header { typ: HEADER_TYPE.to_owned(), alg: ALGORITHM.to_owned() };
    let [header, claims] =
        [serde_json::to_vec(&header)?, serde_json::to_vec(&wire)?].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    let signed = format!("{header}.{claims}");
    let signature = BASE64_URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()));
    Ok(format!("{signed}.{signature}"))
}

/// Returns the issuer, if it may sign such a JWT about this subject.
fn issuer_of<T: Body>(issuer: PublicKey, subject: &PublicKey) -> Result<PublicKey, KeyError> {
    if T::SELF_SIGNED && issuer == *subject { Ok(issuer) } else { issuer.of_kind(T::ISSUER) }
}

/// Decodes a JWT and checks that the issuer that it names has signed it. Whether that issuer is to be trusted, and
/// whether the JWT has expired, is not checked: see [`verify`].
///
/// # Errors
/// If it is malformed, of another type or version, or the signature is wrong.
pub fn decode<T: Body>(token: &str) -> Result<Claims<T>, JwtError> {
    if token.len() > LENGTH_MAX {
        return Err(JwtError::Malformed("it is too long"));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed("it has no signature"))?;
    let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed("it has no claims"))?;
    let [header, claims, signature] = [header, claims, signature].map(|part| BASE64_URL_SAFE_NO_PAD.decode(part));
    let not_base64 = |_| JwtError::Malformed("it is not base64");
    let header: Header = serde_json::from_slice(&header.map_err(not_base64)?)?;
    if header.typ != HEADER_TYPE {
        return Err(JwtError::Malformed("its header has another type"));
    }
    if header.alg != ALGORITHM {
        return Err(JwtError::Algorithm(header.alg));
    }
    let claims = claims.map_err(not_base64)?;
    let Probe { nats: ProbeBody { kind, version } } = serde_json::from_slice(&claims)?;
    if kind != T::TYPE {
        return Err(JwtError::OtherType { expected: T::TYPE, found: kind });
    }
    if version != VERSION {
        return Err(JwtError::Version(version));
    }
    let Wire { exp, jti: _, iat, iss, name, nbf, sub, nats } = serde_json::from_slice::<Wire<T>>(&claims)?;
    let issuer = issuer_of::<T>(iss, &sub)?;
    issuer.verify(signed.as_bytes(), &signature.map_err(not_base64)?)?;
    let given = |time: u64| (time != 0).then_some(time);
    let (subject, body) = (sub.of_kind(T::SUBJECT)?, nats.body);
    let (expires_at, not_before) = (given(exp), given(nbf));
    Ok(Claims { subject, name, issued_at: iat, expires_at, not_before, body, issuer: Some(issuer) })
}

/// Decodes a JWT that one of the `trusted` keys has signed and that is valid at `now`, a Unix time in seconds.
///
/// # Errors
/// As [`decode`], and if the issuer is not trusted, or the JWT is not valid now.
pub fn verify<T: Body>(token: &str, trusted: &[&PublicKey], now: u64) -> Result<Claims<T>, JwtError> {
    let claims = decode::<T>(token)?;
    if let Some(issuer) = claims.issuer.as_ref().filter(|issuer| !trusted.contains(issuer)) {
        return Err(JwtError::Issuer(issuer.clone()));
    }
    match (claims.not_before, claims.expires_at) {
        (Some(from), _) if now < from => Err(JwtError::NotYetValid(from)),
        (_, Some(until)) if now >= until => Err(JwtError::Expired(until)),
        _ => Ok(claims),
    }
}

#[cfg(test)]
mod tests;
