//! Commands on users.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NewUser, UserById, UserDraft, UserRole, UserView};
use crate::command::{Command, CommandInputs};
use crate::error::ErrorBody;
use crate::id::UserUuid;
use crate::permission::Permission;
use crate::request::{Request, RequestKind, RequestType, parse_body};
use crate::timestamp::Timestamp;
use crate::value::{UserKey, UserName};
use crate::violations::Violations;

/// The requests that change users.
pub(crate) const COMMANDS: &[Request] = &[
    Request::of::<CreateUser>(),
    Request::of::<SetUserRole>(),
    Request::of::<RotateUserKey>(),
    Request::of::<RevokeUser>(),
    Request::of::<DeleteUser>(),
];

/// A command on a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserCommand {
    Create {
        /// Generated for the request.
        user_id: UserUuid,
        user: NewUser,
    },
    /// Create the first user, an admin, unless there are users. Of the control plane itself: no request leads to it.
    CreateFirst {
        user_id: UserUuid,
        name: UserName,
        key: UserKey,
    },
    SetRole {
        user_id: UserUuid,
        role: UserRole,
    },
    Rotate {
        user_id: UserUuid,
        key: UserKey,
        expiry: NewExpiry,
    },
    Revoke {
        user_id: UserUuid,
    },
    Delete {
        user_id: UserUuid,
    },
}

/// When a user's new credential expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewExpiry {
    /// When the earlier one did.
    Unchanged,
    Never,
    At(Timestamp),
}

/// Selects a user, and a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserAndRole {
    pub id: UserUuid,
    pub role: UserRole,
}

/// Selects a user, and a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserAndKey {
    pub id: UserUuid,
    /// The public key of the user's new credentials.
    pub key: UserKey,
    /// When its credential expires: an RFC 3339 time in the future, or `never` (default: as before).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// What [`UserAndKey::expires_at`] contains for a credential that does not expire.
pub const NEVER: &str = "never";

/// `user.create`
#[derive(Clone, Copy, Debug)]
pub struct CreateUser;

impl RequestType for CreateUser {
    const NAME: &'static str = "user.create";
    const PERMISSION: Permission = Permission::UserManage;
    const KIND: RequestKind = RequestKind::Command(create);
    const SUMMARY: &'static str = "Create a user";
    const DESCRIPTION: &'static str = "Registers a name with a role and a public key. The key pair is made where the \
        credentials are used; `user.credential` returns the JWT that belongs to them. `conflict` if the name is in \
        use, or the key was ever registered.";
    type Body = UserDraft;
    type Answer = UserView;
}

fn create(body: &[u8], inputs: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let (draft, violations) = UserDraft::from_json(parse_body(body)?);
    let user = violations.combine(draft.check())?;
    let user_id = UserUuid::new(inputs.generated.resource);
    Ok(Command::User(UserCommand::Create { user_id, user }))
}

/// `user.set-role`
#[derive(Clone, Copy, Debug)]
pub struct SetUserRole;

impl RequestType for SetUserRole {
    const NAME: &'static str = "user.set-role";
    const PERMISSION: Permission = Permission::UserManage;
    const KIND: RequestKind = RequestKind::Command(set_role);
    const SUMMARY: &'static str = "Give a user another role";
    const DESCRIPTION: &'static str = "The user's credential is revoked; `user.credential` returns one for the new \
        role, which belongs to the same key. `conflict` if it is the last admin.";
    type Body = UserAndRole;
    type Answer = UserView;
}

fn set_role(body: &[u8], _: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let UserAndRole { id, role } = parse_body(body)?;
    Ok(Command::User(UserCommand::SetRole { user_id: id, role }))
}

/// `user.rotate`
#[derive(Clone, Copy, Debug)]
pub struct RotateUserKey;

impl RequestType for RotateUserKey {
    const NAME: &'static str = "user.rotate";
    const PERMISSION: Permission = Permission::UserManage;
    const KIND: RequestKind = RequestKind::Command(rotate);
    const SUMMARY: &'static str = "Register another key of a user";
    const DESCRIPTION: &'static str = "The credential for the earlier key is revoked. A revoked or expired user is \
        active again. `conflict` if the key was ever registered, or the user has expired and no new time is given.";
    type Body = UserAndKey;
    type Answer = UserView;
}

fn rotate(body: &[u8], _: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let UserAndKey { id, key, expires_at } = parse_body(body)?;
    let expiry = match expires_at.as_deref() {
        None => NewExpiry::Unchanged,
        Some(NEVER) => NewExpiry::Never,
        Some(time) => NewExpiry::At(time.parse::<Timestamp>().map_err(|error| Violations::one("expires_at", error))?),
    };
    Ok(Command::User(UserCommand::Rotate { user_id: id, key, expiry }))
}

/// `user.revoke`
#[derive(Clone, Copy, Debug)]
pub struct RevokeUser;

impl RequestType for RevokeUser {
    const NAME: &'static str = "user.revoke";
    const PERMISSION: Permission = Permission::UserManage;
    const KIND: RequestKind = RequestKind::Command(revoke);
    const SUMMARY: &'static str = "Revoke a user's credential";
    const DESCRIPTION: &'static str = "The user stays, and is refused until it has another key (`user.rotate`). \
        `conflict` if it is the last admin.";
    type Body = UserById;
    type Answer = UserView;
}

fn revoke(body: &[u8], _: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let UserById { id } = parse_body(body)?;
    Ok(Command::User(UserCommand::Revoke { user_id: id }))
}

/// `user.delete`
#[derive(Clone, Copy, Debug)]
pub struct DeleteUser;

impl RequestType for DeleteUser {
    const NAME: &'static str = "user.delete";
    const PERMISSION: Permission = Permission::UserManage;
    const KIND: RequestKind = RequestKind::Command(delete);
    const SUMMARY: &'static str = "Delete a user";
    const DESCRIPTION: &'static str = "Its credential is revoked and its name free again; its id and key are never \
        used again. `conflict` if it is the last admin.";
    type Body = UserById;
    type Answer = UserView;
}

fn delete(body: &[u8], _: CommandInputs<'_>) -> Result<Command, ErrorBody> {
    let UserById { id } = parse_body(body)?;
    Ok(Command::User(UserCommand::Delete { user_id: id }))
}
