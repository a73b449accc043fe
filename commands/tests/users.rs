//! Decisions about users, and about VMs that belong to users: given / when / then.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

#[path = "support/builders.rs"]
mod builders;
#[path = "support/decisions.rs"]
mod decisions;

use builders::*;
use decisions::{Given, given};
use otherix_commands::domain::Rejection;
use otherix_schemas::command::Command;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::event::Event;
use otherix_schemas::permission::{Permission, Role};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::{
    NewExpiry, NewUser, RowScope, UserCommand, UserCreated, UserDeleted, UserKeyRotated, UserRevoked, UserRole,
    UserRoleChanged,
};
use otherix_schemas::vm::VmCommand;

/// A time in seconds. In tests, the event at position `n` is recorded at second `n`.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_micros(seconds * 1_000_000).unwrap()
}

fn user(number: u128, name: &str, role: UserRole, expires_at: Option<Timestamp>) -> Event {
    let key = user_key(u8::try_from(number).unwrap());
    UserCreated { user_id: user_id(number), name: user_name(name), role, key, expires_at }.into()
}

fn create(number: u128, name: &str, key: u8, expires_at: Option<Timestamp>) -> Command {
    let user = NewUser { name: user_name(name), role: UserRole::Viewer, key: user_key(key), expires_at };
    Command::User(UserCommand::Create { user_id: user_id(number), user })
}

fn create_first(number: u128, key: u8) -> Command {
    let (user_id, name, key) = (user_id(number), user_name("admin"), user_key(key));
    Command::User(UserCommand::CreateFirst { user_id, name, key })
}

fn set_role(number: u128, role: UserRole) -> Command {
    Command::User(UserCommand::SetRole { user_id: user_id(number), role })
}

fn rotate(number: u128, key: u8, expiry: NewExpiry) -> Command {
    Command::User(UserCommand::Rotate { user_id: user_id(number), key: user_key(key), expiry })
}

fn revoke(number: u128) -> Command {
    Command::User(UserCommand::Revoke { user_id: user_id(number) })
}

fn delete(number: u128) -> Command {
    Command::User(UserCommand::Delete { user_id: user_id(number) })
}

fn role_changed(number: u128, name: &str, role: UserRole) -> Event {
    UserRoleChanged { user_id: user_id(number), name: user_name(name), role }.into()
}

fn rotated(number: u128, name: &str, key: u8, expires_at: Option<Timestamp>) -> Event {
    UserKeyRotated { user_id: user_id(number), name: user_name(name), key: user_key(key), expires_at }.into()
}

fn revoked(number: u128, name: &str) -> Event {
    UserRevoked { user_id: user_id(number), name: user_name(name) }.into()
}

fn deleted(number: u128, name: &str) -> Event {
    UserDeleted { user_id: user_id(number), name: user_name(name) }.into()
}

/// An admin `ann` with key 1, a developer `dev` with key 2, and further events.
fn users(more: impl IntoIterator<Item = Event>) -> Given {
    let begin = [user(1, "ann", UserRole::Admin, None), user(2, "dev", UserRole::Developer, None)];
    given(begin.into_iter().chain(more))
}

#[test]
fn names_are_unique_without_regard_to_case_and_free_again_after_a_deletion() {
    users([]).when(&create(3, "eve", 3, None)).then([user(3, "eve", UserRole::Viewer, None)]);
    let taken = |name: &str| Rejection::UserNameTaken { name: user_name(name), other: user_id(2) };
    users([]).when(&create(3, "DEV", 3, None)).then_rejected(taken("DEV"));
    users([revoked(2, "dev")]).when(&create(3, "dev", 3, None)).then_rejected(taken("dev"));
    users([deleted(2, "dev")]).when(&create(3, "Dev", 3, None)).then([user(3, "Dev", UserRole::Viewer, None)]);
    let accented = || given([user(2, "café", UserRole::Admin, None)]);
    accented().when(&create(3, "CAFE\u{301}", 3, None)).then_rejected(taken("CAFE\u{301}"));
}

