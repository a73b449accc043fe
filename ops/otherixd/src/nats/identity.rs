//! The keys of this control plane: folder `identity/` in the state folder, one file for each seed.
//!
//! The operator's own key, `operator.nk`, signs nothing but the operator's JWT, once: it may then be taken offline, and
//! the operator's signing key does the daily work. An account's own key signs nothing at all, because the server
//! accepts users only from signing keys: whoever has that file alone can make no user. An existing file is never
//! replaced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use otherix_commands::service::{Credential, IssueError, Issuer};
use otherix_identity::jwt::{self, Claims, Operator, User};
use otherix_identity::{Creds, KeyError, KeyKind, KeyPair, PublicKey, creds};
use zeroize::Zeroizing;

use super::accounts::{self, AccountName, Revocations};
use super::error::NatsError;
use super::files::{private_folder, read_private, write_private};
use super::scope::Scope;

/// The name of the operator.
const OPERATOR: &str = "otherix";

/// The keys of operator and accounts.
#[derive(Debug)]
pub(crate) struct Identity {
    operator_jwt: String,
    operator_signing: KeyPair,
    accounts: AccountKeys,
    scopes: BTreeMap<Scope, KeyPair>,
}

/// What identifies the accounts.
#[derive(Debug)]
struct AccountKeys {
    system: PublicKey,
    control: PublicKey,
    events: PublicKey,
    clients: PublicKey,
    nodes: PublicKey,
}

/// A user to be signed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UserToSign<'a> {
    pub(crate) key: &'a PublicKey,
    pub(crate) name: &'a str,
    pub(crate) scope: Scope,
    /// Unix time in seconds.
    pub(crate) issued_at: u64,
    /// Unix time in seconds from which on it is refused.
    pub(crate) expires_at: Option<u64>,
}

impl Identity {
    /// Reads the keys in the state folder. Those that an incomplete first start has not made are generated, and so are
    /// those of kinds of users that an older version did not have. `now` is the Unix time in seconds.
    ///
    /// # Errors
    /// If a file cannot be read or written, is accessible to other users or is damaged, or if one is missing after the
    /// first start was complete.
    pub(crate) fn load_or_create(state: &Path, now: u64) -> Result<Self, NatsError> {
        let folder = KeyFolder(state.join("identity"));
        private_folder(&folder.0)?;
        // Written when all others exist.
        let operator_jwt = folder.text("operator.jwt")?;
        let is_first = operator_jwt.is_none();
        let key = |name: &str, kind| folder.key(name, kind, is_first);
        let account = |name: AccountName| {
            let file = format!("account-{}.nk", name.as_str().to_ascii_lowercase());
            key(&file, KeyKind::Account).map(|pair| pair.public_key().clone())
        };
        let operator_signing = key("operator-signing.nk", KeyKind::Operator)?;
        let accounts = AccountKeys {
            system: account(AccountName::System)?,
            control: account(AccountName::Control)?,
            events: account(AccountName::Events)?,
            clients: account(AccountName::Clients)?,
            nodes: account(AccountName::Nodes)?,
        };
        let mut scopes = BTreeMap::new();
        for scope in Scope::all() {
            let pair = folder.key(&format!("signing-{}.nk", scope.name()), KeyKind::Account, true)?;
            scopes.insert(scope, pair);
        }
        let operator_jwt = match operator_jwt {
            Some(token) => checked_operator(&folder, token.as_str(), &operator_signing, &accounts)?,
            None => {
                let operator = key("operator.nk", KeyKind::Operator)?;
                let body = Operator {
                    signing_keys: vec![operator_signing.public_key().clone()],
                    system_account: Some(accounts.system.clone()),
                    strict_signing_key_usage: true,
                };
                let token = jwt::encode(Claims::new(operator.public_key(), OPERATOR, now, body), &operator)?;
                write_private(&folder.path("operator.jwt"), format!("{token}\n").as_bytes())?;
                token
            }
        };
        Ok(Self { operator_jwt, operator_signing, accounts, scopes })
    }

    /// The operator, which servers trust.
    pub(super) fn operator_jwt(&self) -> &str {
        &self.operator_jwt
    }

    /// What identifies an account.
    pub(crate) fn account(&self, name: AccountName) -> &PublicKey {
        match name {
            AccountName::System => &self.accounts.system,
            AccountName::Control => &self.accounts.control,
            AccountName::Events => &self.accounts.events,
            AccountName::Clients => &self.accounts.clients,
            AccountName::Nodes => &self.accounts.nodes,
        }
    }

    /// The keys that sign users.
    pub(super) fn signing_keys(&self) -> impl Iterator<Item = (Scope, &PublicKey)> {
        self.scopes.iter().map(|(scope, pair)| (*scope, pair.public_key()))
    }

