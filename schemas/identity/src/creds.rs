//! Credentials files as the tools of NATS write and read them (`.creds`): the JWT of a user and the seed of its key.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use otherix_runtime::files::{self, PrivateFileError};
use otherix_schemas::value::UserId;
use zeroize::Zeroizing;

use crate::jwt::{self, Claims, JwtError, User};
use crate::key::{KeyError, KeyKind, KeyPair, PublicKey};

/// Longest credentials file, in bytes.
const LENGTH_MAX: u64 = 64 << 10;

/// What the first lines of the two parts say.
const JWT: &str = "NATS USER JWT";
const SEED: &str = "USER NKEY SEED";

/// The prefix of the tag that names a user's role.
const ROLE_TAG: &str = "role:";

/// A user's JWT and key pair.
#[derive(Clone)]
pub struct Creds {
    jwt: String,
    claims: Claims<User>,
    key: KeyPair,
    user: UserId,
}

/// Why a text is not a user's credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredsFormatError {
    #[error("it is not text")]
    Binary,
    #[error("it has no part `{0}`")]
    Missing(&'static str),
    #[error("its JWT cannot be used")]
    Jwt(#[from] JwtError),
    #[error("its seed cannot be used")]
    Seed(#[from] KeyError),
    #[error("its seed is not that of the JWT's user")]
    OtherKey,
}

/// Credentials could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum CredsError {
    #[error("cannot read the credentials file `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is not a credentials file", path.display())]
    Malformed {
        path: PathBuf,
        #[source]
        source: CredsFormatError,
    },
    #[error("other users have access to the credentials file `{}` (mode {mode:04o}): run `chmod 600 {}`",
        path.display(), path.display())]
    Shared { path: PathBuf, mode: u32 },
}

impl Creds {
    /// Returns the credentials of the user whose JWT and key these are.
    ///
    /// # Errors
    /// If the JWT is malformed, is not signed by the issuer that it names, or is another user's. Who the issuer is and
    /// whether the JWT has expired is not checked: that is the server's part.
    pub fn new(jwt: String, key: KeyPair) -> Result<Self, CredsFormatError> {
        let claims: Claims<User> = jwt::decode(&jwt)?;
        if claims.subject != *key.public_key() {
            return Err(CredsFormatError::OtherKey);
        }
        let user = UserId::parse(claims.subject.as_str()).map_err(|_| CredsFormatError::OtherKey)?;
        Ok(Self { jwt, claims, key, user })
    }

    /// Parses the content of a credentials file. Lines before, between and after the two parts are ignored.
    ///
    /// # Errors
    /// As [`Creds::new`], and if a part is missing or malformed.
    pub fn parse(text: &str) -> Result<Self, CredsFormatError> {
        let jwt = part(text, JWT).ok_or(CredsFormatError::Missing(JWT))?;
        let seed = part(text, SEED).ok_or(CredsFormatError::Missing(SEED))?;
        let key = KeyPair::from_seed(seed)?;
        key.public_key().clone().of_kind(KeyKind::User)?;
        Self::new(jwt.to_owned(), key)
    }

    /// Loads a credentials file. Whoever has opened it may have been told so by [`CredsError::Shared`] only: the
    /// content of a file that others can read is not used.
    ///
    /// # Errors
    /// If it cannot be read, is not a regular file, has more than 64 KiB, is malformed, or users other than its owner
    /// have access to it.
    pub fn load(path: &Path) -> Result<Self, CredsError> {
        let content = files::read_private(path, LENGTH_MAX).map_err(|error| match error {
            PrivateFileError::Io(source) => CredsError::Read { path: path.to_owned(), source },
            PrivateFileError::Shared { mode } => CredsError::Shared { path: path.to_owned(), mode },
        });
        let content = Zeroizing::new(content?);
        let malformed = |source| CredsError::Malformed { path: path.to_owned(), source };
        let text = std::str::from_utf8(&content).map_err(|_| malformed(CredsFormatError::Binary))?;
        Self::parse(text).map_err(malformed)
    }

    /// The content of a credentials file. A secret.
    pub fn render(&self) -> Zeroizing<String> {
        let (jwt, seed) = (&self.jwt, self.key.seed());
        Zeroizing::new(format!(
            "-----BEGIN {JWT}-----\n{jwt}\n------END {JWT}------\n\n\
             ************************* IMPORTANT *************************\n\
             The seed below is a secret: whoever has it can act as this user.\n\n\
             -----BEGIN {SEED}-----\n{}\n------END {SEED}------\n\n\
             *************************************************************\n",
            seed.as_str()
        ))
    }

    pub fn jwt(&self) -> &str {
        &self.jwt
    }

    pub fn claims(&self) -> &Claims<User> {
        &self.claims
    }

    pub fn key(&self) -> &KeyPair {
        &self.key
    }

    pub fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    /// The user as the server attests it: its public key.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// The role that the issuer has given to the user; `None` if the JWT does not say.
    pub fn role(&self) -> Option<&str> {
        self.claims.body.tags.iter().find_map(|tag| tag.strip_prefix(ROLE_TAG))
    }

