//! Users: the decisions about them, and the reply. Their state is the registry ([`Callers`]).

use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::event::Event;
use otherix_schemas::id::UserUuid;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::{
    Callers, NewExpiry, NewUser, RegisteredUser, UserCommand, UserCreated, UserDeleted, UserEvent, UserKeyRotated,
    UserRevoked, UserRole, UserRoleChanged, UserStatus, UserView,
};
use otherix_schemas::value::{UserKey, UserName};
use serde::{Deserialize, Serialize};

use super::name_index::NameIndex;
use super::{Decision, Rejection, Reply, State};

/// The users that are not deleted, the keys that were ever registered, and an index of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SavedUsers")]
pub struct Users {
    registry: Callers,
    #[serde(skip_serializing)]
    by_name: NameIndex<UserUuid>,
}

/// What a state snapshot holds of [`Users`].
#[derive(Deserialize)]
struct SavedUsers {
    registry: Callers,
}

impl From<SavedUsers> for Users {
    fn from(SavedUsers { registry }: SavedUsers) -> Self {
        let by_name = registry.users().iter().map(|(id, user)| (user.name.key(), *id)).collect();
        Self { registry, by_name }
    }
}

impl Users {
    /// Applies an event that is not about a user.
    pub(super) fn evolve(&mut self, envelope: &EventEnvelope) {
        self.registry.evolve(envelope);
    }
}

impl State {
    /// Returns the users, and who may make requests with which key.
    pub fn callers(&self) -> &Callers {
        &self.users.registry
    }

    fn user(&self, id: UserUuid) -> Result<&RegisteredUser, Rejection> {
        self.callers().users().get(&id).ok_or(Rejection::NoSuchUser(id))
    }

    pub(super) fn evolve_user(&mut self, envelope: &EventEnvelope, event: &UserEvent) {
        let Users { registry, by_name } = &mut self.users;
        match event {
            UserEvent::Created(UserCreated { user_id, name, .. }) => by_name.insert(name.key(), *user_id),
            UserEvent::Deleted(UserDeleted { user_id, name: _ }) => {
                if let Some(user) = registry.users().get(user_id) {
                    by_name.remove(&user.name.key(), *user_id);
                }
            }
            UserEvent::RoleChanged(_) | UserEvent::KeyRotated(_) | UserEvent::Revoked(_) => {}
        }
        registry.evolve(envelope);
    }
}

pub(super) fn decide(state: &State, now: Timestamp, command: &UserCommand) -> Result<Decision, Rejection> {
    // The time that the events will have.
    let now = state.time().map_or(now, |last| last.max(now));
    match command {
        UserCommand::Create { user_id, user } => create(state, now, *user_id, user.clone()),
        UserCommand::CreateFirst { user_id, name, key } => create_first(state, now, *user_id, name, key),
        UserCommand::SetRole { user_id, role } => set_role(state, now, *user_id, *role),
        UserCommand::Rotate { user_id, key, expiry } => rotate(state, now, *user_id, key, *expiry),
        UserCommand::Revoke { user_id } => revoke(state, now, *user_id),
        UserCommand::Delete { user_id } => delete(state, now, *user_id),
    }
}

fn create(state: &State, now: Timestamp, user_id: UserUuid, user: NewUser) -> Result<Decision, Rejection> {
    let NewUser { name, role, key, expires_at } = user;
    if let Some(other) = state.users.by_name.get(&name.key()) {
        return Err(Rejection::UserNameTaken { name, other });
    }
    check_key(state, &key)?;
    check_expiry(now, expires_at)?;
    Ok(Decision::one(UserCreated { user_id, name, role, key, expires_at }))
}

/// Creates an admin if there is no user. Repeated with the same key, it changes nothing.
fn create_first(
    state: &State,
    now: Timestamp,
    user_id: UserUuid,
    name: &UserName,
    key: &UserKey,
) -> Result<Decision, Rejection> {
    let mut users = state.callers().users().values();
    if users.any(|user| user.key == *key) {
        return Ok(Decision::default());
    }
    if !state.callers().users().is_empty() {
        return Err(Rejection::UsersExist);
    }
    create(
        state,
        now,
        user_id,
        NewUser { name: name.clone(), role: UserRole::Admin, key: key.clone(), expires_at: None },
    )
}

fn set_role(state: &State, now: Timestamp, user_id: UserUuid, role: UserRole) -> Result<Decision, Rejection> {
    let user = state.user(user_id)?;
    if user.role == role {
        return Ok(Decision::default());
    }
    check_admin_remains(state, now, user_id)?;
    Ok(Decision::one(UserRoleChanged { user_id, name: user.name.clone(), role }))
}

