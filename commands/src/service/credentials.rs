//! Lookups of who may make requests: the caller itself, join tokens, and the JWTs of credentials. Answered from the
//! registry as of the last durable event, so that no credential is issued without its event.

use bytes::Bytes;
use otherix_schemas::decision_chain::DecisionKey;
use otherix_schemas::enrollment::{
    AllJoinTokens, Enrollments, GetEnrolledNode, GetJoinTokenCredential, GetNodeCredential, JoinTokenById,
    JoinTokenCredentialView, JoinTokenView, ListJoinTokens, NewNodeKey, NodeCredentialView, NodeKeys, RegisteredToken,
};
use otherix_schemas::error::{Causes, ErrorBody, ErrorCode};
use otherix_schemas::id::{ClusterId, JoinTokenId, NodeId, UserUuid};
use otherix_schemas::permission::{Grant, Permission, Role};
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, Meta, RequestType};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::{
    Caller, CallerView, Callers, CredentialView, GetCredential, Myself, RegisteredUser, UserCommand, UserOrMyself,
    UserRole, WhoAmI,
};
use otherix_schemas::value::{NodeName, UserId, UserKey};
use otherix_transport::service::Call;
use serde::Serialize;

/// Most join tokens in one answer: those that were created last.
const LISTED_MAX: usize = 1000;

/// Signs the JWTs of NATS users.
pub trait Issuer: Send + Sync {
    /// Returns the JWT of a credential.
    ///
    /// # Errors
    /// If it cannot be signed.
    fn user_jwt(&self, credential: &Credential) -> Result<String, IssueError>;

    /// Returns the JWT with which the same key reads the buckets of the state; `None` for nodes.
    ///
    /// # Errors
    /// If it cannot be signed.
    fn state_jwt(&self, credential: &Credential) -> Result<Option<String>, IssueError> {
        let _ = credential;
        Ok(None)
    }
}

/// What a JWT says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    pub key: UserKey,
    pub name: String,
    pub role: Role,
    /// `None`: never.
    pub expires_at: Option<Timestamp>,
    /// Its `iat`, as Unix time in seconds. No other value will do: later, the credential would survive a change of its
    /// holder within that time; earlier, it is revoked already. May be some seconds in the future if a user was changed
    /// several times within a second.
    pub issued_at: i64,
}

/// A JWT could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("cannot sign the credential")]
pub struct IssueError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl IssueError {
    /// Wraps the cause.
    pub fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// Checks what a decision about a user, which does not know who asks, cannot.
///
/// # Errors
/// `conflict` if somebody would lock itself out.
pub(super) fn check(command: &UserCommand, caller: &Caller) -> Result<(), ErrorBody> {
    if let UserCommand::Rotate { user_id, .. } = command
        && UserId::from(*user_id) == caller.id
    {
        let text = "you cannot rotate your own key: your connection would end before the new credential arrives; ask \
                    another admin";
        return Err(ErrorBody::new(ErrorCode::Conflict, text));
    }
    Ok(())
}

/// What a lookup found in the registry.
pub(super) enum Found {
    Caller(CallerView),
    JoinTokens(Vec<JoinTokenView>),
    /// A credential, for this answer.
    Credential(Holder, Credential),
}

/// Whose credential it is.
pub(super) enum Holder {
    User(UserUuid, UserRole),
    JoinToken(JoinTokenId),
    Node(NodeId, NodeName),
}

/// What answers to lookups contain beside what was found.
pub(super) struct Issuing<'a> {
    pub(super) issuer: &'a dyn Issuer,
    pub(super) cluster: ClusterId,
    pub(super) decision_key: DecisionKey,
}

/// Carries out a lookup, as far as it needs the registry, which the writer waits for meanwhile.
pub(super) fn look_up(call: &Call, callers: &Callers, now: Option<Timestamp>) -> Result<Found, ErrorBody> {
    let enrollments = callers.enrollments();
    match call.request.name {
        WhoAmI::NAME => whoami(call).map(Found::Caller),
        GetCredential::NAME => user_credential(call, callers),
        ListJoinTokens::NAME => join_tokens(call, enrollments, now).map(Found::JoinTokens),
        GetJoinTokenCredential::NAME => token_credential(call, enrollments, now),
        GetEnrolledNode::NAME => {
            node_credential(call, enrollments, |_, keys| call.caller.id == UserId::from(keys.token_id))
        }
        GetNodeCredential::NAME => node_credential(call, enrollments, |id, _| call.caller.id == UserId::from(id)),
        name => Err(ErrorBody::new(ErrorCode::NotFound, format!("`{name}` is not a lookup"))),
    }
}

/// Answers a lookup. `position` is the last event that the registry contained.
pub(super) fn answer(found: Found, position: Position, issuing: &Issuing<'_>) -> Result<Bytes, ErrorBody> {
    let (holder, credential) = match found {
        Found::Caller(view) => return encode(position, view),
        Found::JoinTokens(views) => return encode(position, views),
        Found::Credential(holder, credential) => (holder, credential),
    };
    let jwt = issuing.issuer.user_jwt(&credential).map_err(|error| unsigned(&credential, &error))?;
    let state_jwt = issuing.issuer.state_jwt(&credential).map_err(|error| unsigned(&credential, &error))?;
    let decision_key = issuing.decision_key;
    let Credential { key, name, expires_at, .. } = credential;
    match holder {
        Holder::User(id, role) => {
            let name = name.parse().map_err(|_| internal("a user's name is not a name"))?;
            encode(position, CredentialView { id, name, role, key, expires_at, jwt, state_jwt })
        }
        Holder::JoinToken(id) => encode(position, JoinTokenCredentialView { id, jwt, decision_key }),
        Holder::Node(node_id, name) => {
            let cluster = issuing.cluster;
            encode(position, NodeCredentialView { cluster, node_id, name, key, jwt, decision_key })
        }
    }
}