    /// Unix time in seconds from which on the server refuses the user; `None` if it never expires.
    pub fn expires_at(&self) -> Option<u64> {
        self.claims.expires_at
    }

    /// The signature of a server's nonce, as `CONNECT` has it.
    pub fn sign_nonce(&self, nonce: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.key.sign(nonce.as_bytes()))
    }
}

/// The tag of a JWT that names the user's role.
pub fn role_tag(role: &str) -> String {
    format!("{ROLE_TAG}{role}")
}

/// Omits the seed.
impl fmt::Debug for Creds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Creds").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The line between `-----BEGIN name-----` and `------END name------`.
fn part<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let is_mark = |line: &str, word: &str| {
        let inner = line.trim_matches('-');
        line.starts_with("---") && line.ends_with("---") && inner.strip_prefix(word).map(str::trim) == Some(name)
    };
    let mut lines = text.lines().map(str::trim).skip_while(|line| !is_mark(line, "BEGIN ")).skip(1);
    let content = lines.find(|line| !line.is_empty())?;
    let end = lines.find(|line| !line.is_empty())?;
    is_mark(end, "END ").then_some(content)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn creds() -> Creds {
        let account = KeyPair::generate(KeyKind::Account).unwrap();
        let key = KeyPair::generate(KeyKind::User).unwrap();
        let body = User { tags: vec![role_tag("viewer")], ..User::scoped(account.public_key()) };
        let claims = Claims { expires_at: Some(7), ..Claims::new(key.public_key(), "ann", 5, body) };
        Creds::new(jwt::encode(claims, &account).unwrap(), key).unwrap()
    }

    #[test]
    fn what_is_rendered_is_parsed() {
        let creds = creds();
        let text = creds.render();
        for text in [text.to_string(), text.replace('\n', "\r\n"), format!("# a comment\n{}", text.as_str())] {
            let parsed = Creds::parse(&text).unwrap();
            assert_eq!((parsed.jwt(), parsed.public_key()), (creds.jwt(), creds.public_key()));
            assert_eq!((parsed.user().as_str(), parsed.role()), (creds.public_key().as_str(), Some("viewer")));
            assert_eq!(parsed.expires_at(), Some(7));
            let signature = BASE64_URL_SAFE_NO_PAD.decode(parsed.sign_nonce("nonce")).unwrap();
            creds.public_key().verify(b"nonce", &signature).unwrap();
        }
        assert!(!format!("{creds:?}").contains(&creds.key().seed()[4..]));
    }

    #[test]
    fn incomplete_and_foreign_files_are_refused() {
        let (one, other) = (creds(), creds());
        let text = one.render();
        let account = KeyPair::generate(KeyKind::Account).unwrap().seed();
        assert!(matches!(Creds::parse(""), Err(CredsFormatError::Missing(JWT))));
        let without_seed = text.split("****").next().unwrap();
        assert!(matches!(Creds::parse(without_seed), Err(CredsFormatError::Missing(SEED))));
        let unfinished = text.split("------END USER").next().unwrap();
        assert!(matches!(Creds::parse(unfinished), Err(CredsFormatError::Missing(SEED))));
        let mixed = text.replace(one.jwt(), other.jwt());
        assert!(matches!(Creds::parse(&mixed), Err(CredsFormatError::OtherKey)));
        let of_account = text.replace(one.key().seed().as_str(), &account);
        assert!(matches!(Creds::parse(&of_account), Err(CredsFormatError::Seed(KeyError::OtherKind { .. }))));
        let damaged = text.replace(one.jwt(), &one.jwt()[..one.jwt().len() - 2]);
        assert!(matches!(Creds::parse(&damaged), Err(CredsFormatError::Jwt(_))));
    }

    #[test]
    fn only_private_regular_files_are_used() {
        let folder = otherix_testkit::tempdir().unwrap();
        let path = folder.path().join("a.creds");
        let load = |content: &[u8], mode: u32| {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Creds::load(&path)
        };
        let good = creds().render();
        for mode in [0o600, 0o400, 0o700] {
            assert!(load(good.as_bytes(), mode).is_ok());
        }
        for mode in [0o640, 0o604, 0o644, 0o620, 0o777] {
            let error = load(good.as_bytes(), mode).unwrap_err().to_string();
            assert!(error.contains(&format!("(mode {mode:04o}): run `chmod 600 {}`", path.display())), "{error}");
        }
        assert!(matches!(load(b"\xff", 0o600), Err(CredsError::Malformed { source: CredsFormatError::Binary, .. })));
        let large = format!("{}{}", good.as_str(), " ".repeat(64 << 10));
        for error in [load(large.as_bytes(), 0o600), Creds::load(Path::new("/dev/zero")), Creds::load(folder.path())] {
            assert!(matches!(error, Err(CredsError::Read { .. })), "{error:?}");
        }
    }
}
