//! A NATS that `otherixd` does not start: with an operator, a system account and a full resolver of somebody else. Owns
//! the accounts of otherix on it, and nothing else of it.
//!
//! Cancel-safety: [`OwnNats::start`] may be dropped at any await and called again.

mod error;
mod given;
mod preflight;
mod push;
mod replicas;
mod system;
mod urls;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use otherix_identity::{KeyKind, KeyPair};
use otherix_transport::{Credentials, Nats, NatsEndpoint, TrustedCa};

use super::accounts::AccountName;
use super::error::NatsError;
use super::files::read_private;
use super::identity::Identity;
use super::revocation::PUSH_HINT;
use super::revoked_keys::ALL;
use super::server::{AccountAuthority, NatsAccess};
use super::users::ControlPlaneUsers;
use super::{private_folder, unix_now};

pub(crate) use self::error::OwnNatsError;
pub(crate) use self::given::note_given;
pub(super) use self::preflight::check_version;
pub(crate) use self::push::{AccountPusher, Pushed, Wanted, account_claims, label};
pub(crate) use self::replicas::set_replicas;
pub(crate) use self::system::{Server, SystemClient};
pub(crate) use self::urls::ServerUrls;

/// How to use an existing NATS.
#[derive(Clone, Debug)]
pub(crate) struct OwnNatsSettings {
    /// State folder of the control plane.
    state: PathBuf,
    urls: ServerUrls,
    /// `None` if connections need not be encrypted.
    ca: Option<TrustedCa>,
    operator: Option<Arc<KeyPair>>,
    system: Option<Credentials>,
    /// Replicas of stream and mirror; `None` leaves existing ones as they are.
    replicas: Option<usize>,
}

impl OwnNatsSettings {
    /// # Errors
    /// If the CA cannot be read.
    pub(crate) fn new(state: &Path, urls: &ServerUrls, ca: Option<&Path>) -> Result<Self, NatsError> {
        let ca = urls.ca(ca)?;
        Ok(Self { state: state.to_owned(), urls: urls.clone(), ca, operator: None, system: None, replicas: None })
    }

    pub(crate) fn with_replicas(self, replicas: Option<usize>) -> Self {
        Self { replicas, ..self }
    }

    /// Adds what the operator entrusts to otherixd.
    ///
    /// # Errors
    /// If a file cannot be read, others can read it, or it is something else.
    pub(crate) fn with_keys(self, operator: Option<&Path>, system: Option<&Path>) -> Result<Self, NatsError> {
        let operator = operator.map(operator_key).transpose()?.map(Arc::new);
        let system = system.map(Credentials::load).transpose()?;
        Ok(Self { operator, system, ..self })
    }

    fn url(&self) -> String {
        self.urls.render(self.ca.is_some())
    }

    /// Where a user connects.
    pub(crate) fn endpoint_of(&self, credentials: &Credentials) -> NatsEndpoint {
        self.endpoint(self.url(), credentials)
    }

    fn endpoint(&self, url: impl Into<String>, credentials: &Credentials) -> NatsEndpoint {
        NatsEndpoint::new(url, credentials.clone()).with_ca(self.ca.clone())
    }

    /// A connection to the system account, once a server accepts it.
    ///
    /// # Errors
    /// If the servers refuse the credentials, or have other certificates.
    pub(crate) async fn system(&self) -> Result<Option<SystemClient>, NatsError> {
        let Some(credentials) = &self.system else { return Ok(None) };
        let nats = preflight::connect(&self.endpoint_of(credentials), preflight::SYSTEM_USER).await?;
        Ok(Some(SystemClient::new(nats.connection())))
    }
}

/// Reads the seed of an operator's key.
pub(crate) fn operator_key(path: &Path) -> Result<KeyPair, NatsError> {
    let missing = || OwnNatsError::NoOperatorKey(path.to_owned());
    let seed = read_private(path)?.ok_or_else(missing)?;
    let other = |source| OwnNatsError::OperatorKey { path: path.to_owned(), source };
    let pair = KeyPair::from_seed(seed.trim()).map_err(other)?;
    pair.public_key().clone().of_kind(KeyKind::Operator).map_err(other)?;
    Ok(pair)
}

/// The order in which accounts are pushed: first those whose users can be revoked.
const PUSH_ORDER: [AccountName; 5] =
    [AccountName::Nodes, AccountName::State, AccountName::Clients, AccountName::Control, AccountName::Events];

/// The Unix time, in seconds, up to which accounts revoke all credentials.
pub(crate) type AllUntil = BTreeMap<AccountName, u64>;