fn internal(text: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, text)
}

pub(super) fn encode<Data: Serialize>(position: Position, data: Data) -> Result<Bytes, ErrorBody> {
    let answer = serde_json::to_vec(&Answer { data, meta: Meta::at(position) });
    answer.map(Bytes::from).map_err(|error| ErrorBody::new(ErrorCode::Internal, error.to_string()))
}

fn whoami(call: &Call) -> Result<CallerView, ErrorBody> {
    let Myself {} = call.json()?;
    let caller = call.caller.clone();
    let with = |grant| {
        let permissions = Permission::ALL.into_iter().filter(|permission| caller.role.grant(*permission) == grant);
        permissions.map(|permission| permission.as_str().to_owned()).collect()
    };
    let (permissions, permissions_for_own) = (with(Grant::Any), with(Grant::Own));
    let (id, name, role) = (caller.id.clone(), caller.name.clone(), caller.role);
    let (key, expires_at) = (caller.key.clone(), caller.expires_at);
    Ok(CallerView { id, name, role, key, expires_at, permissions, permissions_for_own })
}

fn user_credential(call: &Call, callers: &Callers) -> Result<Found, ErrorBody> {
    let UserOrMyself { id } = call.json()?;
    let own: Option<UserUuid> = call.caller.id.as_str().parse().ok();
    if id.is_some_and(|id| UserId::from(id) != call.caller.id) {
        call.require(Permission::UserManage)?;
    }
    let not_found = || {
        let text = id.or(own).map_or_else(
            || format!("`{}` is not a user with credentials of its own", call.caller.name),
            |id| format!("there is no user `{id}` with a valid credential: it does not exist, or is revoked"),
        );
        ErrorBody::new(ErrorCode::NotFound, text)
    };
    let id = id.or(own).ok_or_else(not_found)?;
    let user = callers.users().get(&id).filter(|user| user.revoked_at.is_none()).ok_or_else(not_found)?;
    let RegisteredUser { name, role, key, expires_at, valid_after, .. } = user.clone();
    let (name, issued_at) = (name.to_string(), valid_after + 1);
    let credential = Credential { key, name, role: role.into(), expires_at, issued_at };
    Ok(Found::Credential(Holder::User(id, role), credential))
}

fn join_tokens(
    call: &Call,
    enrollments: &Enrollments,
    now: Option<Timestamp>,
) -> Result<Vec<JoinTokenView>, ErrorBody> {
    let AllJoinTokens {} = call.json()?;
    let now = now.ok_or_else(|| ErrorBody::new(ErrorCode::Unavailable, "the control plane's clock is out of range"))?;
    let tokens = enrollments.tokens();
    let surplus = tokens.len().saturating_sub(LISTED_MAX);
    Ok(tokens.iter().skip(surplus).map(|(id, token)| token.view(*id, now)).collect())
}

fn token_credential(call: &Call, enrollments: &Enrollments, now: Option<Timestamp>) -> Result<Found, ErrorBody> {
    let JoinTokenById { id } = call.json()?;
    let can_connect =
        |token: &&RegisteredToken| token.revoked_at.is_none() && now.is_some_and(|now| token.expires_at > now);
    let token = enrollments.tokens().get(&id).filter(can_connect).ok_or_else(|| {
        let text = format!("there is no join token `{id}`, or it has expired or is revoked");
        ErrorBody::new(ErrorCode::NotFound, text)
    })?;
    let (key, name, issued_at) = (token.key.clone(), id.to_string(), token.issued_at());
    let credential = Credential { key, name, role: Role::NodeJoin, expires_at: Some(token.expires_at), issued_at };
    Ok(Found::Credential(Holder::JoinToken(id), credential))
}

/// The credential of a node's key, if the caller may have it.
fn node_credential(
    call: &Call,
    enrollments: &Enrollments,
    may_have: impl FnOnce(NodeId, &NodeKeys) -> bool,
) -> Result<Found, ErrorBody> {
    let NewNodeKey { key } = call.json()?;
    let found = enrollments.node_of(&key).filter(|(id, keys)| may_have(*id, keys));
    let found = found.and_then(|(id, keys)| Some((id, keys, keys.find(&key)?.issued_at)));
    let (id, keys, issued_at) = found.ok_or_else(|| {
        ErrorBody::new(ErrorCode::NotFound, format!("`{}` has registered no key `{key}`", call.caller.name))
    })?;
    let name = keys.name.to_string();
    let credential = Credential { key, name, role: Role::Node, expires_at: None, issued_at };
    Ok(Found::Credential(Holder::Node(id, keys.name.clone()), credential))
}

fn unsigned(credential: &Credential, error: &IssueError) -> ErrorBody {
    let Credential { key, name, .. } = credential;
    tracing::error!(%key, name, error = %Causes(error), "a credential could not be issued");
    ErrorBody::new(ErrorCode::Internal, error.to_string())
}
