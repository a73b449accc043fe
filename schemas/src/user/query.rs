//! Queries for users.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CallerView, CredentialView, UserView};
use crate::id::UserUuid;
use crate::permission::Permission;
use crate::request::{ByName, PageRequest, Request, RequestKind, RequestType};

/// The requests that read users from the read model.
pub const QUERIES: &[Request] = &[Request::of::<GetUser>(), Request::of::<FindUser>(), Request::of::<ListUsers>()];

/// The requests that read users from the state that commands are decided on.
pub(crate) const LOOKUPS: &[Request] = &[Request::of::<WhoAmI>(), Request::of::<GetCredential>()];

/// Selects a user by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserById {
    pub id: UserUuid,
}

/// Selects the user that makes the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Myself {}

/// Selects a user, or the one that makes the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserOrMyself {
    /// Another user, which requires `user:manage` (default: oneself).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<UserUuid>,
}

/// `user.get`
#[derive(Clone, Copy, Debug)]
pub struct GetUser;

impl RequestType for GetUser {
    const NAME: &'static str = "user.get";
    const PERMISSION: Permission = Permission::UserRead;
    const KIND: RequestKind = RequestKind::Query;
    const SUMMARY: &'static str = "Get a user by its id";
    const DESCRIPTION: &'static str = "Returns revoked and expired users, too.";
    type Body = UserById;
    type Answer = UserView;
}

/// `user.find`
#[derive(Clone, Copy, Debug)]
pub struct FindUser;

impl RequestType for FindUser {
    const NAME: &'static str = "user.find";
    const PERMISSION: Permission = Permission::UserRead;
    const KIND: RequestKind = RequestKind::Query;
    const SUMMARY: &'static str = "Get a user by its name";
    const DESCRIPTION: &'static str = "Names are compared without regard to case and Unicode normalisation. Returns \
        revoked and expired users, too.";
    type Body = ByName;
    type Answer = UserView;
}

/// `user.list`
#[derive(Clone, Copy, Debug)]
pub struct ListUsers;

impl RequestType for ListUsers {
    const NAME: &'static str = "user.list";
    const PERMISSION: Permission = Permission::UserRead;
    const KIND: RequestKind = RequestKind::Query;
    const SUMMARY: &'static str = "List users";
    const DESCRIPTION: &'static str = "One page, in the order of creation; `meta.next_cursor` selects the next. \
        Includes revoked and expired users.";
    type Body = PageRequest;
    type Answer = Vec<UserView>;
}

/// `user.whoami`
#[derive(Clone, Copy, Debug)]
pub struct WhoAmI;

impl RequestType for WhoAmI {
    const NAME: &'static str = "user.whoami";
    const PERMISSION: Permission = Permission::UserSelf;
    const KIND: RequestKind = RequestKind::Lookup;
    const SUMMARY: &'static str = "Get the user that makes the request";
    const DESCRIPTION: &'static str = "With the permissions of its role.";
    type Body = Myself;
    type Answer = CallerView;
}

/// `user.credential`
#[derive(Clone, Copy, Debug)]
pub struct GetCredential;

impl RequestType for GetCredential {
    const NAME: &'static str = "user.credential";
    const PERMISSION: Permission = Permission::UserSelf;
    const KIND: RequestKind = RequestKind::Lookup;
    const SUMMARY: &'static str = "Get the JWT of a user's credentials";
    const DESCRIPTION: &'static str = "Signed for the user's present key, role and expiry. It is of no use without the \
        private key. That of another user requires `user:manage`. `not_found` if the user does not exist, or is \
        revoked.";
    type Body = UserOrMyself;
    type Answer = CredentialView;
}
