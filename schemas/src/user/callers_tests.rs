//! Tests of the registry.

use uuid::Uuid;

use super::*;
use crate::id::{ClusterId, CorrelationId, EventId};
use crate::position::Epoch;

const KEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
const OTHER: &str = "UAEQSCIJBEEQSCIJBEEQSCIJBEEQSCIJBEEQSCIJBEEQSCIJBEEQTVLI";

fn id() -> UserUuid {
    UserUuid::new(Uuid::from_u128(7))
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_unix_micros(millis * 1000).unwrap()
}

fn header(time: Timestamp) -> Header {
    Header {
        cluster: ClusterId::new(Uuid::nil()),
        id: EventId::new(Uuid::nil()),
        position: Position::new(1),
        decision_prev: Position::ZERO,
        epoch: Epoch::FIRST,
        stream_version: 1,
        time,
        actor: "system".parse().unwrap(),
        correlation_id: CorrelationId::new(Uuid::nil()),
        causation_id: None,
        traceparent: None,
    }
}

fn name() -> UserName {
    "alice".parse().unwrap()
}

/// A registry with a developer that was created at 1 s, after these events at these times in milliseconds.
fn registry(expires_at: Option<Timestamp>, events: &[(i64, UserEvent)]) -> Callers {
    let mut callers = Callers::default();
    let (name, role, key) = (name(), UserRole::Developer, KEY.parse().unwrap());
    let created = UserCreated { user_id: id(), name, role, key, expires_at };
    callers.apply(&header(at(1000)), &UserEvent::Created(created));
    events.iter().for_each(|(time, event)| callers.apply(&header(at(*time)), event));
    callers
}

fn role_changed(role: UserRole) -> UserEvent {
    UserEvent::RoleChanged(UserRoleChanged { user_id: id(), name: name(), role })
}

fn rotated(key: &str) -> UserEvent {
    UserEvent::KeyRotated(UserKeyRotated { user_id: id(), name: name(), key: key.parse().unwrap(), expires_at: None })
}

fn revoked() -> UserEvent {
    UserEvent::Revoked(UserRevoked { user_id: id(), name: name() })
}

fn deleted() -> UserEvent {
    UserEvent::Deleted(UserDeleted { user_id: id(), name: name() })
}

fn token(key: &str) -> UserId {
    key.parse().unwrap()
}

#[test]
fn a_key_of_nobody_says_why() {
    let find = |callers: &Callers, key: &str| callers.find(&token(key), Some(at(2000))).map(|caller| caller.name);
    assert_eq!(find(&registry(None, &[]), KEY), Ok("alice".to_owned()));
    assert_eq!(find(&registry(None, &[]), OTHER), Err(CallerError::Unknown(token(OTHER))));
    for events in [&[(1500, revoked())][..], &[(1500, deleted())], &[(1500, rotated(OTHER))]] {
        let callers = registry(None, events);
        assert_eq!(find(&callers, KEY), Err(CallerError::Revoked(token(KEY))), "{events:?}");
        assert!(callers.was_registered(&KEY.parse().unwrap()), "{events:?}");
    }
    let again = registry(None, &[(1500, revoked()), (1600, rotated(OTHER))]);
    assert_eq!(find(&again, OTHER), Ok("alice".to_owned()));
    assert_eq!(find(&again, KEY), Err(CallerError::Revoked(token(KEY))));
}

#[test]
fn a_credential_expires() {
    let callers = registry(Some(at(2000)), &[]);
    let find = |now| callers.find(&token(KEY), now).map(|caller| caller.id);
    assert_eq!(find(Some(at(1999))), Ok(id().into()));
    let expired = CallerError::Expired { name: "alice".to_owned(), at: at(2000) };
    assert_eq!(find(Some(at(2000))), Err(expired.clone()));
    assert_eq!(find(None), Err(expired), "without a clock, it may have expired");
}

#[test]
fn no_credential_outlives_a_change_within_the_same_second() {
    let mut events = Vec::new();
    let mut issued = Vec::new();
    for (number, role) in UserRole::ALL.into_iter().cycle().take(12).enumerate() {
        events.push((1001 + i64::try_from(number).unwrap(), role_changed(role)));
        let callers = registry(None, &events);
        let second = callers.revoked()[&token(KEY)].valid_after;
        assert!(issued.iter().all(|earlier| *earlier <= second), "{issued:?} {second}");
        // A credential of the present state is issued in the next second, and valid.
        issued.push(callers.users()[&id()].valid_after + 1);
        assert!(*issued.last().unwrap() > second);
    }
    let callers = registry(None, &[(1001, role_changed(UserRole::Admin)), (9000, role_changed(UserRole::Viewer))]);
    let key = callers.revoked()[&token(KEY)];
    assert_eq!(key.valid_after, 9, "the time of the change, if that is later");
    assert_eq!(key.expires_at, None);
    let callers = registry(Some(at(60_000)), &[(1001, rotated(OTHER)), (1002, revoked())]);
    assert_eq!(callers.revoked()[&token(KEY)].expires_at, Some(at(60_000)), "that of the earlier key");
    assert_eq!(callers.revoked()[&token(OTHER)].expires_at, None);
}

#[test]
fn permissions_are_for_any_or_own_resources() {
    let developer = registry(None, &[]).find(&token(KEY), None).unwrap();
    let own = RowScope::Owner { id: developer.id.clone(), role: Role::Developer };
    assert_eq!(developer.scope(Permission::VmDelete), own);
    assert_eq!(Caller { role: Role::Operator, ..developer }.scope(Permission::VmDelete), RowScope::Any);
}
