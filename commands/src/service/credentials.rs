//! Lookups of users: who makes the request, and the JWT of a user's credentials. Answered from the registry as of the
//! last durable event, so that no credential is issued without its event.

use bytes::Bytes;
use otherix_schemas::error::{Causes, ErrorBody, ErrorCode};
use otherix_schemas::id::UserUuid;
use otherix_schemas::permission::{Grant, Permission};
use otherix_schemas::position::Position;
use otherix_schemas::request::{Answer, Meta, RequestType};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::{
    Caller, CallerView, Callers, CredentialView, GetCredential, Myself, NewUser, RegisteredUser, UserCommand,
    UserOrMyself, UserRole, WhoAmI,
};
use otherix_schemas::value::{UserId, UserKey, UserName};
use otherix_transport::service::Call;
use serde::Serialize;

/// Signs the JWTs of users.
pub trait Issuer: Send + Sync {
    /// Returns the NATS user JWT of a credential.
    ///
    /// # Errors
    /// If it cannot be signed.
    fn user_jwt(&self, credential: &UserCredential) -> Result<String, IssueError>;
}

/// What a user's JWT says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserCredential {
    pub key: UserKey,
    pub name: UserName,
    pub role: UserRole,
    /// `None`: never.
    pub expires_at: Option<Timestamp>,
    /// The second (Unix time) up to which earlier credentials of the user are revoked.
    pub valid_after: i64,
}

impl UserCredential {
    /// The `iat` of the JWT, as Unix time in seconds. No other value will do: later, the credential would survive a
    /// change of the user within that time; earlier, it is revoked already. May be some seconds in the future if the
    /// user was changed several times within a second.
    pub fn issued_at(&self) -> i64 {
        self.valid_after + 1
    }
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

/// Checks what a decision about a user, which knows users only, cannot.
///
/// # Errors
/// `conflict` if somebody would lock itself out, or take over the key of a caller that is not a user.
pub(super) fn check(command: &UserCommand, caller: &Caller, callers: &Callers) -> Result<(), ErrorBody> {
    if let UserCommand::Rotate { user_id, .. } = command
        && UserId::from(*user_id) == caller.id
    {
        let text = "you cannot rotate your own key: your connection would end before the new credential arrives; ask \
                    another admin";
        return Err(ErrorBody::new(ErrorCode::Conflict, text));
    }
    let key = match command {
        UserCommand::Create { user: NewUser { key, .. }, .. } | UserCommand::Rotate { key, .. } => UserId::from(key),
        UserCommand::CreateFirst { .. }
        | UserCommand::SetRole { .. }
        | UserCommand::Revoke { .. }
        | UserCommand::Delete { .. } => return Ok(()),
    };
    match callers.built_in(&key) {
        Some(owner) => {
            let text = format!("the key `{key}` is that of `{}`: generate another one", owner.name);
            Err(ErrorBody::new(ErrorCode::Conflict, text))
        }
        None => Ok(()),
    }
}

/// What a lookup found in the registry.
pub(super) enum Found {
    Caller(CallerView),
    User(UserUuid, UserCredential),
}

/// Carries out a lookup, as far as it needs the registry, which the writer waits for meanwhile.
pub(super) fn look_up(call: &Call, callers: &Callers) -> Result<Found, ErrorBody> {
    match call.request.name {
        WhoAmI::NAME => whoami(call).map(Found::Caller),
        GetCredential::NAME => credential(call, callers),
        name => Err(ErrorBody::new(ErrorCode::NotFound, format!("`{name}` is not a lookup"))),
    }
}

/// Answers a lookup. `position` is the last event that the registry contained.
pub(super) fn answer(found: Found, position: Position, issuer: &dyn Issuer) -> Result<Bytes, ErrorBody> {
    match found {
        Found::Caller(view) => encode(position, view),
        Found::User(id, credential) => encode(position, issue(id, credential, issuer)?),
    }
}

fn encode<Data: Serialize>(position: Position, data: Data) -> Result<Bytes, ErrorBody> {
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

fn credential(call: &Call, callers: &Callers) -> Result<Found, ErrorBody> {
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
    Ok(Found::User(id, UserCredential { key, name, role, expires_at, valid_after }))
}

fn issue(id: UserUuid, credential: UserCredential, issuer: &dyn Issuer) -> Result<CredentialView, ErrorBody> {
    let jwt = issuer.user_jwt(&credential).map_err(|error| {
        tracing::error!(user = %id, error = %Causes(&error), "a credential could not be issued");
        ErrorBody::new(ErrorCode::Internal, error.to_string())
    })?;
    let UserCredential { key, name, role, expires_at, valid_after: _ } = credential;
    Ok(CredentialView { id, name, role, key, expires_at, jwt })
}
