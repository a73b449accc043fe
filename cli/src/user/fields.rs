//! The fields of a user, as `get` and `list` show them.

use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::UserView;

use crate::output::table;

/// The heading of [`row`].
pub(super) const COLUMNS: [&str; 5] = ["NAME", "ROLE", "STATUS", "EXPIRES", "CREATED"];

/// The row in a list.
pub(super) fn row(view: &UserView) -> Vec<String> {
    let UserView { name, role, status, expires_at, created_at, .. } = view;
    vec![
        name.to_string(),
        role.to_string(),
        status.as_str().to_owned(),
        expiry(expires_at.as_ref()),
        created_at.to_string(),
    ]
}

/// The text of `get`.
pub(super) fn details(view: &UserView) -> String {
    let mut lines = vec![("name", view.name.to_string())];
    lines.extend(fields(view));
    table::fields(&lines)
}

/// The fields after a change, and the credentials file, with the one that reads the buckets, if they were written.
pub(super) fn summary(view: &UserView, credentials: Option<(&str, Option<&str>)>) -> String {
    let mut lines = fields(view);
    if let Some((file, state)) = credentials {
        lines.push(("credentials", file.to_owned()));
        lines.extend(state.map(|file| ("state credentials", file.to_owned())));
    }
    table::fields(&lines)
}

fn fields(view: &UserView) -> Vec<(&'static str, String)> {
    let UserView { id, role, key, status, expires_at, revoked_at, created_at, updated_at, .. } = view;
    let mut lines = vec![
        ("id", id.to_string()),
        ("role", role.to_string()),
        ("status", status.as_str().to_owned()),
        ("key", key.to_string()),
        ("expires", expiry(expires_at.as_ref())),
    ];
    lines.extend(revoked_at.map(|at| ("revoked", at.to_string())));
    lines.extend([("created", created_at.to_string()), ("changed", updated_at.to_string())]);
    lines
}

/// When a credential expires.
pub(super) fn expiry(expires_at: Option<&Timestamp>) -> String {
    expires_at.map_or_else(|| "never".to_owned(), ToString::to_string)
}