fn rotate(
    state: &State,
    now: Timestamp,
    user_id: UserUuid,
    key: &UserKey,
    expiry: NewExpiry,
) -> Result<Decision, Rejection> {
    let RegisteredUser { name, role, expires_at, .. } = state.user(user_id)?;
    check_key(state, key)?;
    let expires_at = match expiry {
        NewExpiry::Unchanged => match expires_at {
            Some(at) if *at <= now => return Err(Rejection::UserExpired { name: name.clone(), at: *at }),
            unchanged => *unchanged,
        },
        NewExpiry::Never => None,
        NewExpiry::At(at) => Some(at),
    };
    check_expiry(now, expires_at)?;
    if *role == UserRole::Admin && expires_at.is_some() {
        check_admin_remains(state, now, user_id)?;
    }
    Ok(Decision::one(UserKeyRotated { user_id, name: name.clone(), key: key.clone(), expires_at }))
}

fn revoke(state: &State, now: Timestamp, user_id: UserUuid) -> Result<Decision, Rejection> {
    let user = state.user(user_id)?;
    if user.revoked_at.is_some() {
        return Ok(Decision::default());
    }
    check_admin_remains(state, now, user_id)?;
    Ok(Decision::one(UserRevoked { user_id, name: user.name.clone() }))
}

fn delete(state: &State, now: Timestamp, user_id: UserUuid) -> Result<Decision, Rejection> {
    let name = state.user(user_id)?.name.clone();
    check_admin_remains(state, now, user_id)?;
    Ok(Decision::one(UserDeleted { user_id, name }))
}

/// A key belongs to one user, for ever: whoever has a credential for it is that user.
pub(super) fn check_key(state: &State, key: &UserKey) -> Result<(), Rejection> {
    if state.callers().was_registered(key) { Err(Rejection::UserKeyTaken(key.clone())) } else { Ok(()) }
}

pub(super) fn check_expiry(now: Timestamp, expires_at: Option<Timestamp>) -> Result<(), Rejection> {
    match expires_at {
        Some(at) if at <= now => Err(Rejection::ExpiryPast { at, now }),
        Some(_) | None => Ok(()),
    }
}

/// Without an admin, nobody could create one. One whose credential expires is none some day, by itself: another one,
/// whose credential does not, has to remain.
fn check_admin_remains(state: &State, now: Timestamp, user_id: UserUuid) -> Result<(), Rejection> {
    let is_admin = |user: &RegisteredUser| user.role == UserRole::Admin && user.is_active(now);
    let remains =
        |(id, user): (&UserUuid, &RegisteredUser)| *id != user_id && is_admin(user) && user.expires_at.is_none();
    let user = state.user(user_id)?;
    if !is_admin(user) || state.callers().users().iter().any(remains) {
        return Ok(());
    }
    Err(Rejection::LastAdmin(user.name.clone()))
}

/// Returns the user that the command is about, as it is after the events.
pub(super) fn reply(before: &State, command: &UserCommand, envelopes: &[EventEnvelope]) -> Reply {
    let (UserCommand::Create { user_id, .. }
    | UserCommand::CreateFirst { user_id, .. }
    | UserCommand::SetRole { user_id, .. }
    | UserCommand::Rotate { user_id, .. }
    | UserCommand::Revoke { user_id }
    | UserCommand::Delete { user_id }) = command;
    let Some(EventEnvelope { header, event }) = envelopes.last() else {
        let time = before.time();
        let view = before.user(*user_id).ok().zip(time).map(|(user, time)| user.view(*user_id, time));
        return view.map_or(Reply::Nothing, |view| Reply::User(Box::new(view)));
    };
    let Event::User(event) = event else { return Reply::Nothing };
    match view_after(before.user(*user_id).ok(), *user_id, header, event) {
        Some(view) => Reply::User(Box::new(view)),
        None => Reply::Nothing,
    }
}

/// Returns the view of a user after an event about it.
fn view_after(before: Option<&RegisteredUser>, id: UserUuid, header: &Header, event: &UserEvent) -> Option<UserView> {
    let now = header.time;
    if let UserEvent::Deleted(_) = event {
        let view = before?.view(id, now);
        let (status, deleted_at, updated_at) = (UserStatus::Deleted, Some(now), now);
        return Some(UserView { status, deleted_at, updated_at, generation: header.position, ..view });
    }
    let mut registry: Callers = before.map(|user| (id, user.clone())).into_iter().collect();
    registry.apply(header, event);
    registry.users().get(&id).map(|user| user.view(id, now))
}
