//! Pushes the accounts to the servers of an existing NATS: signed by its operator, only if they differ from what the
//! servers have, always with a later time than these, and without dropping a revocation that only they have.

use std::sync::Arc;

use otherix_identity::KeyPair;
use otherix_identity::jwt::{self, Account, Claims};
use otherix_schemas::user::Callers;
use otherix_schemas::value::UserId;

use super::super::accounts::{self, AccountName, Revocations};
use super::super::error::NatsError;
use super::super::identity::Identity;
use super::super::revoked_keys::{ALL, RevokedKeys};
use super::super::unix_now;
use super::OwnNatsError;
use super::system::{Server, SystemClient};

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
    /// The servers, all of which are new enough and trust the operator's key.
    ///
    /// # Errors
    /// If they cannot be used.
    pub(crate) async fn servers(&self) -> Result<Vec<Server>, OwnNatsError> {
        let servers = self.system.servers().await?;
        if !self.system.has_full_resolver().await? {
            return Err(OwnNatsError::NoFullResolver);
        }
        for server in &servers {
            super::check_version(&server.name, &server.version)?;
            self.system.check_trust(server, self.operator.public_key()).await?;
        }
        Ok(servers)
    }

    /// Pushes an account to `servers`. A revocation that only the servers have is kept, unless it is about a user whose
    /// credentials have expired.
    ///
    /// # Errors
    /// If a server does not take it.
    pub(crate) async fn push(
        &self,
        name: AccountName,
        wanted: &Wanted<'_>,
        servers: &[Server],
    ) -> Result<Pushed, NatsError> {
        let Wanted { revoked, callers, is_dry_run } = *wanted;
        let key = self.identity.account(name)?;
        let (count, label) = (servers.len(), label(name));
        let tokens = self.system.lookup(key, count).await?;
        let present = tokens.iter().map(|token| decode(token, &label)).collect::<Result<Vec<_>, _>>()?;
        let mut claims = account_claims(&self.identity, name, revoked, unix_now()?)?;
        for theirs in &present {
            keep_revocations(&mut claims.body.revocations, &theirs.body.revocations, callers);
            claims.issued_at = claims.issued_at.max(theirs.issued_at + 1);
        }
        let wanted = normal(claims.body.clone());
        let is_current = |theirs: &&Claims<Account>| {
            let is_ours = theirs.issuer.as_ref().is_some_and(|issuer| issuer != key);
            is_ours && normal(theirs.body.clone()) == wanted
        };
        let same = present.iter().filter(is_current).count();
        if same >= count {
            return Ok(Pushed::Same);
        }
        let (earlier, missing) = (present.len() - same, count.saturating_sub(present.len()));
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
        Ok(Pushed::Changed { earlier, missing })
    }
}

fn decode(token: &str, account: &str) -> Result<Claims<Account>, OwnNatsError> {
    let unreadable = |error: jwt::JwtError| OwnNatsError::Unreadable {
        account: account.to_owned(),
        reason: otherix_schemas::error::Causes(&error).to_string(),
    };
    jwt::decode::<Account>(token.trim()).map_err(unreadable)
}

/// Adds what only the servers revoke, and takes the later time of both.
fn keep_revocations(ours: &mut RevokedKeys, theirs: &RevokedKeys, callers: &Callers) {
    let is_ours = |key: &str| key.parse::<UserId>().is_ok_and(|key| callers.revoked().contains_key(&key));
    let all = ours.get(ALL).max(theirs.get(ALL)).copied();
    for (key, second) in theirs {
        match ours.get_mut(key) {
            Some(own) => *own = (*own).max(*second),
            // Its credentials have expired.
            None if is_ours(key) => {}
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
    use otherix_identity::KeyKind;
    use otherix_testkit::tempdir;
    use serde_json::json;

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