    /// Signs an account. The server ignores one that was issued before the one that it has.
    pub(super) fn account_jwt(&self, name: AccountName, revoked: &Revocations, now: u64) -> Result<String, NatsError> {
        let body = accounts::account(self, name, revoked);
        Ok(jwt::encode(Claims::new(self.account(name), name.as_str(), now, body), &self.operator_signing)?)
    }

    /// Signs a user. A JWT is no secret: only who has the user's key can use it.
    pub(crate) fn sign_user(&self, user: UserToSign<'_>) -> Result<String, NatsError> {
        let UserToSign { key, name, scope, issued_at, expires_at } = user;
        let signing = self.scopes.get(&scope).ok_or(NatsError::NoSigningKey(scope.name()))?;
        let tags = vec![creds::role_tag(scope.name())];
        let body = User { tags, ..User::scoped(self.account(scope.account())) };
        let claims = Claims { expires_at, ..Claims::new(key, name, issued_at, body) };
        Ok(jwt::encode(claims, signing)?)
    }

    /// Generates a user's key pair and signs it. It never expires.
    pub(super) fn new_user(&self, name: &str, scope: Scope, now: u64) -> Result<Creds, NatsError> {
        let pair = KeyPair::generate(KeyKind::User)?;
        let user = UserToSign { key: pair.public_key(), name, scope, issued_at: now, expires_at: None };
        Ok(Creds::new(self.sign_user(user)?, pair)?)
    }

    /// Loads the credentials of a user of this kind.
    ///
    /// # Errors
    /// If they cannot be read, or this control plane has not signed them.
    pub(crate) fn load_signed(&self, path: &Path, scope: Scope) -> Result<Creds, NatsError> {
        let creds = Creds::load(path)?;
        if self.has_signed(&creds, scope) { Ok(creds) } else { Err(NatsError::ForeignCreds(path.to_owned())) }
    }

    /// Whether these are credentials of a user of this kind that this control plane has signed.
    fn has_signed(&self, creds: &Creds, scope: Scope) -> bool {
        let signing = self.scopes.get(&scope).map(KeyPair::public_key);
        signing.is_some() && creds.claims().issuer.as_ref() == signing
    }
}

impl Issuer for Identity {
    fn user_jwt(&self, credential: &Credential) -> Result<String, IssueError> {
        let Credential { key, name, role, expires_at, issued_at } = credential;
        let key: PublicKey = key.to_string().parse().map_err(IssueError::new)?;
        let second = |second: i64| u64::try_from(second).map_err(IssueError::new);
        let expires_at = expires_at.map(|at| second(at.unix_micros().div_euclid(1_000_000))).transpose()?;
        let (scope, issued_at) = (Scope::Role(*role), second(*issued_at)?);
        let user = UserToSign { key: &key, name, scope, issued_at, expires_at };
        self.sign_user(user).map_err(IssueError::new)
    }
}

/// Returns the operator's JWT if it is about these keys.
fn checked_operator(
    folder: &KeyFolder,
    token: &str,
    signing: &KeyPair,
    accounts: &AccountKeys,
) -> Result<String, NatsError> {
    let token = token.trim();
    let operator = jwt::decode::<Operator>(token)?.body;
    if operator.signing_keys.contains(signing.public_key())
        && operator.system_account.as_ref() == Some(&accounts.system)
    {
        return Ok(token.to_owned());
    }
    Err(NatsError::MixedKeys(folder.0.clone()))
}

/// The folder of the keys.
struct KeyFolder(PathBuf);

impl KeyFolder {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn text(&self, name: &str) -> Result<Option<Zeroizing<String>>, NatsError> {
        read_private(&self.path(name))
    }

    /// Reads a key. One that does not exist is generated, if it `may_be_new`.
    fn key(&self, name: &str, kind: KeyKind, may_be_new: bool) -> Result<KeyPair, NatsError> {
        let path = self.path(name);
        let damaged = |source: KeyError| NatsError::Key { path: path.clone(), source };
        match self.text(name)? {
            Some(seed) => {
                let pair = KeyPair::from_seed(seed.trim()).map_err(damaged)?;
                pair.public_key().clone().of_kind(kind).map_err(damaged)?;
                Ok(pair)
            }
            None if may_be_new => {
                let pair = KeyPair::generate(kind)?;
                let text = Zeroizing::new(format!("{}\n", pair.seed().as_str()));
                write_private(&path, text.as_bytes())?;
                Ok(pair)
            }
            None => Err(NatsError::MissingKey(path)),
        }
    }
}

#[cfg(test)]
mod tests;
