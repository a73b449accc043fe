//! `otherix-agent join`: makes this machine a node of the cluster whose join token it has. Starts nothing.
//!
//! The node's key is made here and written before the token is redeemed; `connection.json` is written last. Killed at
//! any line, and repeated with the same token, a join is completed: the control plane gives the same answer for the
//! same key.

mod error;
mod pending;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use otherix_identity::{Creds, JoinToken, KeyKind, KeyPair};
use otherix_runtime::files;
use otherix_schemas::enrollment::{EnrollNode, GetEnrolledNode, NewNodeKey, NodeCredentialView, NodeToEnroll};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::id::ClusterId;
use otherix_schemas::value::{NodeName, UserKey};
use otherix_transport::request::{CallError, CallOptions};
use otherix_transport::{Connection, Credentials, Nats, NatsEndpoint, TrustedCa};

use self::pending::PendingJoin;
use crate::connection::{CA, CREDENTIALS, ConnectionSettings, NEXT_CREDENTIALS};
use crate::identity::{self, FolderLock};
use crate::left;
use crate::release::{self, ReleasedLineage};
use crate::trust::Trust;

pub use self::error::JoinError;

/// How long connecting may take, and each request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How a machine joins.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    pub token: JoinToken,
    /// The state folder.
    pub state: PathBuf,
    /// The node's name; `None`: that of the token, or of the machine.
    pub name: Option<NodeName>,
    /// The URL of NATS, if it is not that of the token.
    pub server: Option<String>,
}

/// The steps of a join, in their order. Each is either done or not, also after a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinStep {
    /// The node's key is written.
    WriteKey,
    /// The control plane registers the key.
    Enroll,
    /// The control plane is asked for the credential.
    ObtainCredential,
    WriteNodeId,
    WriteDecisionKey,
    WriteCa,
    WriteCredentials,
    /// From now on, the agent can run.
    WriteSettings,
    /// The key that was written first is removed.
    RemoveKey,
}

/// Joins. `on_step` is called before each step.
///
/// # Errors
/// [`JoinError`], and the errors of `on_step`.
pub async fn join(
    options: JoinOptions,
    on_step: &mut (dyn FnMut(JoinStep) -> Result<(), JoinError> + Send),
) -> Result<ConnectionSettings, JoinError> {
    let JoinOptions { token, state, name, server } = options;
    let lock = FolderLock::take(&state)?;
    let token_key = user_key(token.creds.public_key())?;
    let joined = ConnectionSettings::read(&state)?;
    let before = PendingJoin::read(&state, &token_key)?;
    if let (Some(joined), None) = (&joined, &before)
        && joined.token == token_key
        && name.as_ref().is_none_or(|name| name.key() == joined.name.key())
        && Creds::load(&state.join(CREDENTIALS)).is_ok()
    {
        return Ok(joined.clone());
    }
    let trust = Trust::load(&state)?;
    if let Some(known) = trust.key().filter(|known| *known != token.decision_key) {
        return Err(JoinError::OtherControlPlane { folder: state, known, found: token.decision_key });
    }
    let ca = token.ca.as_ref().map(|pem| TrustedCa::parse(pem.as_bytes(), &state.join(CA)));
    let ca = ca.transpose().map_err(JoinError::Ca)?;
    let pending = pending(&state, &token, before, name)?;
    let server = server.unwrap_or_else(|| token.server.clone());
    let endpoint = NatsEndpoint::new(server.clone(), Credentials::Key(token.creds.clone().into())).with_ca(ca);
    // A server that cannot be used leaves nothing behind.
    let connected = Nats::once(&endpoint, "otherix-agent join", TIMEOUT).await;
    let nats = connected.map_err(|error| JoinError::from(error).unless_expired(&token.creds))?;
    on_step(JoinStep::WriteKey)?;
    pending.write(&state, &token_key).map_err(|source| JoinError::Write { path: state.join("join.json"), source })?;
    let answer = redeem(&nats, &state, &pending, on_step).await;
    let answer = answer.map_err(|error| error.unless_expired(&token.creds))?;
    let NodeCredentialView { cluster, node_id, name, key, jwt, decision_key: _ } = answer;
    if key.as_str() != pending.key.public_key().as_str() {
        return Err(JoinError::OtherKey);
    }
    let creds = Creds::new(jwt, pending.key)?;
    if let Some(known) = cluster_of(&state, joined.as_ref()).filter(|known| *known != cluster) {
        return Err(JoinError::OtherCluster { folder: state, known, found: cluster });
    }
    if let Some((own, _)) = identity::stored(&state)?.filter(|(own, _)| *own != node_id) {
        return Err(JoinError::OtherNode { folder: state, own, joined: node_id });
    }
    on_step(JoinStep::WriteNodeId)?;
    lock.assign(&state, node_id)?;
    on_step(JoinStep::WriteDecisionKey)?;
    // That of the token, which nobody in between could change. A key that has succeeded it is signed with it.
    trust.keep(token.decision_key)?;
    let settings = ConnectionSettings { server, has_ca: token.ca.is_some(), cluster, name, token: token_key };
    write(&state, token.ca.as_deref(), &creds, &settings, on_step)?;
    Ok(settings)
}

