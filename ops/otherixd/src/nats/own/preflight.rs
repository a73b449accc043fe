//! Checks of an existing NATS before the control plane uses it: whatever its operator has to do is said at once and in
//! words, and not by parts of the control plane that wait for each other.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{AccountError, AccountErrorKind};
use otherix_runtime::{Backoff, SystemRuntime};
use otherix_schemas::error::Causes;
use otherix_schemas::permission::Role;
use otherix_transport::nats::ConnectFailure;
use otherix_transport::{Credentials, JetStream, Nats, NatsEndpoint};

use super::super::accounts::AccountName;
use super::super::error::NatsError;
use super::super::program;
use super::super::scope::Scope;
use super::super::unix_now;
use super::{AllUntil, OwnNats, OwnNatsError, connect_once, label};

/// Time-out of a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Delays while no server can be reached, or the servers have no leader.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Further attempts of a user whom a server refuses: it may have been starting. An account that it does not know costs
/// it 2 s each time.
const REFUSED_MAX: u32 = 1;

/// Further attempts to use JetStream, which servers enable when an account is used for the first time.
const DISABLED_MAX: u32 = 3;

pub(super) const SYSTEM_USER: &str = "the user of --nats-system-creds";

/// Connects as soon as a server can be reached.
///
/// # Errors
/// [`OwnNatsError::Connect`], if a server was reached and cannot be used.
pub(super) async fn connect(endpoint: &NatsEndpoint, user: &'static str) -> Result<Nats, OwnNatsError> {
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX, &SystemRuntime);
    let mut refused = 0;
    let mut is_logged = false;
    loop {
        let source = match connect_once(endpoint).await {
            Ok(nats) => return Ok(nats),
            Err(source) => source,
        };
        match &source {
            ConnectFailure::Credentials(_) if refused < REFUSED_MAX => refused += 1,
            ConnectFailure::Address(_)
            | ConnectFailure::Protocol(_)
            | ConnectFailure::Tls(_)
            | ConnectFailure::Credentials(_)
            | ConnectFailure::Refused(_) => {
                return Err(OwnNatsError::Connect { url: endpoint.url.clone(), user, source });
            }
            ConnectFailure::Connect { .. }
            | ConnectFailure::TimedOut(_)
            | ConnectFailure::Closed
            | ConnectFailure::Io(_)
            | ConnectFailure::Unanswered
            | ConnectFailure::Replaced => {
                if !std::mem::replace(&mut is_logged, true) {
                    tracing::warn!(url = endpoint.url, error = %Causes(&source), "NATS cannot be reached yet");
                }
            }
        }
        backoff.sleep().await;
    }
}

/// Checks that a server is new enough.
///
/// # Errors
/// [`OwnNatsError::TooOld`].
pub(crate) fn check_version(server: &str, version: &str) -> Result<(), OwnNatsError> {
    if program::is_new_enough(version) {
        return Ok(());
    }
    Err(OwnNatsError::TooOld { url: server.to_owned(), version: version.to_owned() })
}

/// Checks that all of the control plane's users are accepted, that JetStream can be used where it is needed, and that
/// each server that answers is new enough.
///
/// # Errors
/// If NATS cannot be used.
pub(super) async fn check(nats: &OwnNats, all_until: &AllUntil) -> Result<(), NatsError> {
    let OwnNats { settings, users, .. } = nats;
    let all = settings.url();
    let now = unix_now()?;
    let guest = |role: Role| {
        let scope = Scope::Role(role);
        nats.identity.new_user("check", scope, first_valid(now, all_until.get(&scope.account()).copied()))
    };
    let guest = |role: Role| Ok::<_, NatsError>(Credentials::Key(guest(role)?.into()));
    for (credentials, user) in [
        (&users.relay, "a user of the account OTHERIX-CONTROL"),
        (&users.mirror, "a user of the account OTHERIX-EVENTS"),
        (&guest(Role::Viewer)?, "a user of the account OTHERIX-CLIENTS"),
        (&guest(Role::Node)?, "a user of the account OTHERIX-NODES"),
        (&users.people, "its service for people"),
        (&users.nodes, "its service for nodes"),
    ] {
        drop(connect(&settings.endpoint(all.as_str(), credentials), user).await?);
    }
    for url in settings.urls.each(settings.ca.is_some()) {
        let endpoint = settings.endpoint(url.as_str(), &users.relay);
        // One that does not answer now is not needed now.
        if let Ok(connection) = JetStream::once(&endpoint, "otherixd", CONNECT_TIMEOUT).await {
            check_version(&url, &connection.client().server_info().version)?;
        }
    }
    for (credentials, name) in [(&users.relay, AccountName::Control), (&users.mirror, AccountName::Events)] {
        check_jetstream(&settings.endpoint(all.as_str(), credentials), name).await?;
    }
    Ok(())
}

/// When a credential is issued that an account accepts: at `now`, or just after those that it revokes as a whole.
fn first_valid(now: u64, all_until: Option<u64>) -> u64 {
    all_until.map_or(now, |until| now.max(until.saturating_add(1)))
}

async fn check_jetstream(endpoint: &NatsEndpoint, name: AccountName) -> Result<(), OwnNatsError> {
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX, &SystemRuntime);
    let (mut attempts, mut is_logged, mut is_unreached) = (0, false, false);
    loop {
        let connection = match JetStream::once(endpoint, "otherixd", CONNECT_TIMEOUT).await {
            Ok(connection) => connection,
            Err(error) => {
                if !std::mem::replace(&mut is_unreached, true) {
                    tracing::warn!(url = endpoint.url, error = %Causes(&error), "NATS cannot be reached yet");
                }
                backoff.sleep().await;
                continue;
            }
        };
        let context: Context = connection.context();
        let Err(error) = context.query_account().await else { return Ok(()) };
        attempts += 1;
        if let Some(reason) = refusal(&error)
            && attempts > DISABLED_MAX
        {
            return Err(OwnNatsError::JetStream { account: label(name), reason });
        }
        if !std::mem::replace(&mut is_logged, true) {
            tracing::warn!(account = label(name), error = %Causes(&error), "JetStream does not answer yet");
        }
        backoff.sleep().await;
    }
}

/// Why JetStream cannot be used; `None` while it has no leader or does not answer.
fn refusal(error: &AccountError) -> Option<String> {
    match error.kind() {
        AccountErrorKind::JetStreamUnavailable => Some("no server has it enabled".to_owned()),
        AccountErrorKind::JetStream(error) if error.error_code() == ErrorCode::CLUSTER_NOT_AVAILABLE => None,
        AccountErrorKind::JetStream(error) => Some(error.to_string()),
        AccountErrorKind::TimedOut | AccountErrorKind::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::first_valid;

    #[test]
    fn guests_are_later_than_what_is_revoked_as_a_whole() {
        assert_eq!([None, Some(4), Some(5), Some(9)].map(|until| first_valid(5, until)), [5, 5, 6, 10]);
    }
}