#[test]
fn a_key_is_registered_once_for_ever() {
    let taken = || Rejection::UserKeyTaken(user_key(2));
    users([]).when(&create(3, "eve", 2, None)).then_rejected(taken());
    users([deleted(2, "dev")]).when(&create(3, "eve", 2, None)).then_rejected(taken());
    let history = || users([rotated(2, "dev", 9, None)]);
    history().when(&create(3, "eve", 2, None)).then_rejected(taken());
    history().when(&rotate(2, 2, NewExpiry::Unchanged)).then_rejected(taken());
    history().when(&rotate(1, 2, NewExpiry::Unchanged)).then_rejected(taken());
    users([revoked(2, "dev")]).when(&rotate(2, 2, NewExpiry::Unchanged)).then_rejected(taken());
}

#[test]
fn the_last_admin_keeps_role_and_credential() {
    let last = || Rejection::LastAdmin(user_name("ann"));
    for command in [set_role(1, UserRole::Operator), revoke(1), delete(1)] {
        users([]).when(&command).then_rejected(last());
        // Others that cannot act as admins do not count.
        users([user(3, "old", UserRole::Admin, Some(at(2)))]).when(&command).then_rejected(last());
        users([user(3, "off", UserRole::Admin, None), revoked(3, "off")]).when(&command).then_rejected(last());
        users([user(3, "gone", UserRole::Admin, None), deleted(3, "gone")]).when(&command).then_rejected(last());
        // One whose credential expires is none some day, by itself.
        users([user(3, "bea", UserRole::Admin, Some(at(100)))]).when(&command).then_rejected(last());
        let two = users([user(3, "bea", UserRole::Admin, None)]);
        assert_eq!(two.when(&command).result.unwrap().len(), 1, "{command:?}");
    }
    users([]).when(&rotate(1, 9, NewExpiry::Unchanged)).then([rotated(1, "ann", 9, None)]);
    let soon = NewExpiry::At(at(50));
    users([]).when(&rotate(1, 9, soon)).then_rejected(last());
    users([]).when(&rotate(2, 9, soon)).then([rotated(2, "dev", 9, Some(at(50)))]);
    let two = || users([user(3, "bea", UserRole::Admin, None)]);
    two().when(&rotate(1, 9, soon)).then([rotated(1, "ann", 9, Some(at(50)))]);
    let expiring = || users([user(3, "bea", UserRole::Admin, Some(at(100)))]);
    expiring().when(&delete(3)).then([deleted(3, "bea")]);
    expiring().when(&rotate(3, 9, NewExpiry::Unchanged)).then([rotated(3, "bea", 9, Some(at(100)))]);
    let revoked_admin = users([user(3, "off", UserRole::Admin, None), revoked(3, "off")]);
    revoked_admin.when(&delete(3)).then([deleted(3, "off")]);
    assert_eq!(ErrorBody::from(&last()).error.code, ErrorCode::Conflict);
}

#[test]
fn repeated_changes_record_nothing() {
    users([]).when(&set_role(2, UserRole::Developer)).then([]);
    users([revoked(2, "dev")]).when(&revoke(2)).then([]);
    users([]).when(&set_role(2, UserRole::Viewer)).then([role_changed(2, "dev", UserRole::Viewer)]);
    users([]).when(&revoke(2)).then([revoked(2, "dev")]);
    users([]).when(&delete(2)).then([deleted(2, "dev")]);
    for command in [set_role(9, UserRole::Viewer), revoke(9), delete(9), rotate(9, 9, NewExpiry::Never)] {
        users([]).when(&command).then_rejected(Rejection::NoSuchUser(user_id(9)));
    }
    users([deleted(2, "dev")]).when(&revoke(2)).then_rejected(Rejection::NoSuchUser(user_id(2)));
}

