//! What an event changes in the read model of users.

use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::event::Event;
use otherix_schemas::id::UserUuid;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::{
    UserCreated, UserDeleted, UserEvent, UserKeyRotated, UserRevoked, UserRole, UserRoleChanged,
};
use rusqlite::{Connection, params};

use crate::projection::{ApplyError, execute, integer};

#[expect(clippy::wildcard_enum_match_arm, reason = "events of other resources change nothing")]
pub(super) fn apply(db: &Connection, envelope: &EventEnvelope) -> Result<(), ApplyError> {
    let header = &envelope.header;
    match &envelope.event {
        Event::User(UserEvent::Created(event)) => created(db, header, event),
        Event::User(UserEvent::RoleChanged(UserRoleChanged { user_id, name: _, role })) => {
            set_role(db, header, *user_id, *role)
        }
        Event::User(UserEvent::KeyRotated(event)) => rotated(db, header, event),
        Event::User(UserEvent::Revoked(UserRevoked { user_id, name: _ })) => revoked(db, header, *user_id),
        Event::User(UserEvent::Deleted(UserDeleted { user_id, name: _ })) => {
            execute(db, "DELETE FROM users WHERE id = ?1", [user_id.to_string()])?;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn created(db: &Connection, header: &Header, event: &UserCreated) -> Result<(), ApplyError> {
    let UserCreated { user_id, name, role, key, expires_at } = event;
    execute(
        db,
        "INSERT INTO users (id, created_position, name, name_key, role, key, expires_at, generation, created_at,
             updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?2, ?8, ?8)",
        params![
            user_id.to_string(),
            integer(header.position),
            name.as_str(),
            name.key(),
            role.as_str(),
            key.as_str(),
            expires_at.map(Timestamp::unix_micros),
            header.time.unix_micros(),
        ],
    )?;
    Ok(())
}

fn set_role(db: &Connection, header: &Header, user_id: UserUuid, role: UserRole) -> Result<(), ApplyError> {
    execute(
        db,
        "UPDATE users SET role = ?2, generation = ?3, updated_at = ?4 WHERE id = ?1",
        params![user_id.to_string(), role.as_str(), integer(header.position), header.time.unix_micros()],
    )?;
    Ok(())
}

fn rotated(db: &Connection, header: &Header, event: &UserKeyRotated) -> Result<(), ApplyError> {
    let UserKeyRotated { user_id, name: _, key, expires_at } = event;
    execute(
        db,
        "UPDATE users SET key = ?2, expires_at = ?3, revoked_at = NULL, generation = ?4, updated_at = ?5
         WHERE id = ?1",
        params![
            user_id.to_string(),
            key.as_str(),
            expires_at.map(Timestamp::unix_micros),
            integer(header.position),
            header.time.unix_micros(),
        ],
    )?;
    Ok(())
}

fn revoked(db: &Connection, header: &Header, user_id: UserUuid) -> Result<(), ApplyError> {
    execute(
        db,
        "UPDATE users SET revoked_at = ?3, generation = ?2, updated_at = ?3 WHERE id = ?1",
        params![user_id.to_string(), integer(header.position), header.time.unix_micros()],
    )?;
    Ok(())
}
