//! What the NATS server refuses by itself: who tried what from where is counted and logged in the same way as what the
//! services refuse. Violations of permissions are in the server's log only; failed authentications are told by it on a
//! subject of the system account, with the credential, which names the user.
//!
//! Cancel-safety: [`NatsRefusals::run`] may be dropped at any await.

mod advisory;
mod follow;
mod line;
mod violation;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use otherix_runtime::{LogLimit, Runtime};
use otherix_schemas::error::Causes;
use otherix_schemas::user::{Caller, Callers};
use otherix_schemas::value::UserId;
use otherix_transport::{Connection, Denials, NatsRefusal, shown};
use tokio::sync::watch;
use tokio::time::sleep;

use self::advisory::AuthFailure;
use self::follow::LogFollower;
pub(crate) use self::follow::LogPosition;
use self::violation::Violation;

/// The subject on which a server tells of failed authentications, after `$SYS.SERVER.<id>`.
pub(super) const AUTH_FAILURES: &str = "$SYS.SERVER.*.CLIENT.AUTH.ERR";

/// Interval of looking for lines in the server's log.
const POLL: Duration = Duration::from_millis(250);

/// Pause before another attempt to subscribe.
const RETRY: Duration = Duration::from_secs(1);

/// Violations of permissions.
static VIOLATIONS: Denials = Denials::new();

/// Where a NATS tells of what it refuses.
pub(crate) struct RefusalSource {
    /// The log of an embedded server, and the position from which on it is followed. Violations of permissions are
    /// nowhere else.
    pub(crate) log: Option<(PathBuf, LogPosition)>,
    /// A connection to the system account.
    pub(crate) claims: Option<Connection>,
    /// The server has users of others, too, about whom nothing is counted.
    pub(crate) is_shared: bool,
}

/// Counts and logs what the server refuses.
pub(crate) struct NatsRefusals {
    source: RefusalSource,
    callers: watch::Receiver<Callers>,
    runtime: Arc<dyn Runtime>,
}

impl NatsRefusals {
    pub(crate) fn new(source: RefusalSource, callers: watch::Receiver<Callers>, runtime: Arc<dyn Runtime>) -> Self {
        Self { source, callers, runtime }
    }

    /// Runs until the future is dropped.
    pub(crate) async fn run(self) -> Infallible {
        let Self { source: RefusalSource { log, claims, is_shared }, callers, runtime } = self;
        let follower = log.map(|(log, begin)| LogFollower::new(log, begin));
        tokio::select! {
            never = follow(follower, &callers, &runtime) => never,
            never = subscribe(claims, is_shared, &callers, &runtime) => never,
        }
    }
}

/// Counts violations of permissions.
async fn follow(
    mut follower: Option<LogFollower>,
    callers: &watch::Receiver<Callers>,
    runtime: &Arc<dyn Runtime>,
) -> Infallible {
    let failed = LogLimit::default();
    let skipped = LogLimit::default();
    loop {
        // There is no log. Or the task was lost, which happens only if the process ends.
        let Some(mut reading) = follower.take() else { return std::future::pending().await };
        let read = runtime.run_blocking("read NATS's log", move || {
            let mut violations = Vec::new();
            let read = reading.read(|line| violations.extend(Violation::parse(line)));
            (reading, violations, read)
        });
        if let Ok((reading, violations, read)) = read.await {
            follower = Some(reading);
            for violation in violations {
                violation.count(&callers.borrow());
            }
            match read {
                Ok(0) => {}
                Ok(bytes) => {
                    if let Some(count) = skipped.hit() {
                        tracing::warn!(bytes, count, "too much is logged by NATS: not all refusals are counted");
                    }
                }
                Err(error) => {
                    if let Some(count) = failed.hit() {
                        tracing::warn!(%error, count, "cannot read NATS's log: refusals of NATS are not counted");
                    }
                }
            }
        }
        sleep(POLL).await;
    }
}

/// Counts failed authentications.
async fn subscribe(
    claims: Option<Connection>,
    is_shared: bool,
    callers: &watch::Receiver<Callers>,
    runtime: &Arc<dyn Runtime>,
) -> Infallible {
    let Some(claims) = claims else { return std::future::pending().await };
    loop {
        match claims.subscribe(AUTH_FAILURES).await {
            Ok(mut failures) => {
                while let Some(message) = failures.next().await {
                    let failure = AuthFailure::parse(&message.payload);
                    let is_other = |failure: &AuthFailure| is_shared && !failure.is_of_ours(&callers.borrow());
                    if let Some(failure) = failure.filter(|failure| !is_other(failure)) {
                        failure.count(&callers.borrow(), runtime.now().ok());
                    }
                }
            }
            Err(error) => tracing::debug!(error = %Causes(&error), "failed authentications are not counted now"),
        }
        sleep(RETRY).await;
    }
}

/// The user or node that has this key, or had its credential revoked.
fn known(callers: &Callers, key: &UserId) -> Option<Caller> {
    if let Ok(caller) = callers.find(key, None) {
        return Some(caller);
    }
    let (id, user) = callers.users().iter().find(|(_, user)| user.key.as_str() == key.as_str())?;
    let (name, role, expires_at) = (user.name.to_string(), user.role.into(), user.expires_at);
    Some(Caller { key: key.clone(), id: (*id).into(), name, role, expires_at })
}

impl Violation {
    fn count(&self, callers: &Callers) {
        let Self { key, host, client, attempt, subject } = self;
        let caller = key.parse().ok().and_then(|key| known(callers, &key));
        let subject = subject.as_deref().map_or_else(|| "an unknown subject".to_owned(), |s| format!("`{}`", shown(s)));
        let error = format!("NATS does not permit to {} {subject}", attempt.verb());
        let (caller, permission) = (caller.as_ref(), self.permission());
        let (host, client) = (host.as_deref(), client.as_deref());
        NatsRefusal { key, caller, permission, host, client, error: &error }.count(&VIOLATIONS);
    }
}
