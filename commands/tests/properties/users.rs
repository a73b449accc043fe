//! Users: commands with few names and keys, and what holds after each.

use std::collections::BTreeSet;

use otherix_schemas::command::Command;
use otherix_schemas::event::Event;
use otherix_schemas::user::{NewExpiry, NewUser, RegisteredUser, UserCommand, UserEvent, UserRole};
use proptest::prelude::*;

use crate::builders::*;
use crate::decisions::Given;

/// Commands on users with few names and keys, among which one is often the last admin.
pub(crate) fn user_command() -> impl Strategy<Value = Command> {
    let role = prop::sample::select(UserRole::ALL.to_vec());
    let label = prop::sample::select(vec!["ann", "Ann", "bob", "straße", "STRASSE"]);
    let user = Command::User;
    prop_oneof![
        6 => (0u128..8, label, 0u8..12, role.clone()).prop_map(move |(id, label, key, role)| {
            let user = NewUser { name: user_name(label), role, key: user_key(key), expires_at: None };
            Command::User(UserCommand::Create { user_id: user_id(id), user })
        }),
        1 => (0u128..8, 0u8..12).prop_map(move |(id, key)| {
            user(UserCommand::CreateFirst { user_id: user_id(id), name: user_name("ann"), key: user_key(key) })
        }),
        4 => (0u128..8, role).prop_map(move |(id, role)| user(UserCommand::SetRole { user_id: user_id(id), role })),
        4 => (0u128..8, 0u8..24).prop_map(move |(id, key)| {
            let (user_id, key, expiry) = (user_id(id), user_key(key), NewExpiry::Unchanged);
            user(UserCommand::Rotate { user_id, key, expiry })
        }),
        3 => (0u128..8).prop_map(move |id| user(UserCommand::Revoke { user_id: user_id(id) })),
        3 => (0u128..8).prop_map(move |id| user(UserCommand::Delete { user_id: user_id(id) })),
    ]
}

/// Names are unique; no key is registered twice; whoever holds a key that was given up is refused; an admin stays.
pub(crate) fn check_users(given: &Given) -> Result<(), TestCaseError> {
    let callers = given.state.callers();
    let mut names = BTreeSet::new();
    prop_assert!(callers.users().values().all(|user| names.insert(user.name.key())), "a user's name is not unique");
    let registered = |event: &Event| match event {
        Event::User(UserEvent::Created(event)) => Some(event.key.clone()),
        Event::User(UserEvent::KeyRotated(event)) => Some(event.key.clone()),
        Event::User(_)
        | Event::Enrollment(_)
        | Event::Network(_)
        | Event::Vm(_)
        | Event::Nic(_)
        | Event::Node(_)
        | Event::Cluster(_) => None,
    };
    let mut keys = BTreeSet::new();
    for key in given.envelopes.iter().filter_map(|envelope| registered(&envelope.event)) {
        let active = callers.users().values().find(|user| user.key == key && user.revoked_at.is_none());
        let found = callers.find(&(&key).into(), None);
        prop_assert_eq!(found.map(|caller| caller.name).ok(), active.map(|user| user.name.to_string()));
        if let Some(user) = active {
            let revoked = callers.revoked().get(&(&key).into());
            prop_assert!(revoked.is_none_or(|key| key.valid_after <= user.valid_after), "its credential is revoked");
        } else {
            prop_assert!(callers.revoked().contains_key(&(&key).into()), "a key that was given up is not revoked");
        }
        prop_assert!(keys.insert(key), "a key was registered twice");
    }
    let is_admin =
        |user: &RegisteredUser| user.role == UserRole::Admin && user.revoked_at.is_none() && user.expires_at.is_none();
    let made_admin = |event: &Event| match event {
        Event::User(UserEvent::Created(event)) => event.role == UserRole::Admin,
        Event::User(_)
        | Event::Enrollment(_)
        | Event::Network(_)
        | Event::Vm(_)
        | Event::Nic(_)
        | Event::Node(_)
        | Event::Cluster(_) => false,
    };
    if given.envelopes.iter().any(|envelope| made_admin(&envelope.event)) {
        prop_assert!(callers.users().values().any(is_admin), "there is no admin any more");
    }
    Ok(())
}