#[test]
fn a_revoked_or_expired_user_returns_with_another_key_only() {
    users([revoked(2, "dev")]).when(&rotate(2, 9, NewExpiry::Unchanged)).then([rotated(2, "dev", 9, None)]);
    // The last event is at second 3.
    let expired = || users([user(3, "tmp", UserRole::Viewer, Some(at(3)))]);
    let refused = Rejection::UserExpired { name: user_name("tmp"), at: at(3) };
    expired().when(&rotate(3, 9, NewExpiry::Unchanged)).then_rejected(refused);
    expired().when(&rotate(3, 9, NewExpiry::Never)).then([rotated(3, "tmp", 9, None)]);
    expired().when(&rotate(3, 9, NewExpiry::At(at(50)))).then([rotated(3, "tmp", 9, Some(at(50)))]);
    let valid = || users([user(3, "tmp", UserRole::Viewer, Some(at(4)))]);
    valid().when(&rotate(3, 9, NewExpiry::Unchanged)).then([rotated(3, "tmp", 9, Some(at(4)))]);
}

#[test]
fn a_credential_expires_in_the_future() {
    let past = |expires_at| Rejection::ExpiryPast { at: expires_at, now: at(2) };
    users([]).when(&create(3, "eve", 3, Some(at(2)))).then_rejected(past(at(2)));
    users([]).when(&rotate(2, 9, NewExpiry::At(at(1)))).then_rejected(past(at(1)));
    users([]).when(&create(3, "eve", 3, Some(at(3)))).then([user(3, "eve", UserRole::Viewer, Some(at(3)))]);
    let body = ErrorBody::from(&past(at(1)));
    assert_eq!(body.error.code, ErrorCode::ValidationFailed);
    assert!(body.error.details["fields"]["expires_at"].is_array());
}

#[test]
fn the_first_user_is_created_once() {
    given([]).when(&create_first(1, 1)).then([user(1, "admin", UserRole::Admin, None)]);
    // A control plane that was killed in between tries again, with the same key.
    given([user(1, "admin", UserRole::Admin, None)]).when(&create_first(9, 1)).then([]);
    given([user(1, "admin", UserRole::Admin, None)]).when(&create_first(9, 2)).then_rejected(Rejection::UsersExist);
    users([revoked(1, "ann")]).when(&create_first(9, 9)).then_rejected(Rejection::UsersExist);
}

#[test]
fn events_about_users_are_no_decisions_for_nodes() {
    let mut history = given([node_joined(1)]);
    let head = history.state.decision_head();
    history.execute(&create_first(1, 1)).unwrap();
    history.execute(&set_role(1, UserRole::Admin)).unwrap();
    assert_eq!(history.state.decision_head(), head);
    history.execute(&join(2, "node-2")).unwrap();
    assert_eq!(history.envelopes.last().unwrap().header.decision_prev, head);
}

#[test]
fn a_developer_deletes_only_own_vms() {
    let delete_as = |id: &str, role| {
        let scope = RowScope::Owner { id: id.parse().unwrap(), role };
        Command::Vm(VmCommand::Delete { vm_id: vm_id(1), scope })
    };
    let mut own = given([node_joined(1)]);
    own.execute(&create_vm(1, None, None)).unwrap();
    let refused =
        Rejection::NotOwner { name: "vm-1".parse().unwrap(), role: Role::Developer, permission: Permission::VmDelete };
    own.when(&delete_as("another", Role::Developer)).then_rejected(refused.clone());
    assert!(own.when(&delete_as(owner().as_str(), Role::Developer)).result.is_ok());
    let body = ErrorBody::from(&refused);
    assert_eq!(body.error.code, ErrorCode::PermissionDenied);
    assert_eq!(
        (&body.error.details["permission"], &body.error.details["role"]),
        (&"vm:delete".into(), &"developer".into())
    );
    // A VM of an earlier version belongs to nobody.
    let Event::Vm(otherix_schemas::vm::VmEvent::Created(mut created)) = vm_created(1, None, 1).remove(0) else {
        unreachable!()
    };
    created.owner = None;
    given([node_joined(1), created.into()]).when(&delete_as(owner().as_str(), Role::Developer)).then_rejected(refused);
}
