//! Queries about users. Each is one statement.

use otherix_schemas::id::UserUuid;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::{UserStatus, UserView};
use otherix_schemas::value::UserName;
use rusqlite::{Connection, Row, params};

use crate::projection::integer;
use crate::query::{Listed, Page, QueryError, all, first, optional_time, parsed, position, time};

/// The user of this id, with its status as of `now`. Without a clock, one that expires is shown as expired.
///
/// # Errors
/// When the database fails or holds a malformed value.
pub fn by_id(db: &Connection, now: Option<Timestamp>, id: UserUuid) -> Result<Option<UserView>, QueryError> {
    first(db, "SELECT * FROM users WHERE id = ?1", [id.to_string()], |row| view(row, now))
}

/// The user of this name ([`UserName::key`]).
///
/// # Errors
/// When the database fails or holds a malformed value.
pub fn by_name(db: &Connection, now: Option<Timestamp>, name: &UserName) -> Result<Option<UserView>, QueryError> {
    first(db, "SELECT * FROM users WHERE name_key = ?1", [name.key()], |row| view(row, now))
}

/// A page of the users, in the order of their creation.
///
/// # Errors
/// When the database fails or holds a malformed value.
pub fn list(db: &Connection, now: Option<Timestamp>, page: Page) -> Result<Listed<UserView>, QueryError> {
    let query = "SELECT * FROM users WHERE created_position > ?1 ORDER BY created_position LIMIT +?2";
    let values = params![integer(page.after), page.rows()];
    Ok(page.of(all(db, query, values, |row| Ok((position(row, "created_position")?, view(row, now)?)))?))
}

fn view(row: &Row<'_>, now: Option<Timestamp>) -> Result<UserView, QueryError> {
    let view = UserView {
        id: parsed(row, "id")?,
        name: parsed(row, "name")?,
        role: parsed(row, "role")?,
        key: parsed(row, "key")?,
        status: UserStatus::Active,
        expires_at: optional_time(row, "expires_at")?,
        revoked_at: optional_time(row, "revoked_at")?,
        generation: position(row, "generation")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
        deleted_at: None,
    };
    let now = now.or(view.expires_at).unwrap_or(view.updated_at);
    Ok(UserView { status: view.status_at(now), ..view })
}
