//! Pushes the accounts to the servers of an existing NATS: signed by its operator, only if they differ from what the
//! servers have, always with a later time than these, and without dropping a revocation that only they have. Any user
//! of the system account can answer in the servers' place: of what is not signed by the operator, nothing is taken.

use std::sync::Arc;

use otherix_identity::jwt::{self, Account, Body, Claims};
use otherix_identity::{KeyKind, KeyPair, PublicKey};
use otherix_schemas::error::Causes;
use otherix_schemas::user::Callers;
use otherix_schemas::value::UserId;
use serde::{Deserialize, Serialize};

use super::super::accounts::{self, AccountName, Revocations};
use super::super::error::NatsError;
use super::super::identity::Identity;
use super::super::revoked_keys::{ALL, RevokedKeys, with_space};
use super::super::unix_now;
use super::OwnNatsError;
use super::system::{Server, SystemClient};

/// How far ahead of this clock a JWT may have been issued that the next one is to follow, in seconds: a day.
const AHEAD_MAX: u64 = 24 * 3600;

/// The name of an account of otherix among those of others.
pub(crate) fn label(name: AccountName) -> String {
    format!("OTHERIX-{}", name.as_str())
}

/// The claims of an account for an existing NATS.
pub(crate) fn account_claims(
    identity: &Identity,
    name: AccountName,
    revoked: &Revocations,
    issued_at: u64,
) -> Result<Claims<Account>, NatsError> {
    let body = accounts::account(identity, name, revoked)?;
    Ok(Claims::new(identity.account(name)?, &label(name), issued_at, body))
}

/// What was done about an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// All servers have it already.
    Same,
    /// So many servers had an earlier one, and so many none.
    Changed { earlier: usize, missing: usize },
}

/// What accounts are to revoke.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) revoked: &'a Revocations,
    /// All users, from whose state this follows.
    pub(crate) callers: &'a Callers,
    /// Finds only what would be done.
    pub(crate) is_dry_run: bool,
}

/// Signs and pushes accounts.
#[derive(Clone, Debug)]
pub(crate) struct AccountPusher {
    pub(crate) identity: Arc<Identity>,
    pub(crate) operator: Arc<KeyPair>,
    pub(crate) system: SystemClient,
}