/// Whether a join was interrupted.
pub(crate) fn is_interrupted(state: &Path) -> bool {
    pending::exists(state)
}

/// The join that was interrupted, or a new one.
fn pending(
    state: &Path,
    token: &JoinToken,
    before: Option<PendingJoin>,
    name: Option<NodeName>,
) -> Result<PendingJoin, JoinError> {
    if let Some(before) = before {
        return match name.filter(|name| name.key() != before.name.key()) {
            Some(_) => Err(JoinError::OtherPendingName { pending: before.name }),
            None => Ok(before),
        };
    }
    let stored = || Ok::<_, JoinError>(ConnectionSettings::read(state)?.map(|settings| settings.name));
    let name = match name.or_else(|| token.name.clone()) {
        Some(name) => name,
        None => stored()?.map_or_else(host_name, Ok)?,
    };
    if let Some(named) = token.name.as_ref().filter(|named| named.key() != name.key()) {
        return Err(JoinError::OtherName { named: named.clone(), name });
    }
    Ok(PendingJoin { name, key: KeyPair::generate(KeyKind::User).map_err(JoinError::Key)? })
}

/// The name of this machine, without its domain.
fn host_name() -> Result<NodeName, JoinError> {
    let name = rustix::system::uname();
    let name = name.nodename().to_str().map_err(|error| JoinError::HostName(io::Error::other(error)))?;
    let name = name.split('.').next().unwrap_or_default();
    name.parse().map_err(|error| JoinError::HostName(io::Error::other(error)))
}

/// Has the key registered, and obtains its credential.
async fn redeem(
    nats: &Connection,
    state: &Path,
    PendingJoin { name, key }: &PendingJoin,
    on_step: &mut (dyn FnMut(JoinStep) -> Result<(), JoinError> + Send),
) -> Result<NodeCredentialView, JoinError> {
    let options = || CallOptions { timeout: TIMEOUT, idempotency_key: None };
    let key = user_key(key.public_key())?;
    let node_id = identity::stored(state)?.map(|(node_id, _)| node_id);
    on_step(JoinStep::Enroll)?;
    let request = NodeToEnroll { name: name.clone(), key: key.clone(), node_id };
    if let Err(error) = nats.call::<EnrollNode>(&request, options()).await {
        if is_final(&error) {
            // The next attempt may have another name.
            pending::remove(state).map_err(|source| JoinError::Write { path: state.join("join.json"), source })?;
        }
        return Err(error.into());
    }
    on_step(JoinStep::ObtainCredential)?;
    Ok(nats.call::<GetEnrolledNode>(&NewNodeKey { key }, options()).await?.data)
}

/// Whether the key was certainly not registered, and will not be.
fn is_final(error: &CallError) -> bool {
    match error {
        CallError::Refused(body) => match body.error.code {
            ErrorCode::Conflict | ErrorCode::ValidationFailed | ErrorCode::NotFound => true,
            ErrorCode::Unauthenticated
            | ErrorCode::PermissionDenied
            | ErrorCode::IdempotencyKeyMismatch
            | ErrorCode::Unavailable
            | ErrorCode::Internal => false,
        },
        CallError::NoService { .. }
        | CallError::TimedOut { .. }
        | CallError::Transport { .. }
        | CallError::Malformed(_) => false,
    }
}

/// The cluster whose node this folder is.
pub(crate) fn cluster_of(state: &Path, joined: Option<&ConnectionSettings>) -> Option<ClusterId> {
    match release::released(state) {
        ReleasedLineage::Lineage(lineage) => Some(lineage.cluster),
        ReleasedLineage::Undecided | ReleasedLineage::Nothing => joined.map(|joined| joined.cluster),
    }
}

fn user_key(key: &otherix_identity::PublicKey) -> Result<UserKey, JoinError> {
    UserKey::parse(key.as_str()).map_err(|_| JoinError::OtherKey)
}

/// Writes what the agent connects with.
fn write(
    state: &Path,
    ca: Option<&str>,
    creds: &Creds,
    settings: &ConnectionSettings,
    on_step: &mut (dyn FnMut(JoinStep) -> Result<(), JoinError> + Send),
) -> Result<(), JoinError> {
    let failed = |name: &str| {
        let path = state.join(name);
        move |source| JoinError::Write { path, source }
    };
    on_step(JoinStep::WriteCa)?;
    match ca {
        Some(pem) => files::replace(&state.join(CA), pem.as_bytes()).map_err(failed(CA))?,
        None => files::remove(&state.join(CA)).map_err(failed(CA))?,
    }
    on_step(JoinStep::WriteCredentials)?;
    // A rotation of the earlier key.
    files::remove(&state.join(NEXT_CREDENTIALS)).map_err(failed(NEXT_CREDENTIALS))?;
    files::replace(&state.join(CREDENTIALS), creds.render().as_bytes()).map_err(failed(CREDENTIALS))?;
    // The node is one again.
    left::forget(state).map_err(failed("left"))?;
    on_step(JoinStep::WriteSettings)?;
    settings.write(state).map_err(failed("connection.json"))?;
    on_step(JoinStep::RemoveKey)?;
    pending::remove(state).map_err(failed("join.json"))
}
