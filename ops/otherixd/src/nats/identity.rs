//! The keys of this control plane: folder `identity/` in the state folder, one file for each seed. With a NATS that is
//! not started by `otherixd`, operator and system account are somebody else's: their keys are not made.
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
use otherix_schemas::permission::Role;
use zeroize::Zeroizing;

use super::accounts::{self, AccountName, Revocations};
use super::error::NatsError;
use super::files::{private_folder, read_private, write_private};
use super::scope::Scope;

/// The name of the operator.
const OPERATOR: &str = "otherix";

/// The keys of the accounts, and of the operator of the embedded server.
#[derive(Debug)]
pub(crate) struct Identity {
    /// `None` if NATS is not started by `otherixd`.
    operator: Option<EmbeddedOperator>,
    accounts: AccountKeys,
    scopes: BTreeMap<Scope, KeyPair>,
}

/// The operator of the embedded server.
#[derive(Debug)]
struct EmbeddedOperator {
    jwt: String,
    signing: KeyPair,
}

/// What identifies the accounts.
type AccountKeys = BTreeMap<AccountName, PublicKey>;

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
        let folder = KeyFolder::open(state)?;
        let marks = folder.marks()?;
        // Written when all others exist.
        let is_first = marks.operator_jwt.is_none();
        let operator_signing = folder.key("operator-signing.nk", KeyKind::Operator, is_first)?;
        let mut accounts = folder.accounts(&marks)?;
        let system = folder.key(&account_file(AccountName::System), KeyKind::Account, is_first)?.public_key().clone();
        accounts.insert(AccountName::System, system.clone());
        let scopes = folder.scopes(|_| true)?;
        let operator_jwt = match marks.operator_jwt {
            Some(token) => checked_operator(&folder, token.as_str(), &operator_signing, &system)?,
            None => {
                let operator = folder.key("operator.nk", KeyKind::Operator, true)?;
                let body = Operator {
                    signing_keys: vec![operator_signing.public_key().clone()],
                    system_account: Some(system),
                    strict_signing_key_usage: true,
                };
                let token = jwt::encode(Claims::new(operator.public_key(), OPERATOR, now, body), &operator)?;
                write_private(&folder.path("operator.jwt"), format!("{token}\n").as_bytes())?;
                token
            }
        };
        let operator = Some(EmbeddedOperator { jwt: operator_jwt, signing: operator_signing });
        Ok(Self { operator, accounts, scopes })
    }

    /// As [`Identity::load_or_create`], for a NATS whose operator and system account are somebody else's. The keys of
    /// the other accounts are the same for both, and so the credentials of users.
    ///
    /// # Errors
    /// As [`Identity::load_or_create`].
    pub(crate) fn load_or_create_accounts(state: &Path) -> Result<Self, NatsError> {
        let folder = KeyFolder::open(state)?;
        let marks = folder.marks()?;
        let accounts = folder.accounts(&marks)?;
        let scopes = folder.scopes(|scope| scope.account() != AccountName::System)?;
        let mut text = serde_json::to_vec_pretty(&names(&accounts))?;
        text.push(b'\n');
        if marks.accounts.is_none_or(|noted| noted.as_bytes() != text) {
            write_private(&folder.path(ACCOUNTS), &text)?;
        }
        Ok(Self { operator: None, accounts, scopes })
    }

    /// The operator, which the embedded server trusts.
    pub(super) fn operator_jwt(&self) -> Result<&str, NatsError> {
        self.operator.as_ref().map(|operator| operator.jwt.as_str()).ok_or(NatsError::NoOperator)
    }

    /// What identifies an account.
    ///
    /// # Errors
    /// For the system account, if it is somebody else's.
    pub(crate) fn account(&self, name: AccountName) -> Result<&PublicKey, NatsError> {
        self.accounts.get(&name).ok_or(NatsError::NoOperator)
    }

    /// The keys that sign users.
    pub(super) fn signing_keys(&self) -> impl Iterator<Item = (Scope, &PublicKey)> {
        self.scopes.iter().map(|(scope, pair)| (*scope, pair.public_key()))
    }

    /// Signs an account of the embedded server, which ignores one that was issued before the one that it has.
    pub(super) fn account_jwt(&self, name: AccountName, revoked: &Revocations, now: u64) -> Result<String, NatsError> {
        let EmbeddedOperator { signing, .. } = self.operator.as_ref().ok_or(NatsError::NoOperator)?;
        let body = accounts::account(self, name, revoked)?;
        Ok(jwt::encode(Claims::new(self.account(name)?, name.as_str(), now, body), signing)?)
    }

    /// Signs a user. A JWT is no secret: only who has the user's key can use it.
    pub(crate) fn sign_user(&self, user: UserToSign<'_>) -> Result<String, NatsError> {
        let UserToSign { key, name, scope, issued_at, expires_at } = user;
        let signing = self.scopes.get(&scope).ok_or(NatsError::NoSigningKey(scope.name()))?;
        let tags = vec![creds::role_tag(scope.name())];
        let body = User { tags, ..User::scoped(self.account(scope.account())?) };
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
        self.jwt(Scope::Role(credential.role), credential)
    }

    fn state_jwt(&self, credential: &Credential) -> Result<Option<String>, IssueError> {
        match credential.role {
            Role::Admin | Role::Operator | Role::Developer | Role::Viewer => {
                self.jwt(Scope::StateReader, credential).map(Some)
            }
            Role::Node | Role::NodeJoin => Ok(None),
        }
    }
}