impl AccountPusher {
    /// The servers, at least one of which trusts the operator's key.
    ///
    /// # Errors
    /// If none can be used.
    pub(super) async fn servers(&self) -> Result<Checked, OwnNatsError> {
        let servers = self.system.servers().await?;
        let mut failure = match self.system.has_full_resolver().await {
            Ok(true) => None,
            Ok(false) => Some(OwnNatsError::NoFullResolver),
            Err(error) => Some(error),
        };
        let mut trusted: Option<Vec<PublicKey>> = None;
        for server in &servers {
            let version = super::check_version(&server.name, &server.version);
            failure = failure.or(version.err());
            match self.system.check_trust(server, self.operator.public_key()).await {
                // What one server says alone is not believed.
                Ok(keys) => match &mut trusted {
                    Some(trusted) => trusted.retain(|key| keys.contains(key)),
                    None => trusted = Some(keys),
                },
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match (trusted, failure) {
            (Some(operator), failure) => Ok(Checked { servers, operator, failure }),
            // They would store the accounts and refuse all users.
            (None, Some(failure)) => Err(failure),
            (None, None) => Err(OwnNatsError::NoServer),
        }
    }

    /// Pushes an account to `servers`. A revocation that only the servers have is kept, unless it is about a user whose
    /// credentials have expired. Also returns the Unix time, in seconds, up to which it revokes all credentials.
    ///
    /// # Errors
    /// If a server does not take it.
    pub(super) async fn push(
        &self,
        name: AccountName,
        wanted: &Wanted<'_>,
        Checked { servers, operator, failure: _ }: &Checked,
    ) -> Result<(Pushed, Option<u64>), NatsError> {
        let Wanted { revoked, callers, is_dry_run } = *wanted;
        let key = self.identity.account(name)?;
        let (count, label) = (servers.len(), label(name));
        let tokens = self.system.lookup(key, count).await?;
        let now = unix_now()?;
        let Present { accounts, latest } = Present::new(&tokens, key, operator, now)
            .map_err(|reason| OwnNatsError::Unreadable { account: label.clone(), reason })?;
        let mut claims = account_claims(&self.identity, name, revoked, now)?;
        for theirs in &accounts {
            keep_revocations(&mut claims.body.revocations, &theirs.revocations, callers);
        }
        claims.body.revocations = with_space(claims.body.revocations);
        claims.issued_at = latest.map_or(now, |latest| now.max(latest.saturating_add(1)));
        let all_until = claims.body.revocations.get(ALL).copied();
        let wanted = normal(claims.body.clone());
        let same = accounts.into_iter().filter(|theirs| normal(theirs.clone()) == wanted).count();
        if same >= count {
            return Ok((Pushed::Same, all_until));
        }
        let (earlier, missing) = (tokens.len() - same, count.saturating_sub(tokens.len()));
        if !is_dry_run {
            let token = jwt::encode(claims, &self.operator)?;
            self.system.update(&label, &token, servers).await?;
            // Somebody else may have pushed at the same time, and servers that exchange accounts keep the one that was
            // issued last.
            let stored = self.system.lookup(key, count).await?;
            if stored.iter().filter(|stored| **stored == token).count() < count {
                return Err(OwnNatsError::NotStored { account: label }.into());
            }
        }
        Ok((Pushed::Changed { earlier, missing }, all_until))
    }
}

/// The servers that accounts are pushed to.
pub(super) struct Checked {
    pub(super) servers: Vec<Server>,
    /// The keys with which the operator signs accounts.
    operator: Vec<PublicKey>,
    /// What is wrong with some of the servers.
    pub(super) failure: Option<OwnNatsError>,
}

/// An account of which only subject, issuer and time are of interest.
#[derive(Serialize, Deserialize)]
struct AnyAccount {}

impl Body for AnyAccount {
    const TYPE: &'static str = Account::TYPE;
    const SUBJECT: KeyKind = Account::SUBJECT;
    const ISSUER: KeyKind = Account::ISSUER;
    const SELF_SIGNED: bool = Account::SELF_SIGNED;
}

/// What servers have of an account.
#[derive(Debug, PartialEq, Eq)]
struct Present {
    /// As the operator has signed it.
    accounts: Vec<Account>,
    /// When the latest JWT was issued, whoever has signed it: servers keep none that is earlier.
    latest: Option<u64>,
}

impl Present {
    /// What is of use in these answers. Those that are later than a day from `now` do not count as the latest.
    ///
    /// # Errors
    /// If a JWT that the operator has signed says something that cannot be read.
    fn new(tokens: &[String], account: &PublicKey, operator: &[PublicKey], now: u64) -> Result<Self, String> {
        let mut present = Self { accounts: Vec::new(), latest: None };
        for token in tokens.iter().map(|token| token.trim()) {
            let Ok(Claims { subject, issuer: Some(issuer), issued_at, .. }) = jwt::decode::<AnyAccount>(token) else {
                continue;
            };
            if subject != *account {
                continue;
            }
            if issued_at < now.saturating_add(AHEAD_MAX) {
                present.latest = present.latest.max(Some(issued_at));
            }
            if operator.contains(&issuer) {
                let decoded = jwt::decode::<Account>(token).map_err(|error| Causes(&error).to_string())?;
                present.accounts.push(decoded.body);
            }
        }
        Ok(present)
    }
}

/// Adds what only the servers revoke, and takes the later time of both.
fn keep_revocations(ours: &mut RevokedKeys, theirs: &RevokedKeys, callers: &Callers) {
    // An older registry, of a backup, does not know of the latest.
    let is_ours = |key: &str, second: u64| {
        let Ok(key) = key.parse::<UserId>() else { return false };
        let user = callers.revoked().get(&key).map(|revoked| revoked.valid_after);
        let known = user.max(callers.enrollments().revoked().get(&key).copied());
        known.and_then(|known| u64::try_from(known).ok()).is_some_and(|known| known >= second)
    };
    let all = ours.get(ALL).max(theirs.get(ALL)).copied();
    for (key, second) in theirs {
        match ours.get_mut(key) {
            Some(own) => *own = (*own).max(*second),
            // Its credentials have expired, or it has no space.
            None if is_ours(key, *second) => {}
            // Revoked with all that were issued until then.
            None if key != ALL && all.is_some_and(|until| *second <= until) => {}
            None => drop(ours.insert(key.clone(), *second)),
        }
    }
}

/// The same account in the order in which other tools write it.
pub(super) fn normal(account: Account) -> Account {
    let Account { mut imports, mut exports, limits, mut signing_keys, revocations, mappings } = account;
    imports.sort_by(|one, other| (&one.subject, &one.account).cmp(&(&other.subject, &other.account)));
    exports.sort_by(|one, other| one.subject.cmp(&other.subject));
    signing_keys.sort_by(|one, other| one.key.cmp(&other.key));
    Account { imports, exports, limits, signing_keys, revocations, mappings }
}

#[cfg(test)]
mod tests {
    use otherix_testkit::tempdir;
    use serde_json::json;

    use super::super::super::account_key;
    use super::*;

    fn user() -> String {
        KeyPair::generate(KeyKind::User).unwrap().public_key().to_string()
    }

    #[test]
    fn revocations_of_the_servers_are_kept_until_their_credentials_have_expired() {
        let (ours, both, expired, theirs) = (user(), user(), user(), user());
        let callers: Callers = serde_json::from_value(json!({
            "users": {},
            "revoked": { &expired: { "valid_after": 1, "expires_at": "2026-01-01T00:00:00Z" } },
            "enrollments": { "tokens": {}, "nodes": {}, "revoked": {} },
        }))
        .unwrap();
        let mut revoked: RevokedKeys = [(ours.clone(), 5), (both.clone(), 6)].into();
        let of_servers = [(both.clone(), 9), (expired, 1), (theirs.clone(), 3)].into();
        keep_revocations(&mut revoked, &of_servers, &callers);
        assert_eq!(revoked, [(ours.clone(), 5), (both.clone(), 9), (theirs.clone(), 3)].into());

        // What either side revokes as a whole makes single keys superfluous.
        let of_servers = [(theirs.clone(), 8), (both, 4), (ALL.to_owned(), 2)].into();
        let mut revoked: RevokedKeys = [(ours.clone(), 5), (ALL.to_owned(), 7)].into();
        keep_revocations(&mut revoked, &of_servers, &callers);
        assert_eq!(revoked, [(ours, 5), (theirs, 8), (ALL.to_owned(), 7)].into());
    }

    /// U's role was changed at 100, the first administrator was deleted at 110, and U was revoked at 150. The backup is
    /// of 130.
    #[test]
    fn an_older_registry_lifts_no_revocation() {
        let (user, deleted, node, former) = (user(), user(), user(), user());
        let callers: Callers = serde_json::from_value(json!({
            "users": {},
            "revoked": {
                &user: { "valid_after": 100, "expires_at": null }, &deleted: { "valid_after": 110, "expires_at": null },
            },
            "enrollments": { "tokens": {}, "nodes": {}, "revoked": { &node: 90, &former: 120 } },
        }))
        .unwrap();
        let mut revoked: RevokedKeys = [(deleted.clone(), 110), (ALL.to_owned(), 100)].into();
        let theirs = [(user.clone(), 150), (deleted.clone(), 110), (node.clone(), 140), (former, 120)].into();
        keep_revocations(&mut revoked, &theirs, &callers);
        assert_eq!(revoked, [(user, 150), (deleted, 110), (node, 140), (ALL.to_owned(), 100)].into());
    }

    #[test]
    fn nothing_is_taken_from_an_answer_that_the_operator_has_not_signed() {
        let folder = tempdir().unwrap();
        let identity = Identity::load_or_create_accounts(folder.path()).unwrap();
        let [operator, other] = [(); 2].map(|()| KeyPair::generate(KeyKind::Operator).unwrap());
        let token = |name, signer: &KeyPair, issued_at| {
            let mut claims = account_claims(&identity, name, &Revocations::default(), issued_at).unwrap();
            claims.body.revocations = [(ALL.to_owned(), issued_at)].into();
            jwt::encode(claims, signer).unwrap()
        };
        let account = identity.account(AccountName::Nodes).unwrap();
        let present = |tokens: &[String]| {
            let Present { accounts, latest } =
                Present::new(tokens, account, &[operator.public_key().clone()], 1000).unwrap();
            let revoked = accounts.iter().map(|account| account.revocations.get(ALL).copied().unwrap());
            (revoked.collect::<Vec<_>>(), latest)
        };
        let nodes = AccountName::Nodes;
        assert_eq!(present(&[token(nodes, &operator, 5), token(nodes, &other, 7)]), (vec![5], Some(7)));
        let of_itself = account_key(folder.path(), nodes).unwrap();
        assert_eq!(present(&[token(nodes, &of_itself, 5)]), (vec![], Some(5)));
        for ignored in ["x".to_owned(), token(AccountName::Clients, &operator, 5), token(nodes, &other, u64::MAX)] {
            assert_eq!(present(&[ignored]), (vec![], None));
        }
        // The operator's clock was wrong. What was revoked stays revoked.
        let later = 1000 + AHEAD_MAX;
        assert_eq!(present(&[token(nodes, &operator, later)]), (vec![later], None));
        assert_eq!(present(&[token(nodes, &operator, later - 1)]), (vec![later - 1], Some(later - 1)));
    }

    /// Other tools write imports, exports and keys in another order.
    #[test]
    fn only_what_an_account_says_makes_a_difference() {
        let folder = tempdir().unwrap();
        let identity = Identity::load_or_create_accounts(folder.path()).unwrap();
        for name in AccountName::SHARED {
            let account = account_claims(&identity, name, &Revocations::default(), 1).unwrap().body;
            let mut sorted = account.clone();
            sorted.imports.reverse();
            sorted.exports.reverse();
            sorted.signing_keys.reverse();
            assert_eq!(normal(sorted.clone()), normal(account.clone()));
            sorted.signing_keys.pop();
            assert_ne!(normal(sorted), normal(account));
        }
    }
}