/// Pushes all accounts. `done` learns of each.
///
/// # Errors
/// The first one. The other accounts, and other servers, are pushed nevertheless.
pub(crate) async fn push_all(
    pusher: &AccountPusher,
    wanted: &Wanted<'_>,
    mut done: impl FnMut(AccountName, &Pushed),
) -> Result<(Vec<Server>, AllUntil), NatsError> {
    let mut checked = pusher.servers().await?;
    let (mut all_until, mut failure) = (AllUntil::new(), checked.failure.take().map(NatsError::from));
    for name in PUSH_ORDER {
        match pusher.push(name, wanted, &checked).await {
            Ok((pushed, until)) => {
                done(name, &pushed);
                all_until.extend(until.map(|until| (name, until)));
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok((checked.servers, all_until)), Err)
}

/// An existing NATS that has the accounts of this state folder.
pub(crate) struct OwnNats {
    settings: OwnNatsSettings,
    identity: Arc<Identity>,
    users: ControlPlaneUsers,
}

impl OwnNats {
    /// Makes missing keys, pushes the accounts if it can, and returns when NATS can be used. Waits for as long as no
    /// server answers.
    ///
    /// # Errors
    /// If NATS cannot be used as it is.
    pub(crate) async fn start(settings: OwnNatsSettings, wanted: Wanted<'_>) -> Result<Self, NatsError> {
        private_folder(&settings.state)?;
        let identity = Arc::new(Identity::load_or_create_accounts(&settings.state)?);
        let users = ControlPlaneUsers::generate(&identity, unix_now()?)?;
        let (clients, nodes) = (&wanted.revoked.clients, &wanted.revoked.nodes);
        let known = [(AccountName::Clients, clients), (AccountName::Nodes, nodes), (AccountName::State, clients)];
        let mut all_until: AllUntil =
            known.iter().filter_map(|(name, revoked)| Some((*name, *revoked.keys.get(ALL)?))).collect();
        if let Some(system) = settings.system().await? {
            // Also tells whether they are credentials of the system account.
            let servers = system.servers().await?;
            tracing::debug!(?servers, "the NATS servers");
            if let Some(operator) = settings.operator.clone() {
                let pusher = AccountPusher { identity: Arc::clone(&identity), operator, system };
                let servers = push_all(&pusher, &wanted, |name, pushed| {
                    if let Pushed::Changed { earlier, missing } = pushed {
                        tracing::info!(
                            account = label(name),
                            earlier,
                            missing,
                            "pushed an account to the NATS servers"
                        );
                    }
                });
                let (servers, pushed_until) = servers.await?;
                all_until.extend(pushed_until);
                tracing::info!(servers = servers.len(), "the NATS servers have the accounts");
            }
        }
        if settings.operator.is_some() {
            note_given(&settings.state, &identity)?;
        } else if given::have_changed(&settings.state, &identity)? {
            tracing::warn!(
                hint = PUSH_HINT,
                "this version of otherix has other accounts than those that were printed or pushed last"
            );
        }
        let started = Self { settings, identity, users };
        preflight::check(&started, &all_until).await?;
        Ok(started)
    }

    /// How the control plane connects.
    pub(crate) fn access(&self) -> NatsAccess {
        let Self { settings, identity, users } = self;
        let ControlPlaneUsers { claims: _, relay, people, nodes, mirror, state, state_mirrors } = users;
        let url = settings.url();
        let endpoint = |credentials: &Credentials| settings.endpoint(url.as_str(), credentials);
        NatsAccess {
            claims: settings.system.as_ref().map(endpoint),
            relay: endpoint(relay),
            people: endpoint(people),
            nodes: endpoint(nodes),
            mirror: endpoint(mirror),
            state: endpoint(state),
            state_mirrors: endpoint(state_mirrors),
            identity: Arc::clone(identity),
            accounts: match &settings.operator {
                Some(operator) => AccountAuthority::Operator(Arc::clone(operator)),
                None => AccountAuthority::SomebodyElse,
            },
            replicas: settings.replicas,
            log: None,
            restart: None,
            url,
        }
    }
}

/// A connection as one of the control plane's users, for one check.
async fn connect_once(endpoint: &NatsEndpoint) -> Result<Nats, otherix_transport::nats::ConnectFailure> {
    Nats::once(endpoint, "otherixd", preflight::CONNECT_TIMEOUT).await.map_err(|error| error.source)
}

#[cfg(test)]
mod tests;