impl Identity {
    fn jwt(&self, scope: Scope, credential: &Credential) -> Result<String, IssueError> {
        let Credential { key, name, role: _, expires_at, issued_at } = credential;
        let key: PublicKey = key.to_string().parse().map_err(IssueError::new)?;
        let second = |second: i64| u64::try_from(second).map_err(IssueError::new);
        let expires_at = expires_at.map(|at| second(at.unix_micros().div_euclid(1_000_000))).transpose()?;
        let user = UserToSign { key: &key, name, scope, issued_at: second(*issued_at)?, expires_at };
        self.sign_user(user).map_err(IssueError::new)
    }
}

/// Returns the operator's JWT if it is about these keys.
fn checked_operator(
    folder: &KeyFolder,
    token: &str,
    signing: &KeyPair,
    system: &PublicKey,
) -> Result<String, NatsError> {
    let token = token.trim();
    let operator = jwt::decode::<Operator>(token)?.body;
    if operator.signing_keys.contains(signing.public_key()) && operator.system_account.as_ref() == Some(system) {
        return Ok(token.to_owned());
    }
    Err(NatsError::MixedKeys(folder.0.clone()))
}

/// The private key of an account, which is needed for nothing but JWTs that somebody else signs again.
///
/// # Errors
/// If the file is missing, damaged or accessible to other users.
pub(crate) fn account_key(state: &Path, name: AccountName) -> Result<KeyPair, NatsError> {
    KeyFolder::open(state)?.key(&account_file(name), KeyKind::Account, false)
}

/// The file with the public keys of the accounts. Written when all keys exist that an operator of somebody else needs.
const ACCOUNTS: &str = "accounts.json";

/// The names of the files, in the folder of the keys, without which users and nodes would need new credentials. Those
/// that older versions lack are not among them.
pub(crate) fn needed_files(folder: &Path) -> Vec<String> {
    let is_own_operator = !folder.join(ACCOUNTS).exists();
    let is_needed = |name: AccountName| is_own_operator || name != AccountName::System;
    let accounts = AccountName::ALL.into_iter().filter(|name| *name != AccountName::State && is_needed(*name));
    let scopes = Scope::all().filter(|scope| *scope != Scope::StateReader && is_needed(scope.account()));
    let operator = ["operator.jwt", "operator-signing.nk"].map(str::to_owned);
    let operator = operator.into_iter().filter(|_| is_own_operator);
    accounts.map(account_file).chain(scopes.map(signing_file)).chain(operator).collect()
}

/// The file of an account's own key.
fn account_file(name: AccountName) -> String {
    format!("account-{}.nk", name.as_str().to_ascii_lowercase())
}

/// The file of the key that signs users of a kind.
fn signing_file(scope: Scope) -> String {
    format!("signing-{}.nk", scope.name())
}

/// The accounts by their names.
fn names(accounts: &AccountKeys) -> BTreeMap<&'static str, &PublicKey> {
    accounts.iter().map(|(name, key)| (name.as_str(), key)).collect()
}

/// The files that are written when all keys of a kind exist.
struct Marks {
    operator_jwt: Option<Zeroizing<String>>,
    accounts: Option<Zeroizing<String>>,
}

/// The folder of the keys.
struct KeyFolder(PathBuf);

impl KeyFolder {
    fn open(state: &Path) -> Result<Self, NatsError> {
        let folder = state.join("identity");
        private_folder(&folder)?;
        Ok(Self(folder))
    }

    fn marks(&self) -> Result<Marks, NatsError> {
        Ok(Marks { operator_jwt: self.text("operator.jwt")?, accounts: self.text(ACCOUNTS)? })
    }

    /// The accounts but the system account. They are made once, for whichever NATS is used first.
    fn accounts(&self, marks: &Marks) -> Result<AccountKeys, NatsError> {
        let may_be_new = marks.operator_jwt.is_none() && marks.accounts.is_none();
        let mut accounts = AccountKeys::new();
        for name in AccountName::SHARED {
            // Earlier versions did not have it. Its users' signing key is made after it.
            let is_added = name == AccountName::State && !self.path(&signing_file(Scope::StateReader)).exists();
            let may_be_new = may_be_new || is_added;
            let pair = self.key(&account_file(name), KeyKind::Account, may_be_new)?;
            accounts.insert(name, pair.public_key().clone());
        }
        let Some(text) = &marks.accounts else { return Ok(accounts) };
        let noted: BTreeMap<String, PublicKey> = serde_json::from_str(text)?;
        let is_noted = names(&accounts).into_iter().all(|(name, key)| match noted.get(name) {
            Some(noted) => noted == key,
            None => name == AccountName::State.as_str(),
        });
        if is_noted { Ok(accounts) } else { Err(NatsError::MixedKeys(self.0.clone())) }
    }

    /// The keys that sign users of these kinds. An older version may not have had all of them.
    fn scopes(&self, is_wanted: fn(Scope) -> bool) -> Result<BTreeMap<Scope, KeyPair>, NatsError> {
        let wanted = Scope::all().filter(|scope| is_wanted(*scope));
        let load = |scope: Scope| {
            let pair = self.key(&signing_file(scope), KeyKind::Account, true)?;
            Ok((scope, pair))
        };
        wanted.map(load).collect()
    }

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
