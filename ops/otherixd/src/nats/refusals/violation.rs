//! A line of the server's log about a violation of permissions:
//!
//! `[pid] date time [ERR] <address> - cid:<n> - "<client>" - "<account>/<name>/jwt:<key>" - <what> - Subject "…"`
//!
//! A client chooses its name and subjects. The server quotes them, but takes the quoted name as a format of its own, so
//! that a client can have any text in its place, except for line breaks, and can have the subject disappear. What
//! follows the last quoted name is the server's own, and has no spaces: lines are read from their end.

use std::net::SocketAddr;

use otherix_schemas::permission::Permission;
use otherix_schemas::request::Request;
use otherix_schemas::subject::{EVENTS_DOMAIN, HEARTBEATS, LIVE_PREFIX, REQUESTS, STREAM};
use otherix_schemas::value::UserKey;

use super::super::accounts::DELIVER;
use super::line::Line;

/// What a user tried to do with a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Publish,
    Reply,
    Subscribe,
}

impl Attempt {
    /// Each with the text before the subject.
    const ALL: [(Self, &'static str); 4] = [
        (Self::Publish, " - Publish Violation - Subject "),
        (Self::Reply, " - Publish Violation - Reply "),
        (Self::Subscribe, " - Subscription Violation - Subject "),
        (Self::Subscribe, " - Subscription Violation Too Many Tokens - Subject "),
    ];

    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Publish => "publish on",
            Self::Reply => "expect replies on",
            Self::Subscribe => "subscribe to",
        }
    }
}

/// A violation of permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) key: String,
    pub(super) host: Option<String>,
    pub(super) client: Option<String>,
    pub(super) attempt: Attempt,
    /// As the server quotes it; `None` if it cannot be read.
    pub(super) subject: Option<String>,
}

impl Violation {
    /// Returns `None` for a line about something else.
    pub(super) fn parse(line: &Line<'_>) -> Option<Self> {
        let found =
            Attempt::ALL.into_iter().filter_map(|(attempt, mark)| Some((line.tail.rfind(mark)?, attempt, mark)));
        let (_, attempt, mark) = found.max_by_key(|(position, ..)| *position)?;
        let (before, subject) = line.tail.rsplit_once(mark)?;
        let (rest, label) = before.strip_suffix('"')?.rsplit_once(" - \"")?;
        let key = UserKey::parse(label.rsplit_once("/jwt:")?.1).ok()?.as_str().to_owned();
        let address = line.head.split_once(" - cid:").and_then(|(address, _)| address.rsplit(' ').next());
        let address: Option<SocketAddr> = address.and_then(|address| address.parse().ok());
        let host = address.map(|address| address.ip().to_string());
        Some(Self { key, host, client: client(rest), attempt, subject: quoted(subject) })
    }

    /// What the attempt requires, if permissions are about it.
    pub(super) fn permission(&self) -> Option<Permission> {
        permission(self.subject.as_deref()?)
    }
}

/// The name that the client gave itself, without its version and language.
fn client(text: &str) -> Option<String> {
    let (_, rest) = text.split_once(" - cid:")?;
    let name = rest.split_once(" - \"")?.1.splitn(3, ':').nth(2)?;
    Some(name.strip_suffix('"').unwrap_or(name).to_owned())
}

/// The text in quotes at the beginning.
fn quoted(text: &str) -> Option<String> {
    let text = text.strip_prefix('"')?;
    let mut is_escaped = false;
    let end = text.find(|c: char| {
        let is_end = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    })?;
    text.get(..end).map(ToOwned::to_owned)
}

/// The permission that a subject is about.
fn permission(subject: &str) -> Option<Permission> {
    let below = |prefix: &str| subject.strip_prefix(prefix)?.strip_prefix('.');
    if let Some(request) = below(REQUESTS) {
        return Request::named(request.split_once('.')?.1).map(|request| request.permission);
    }
    if below(HEARTBEATS).is_some() {
        return Some(Permission::NodeReport);
    }
    let events = [format!("$JS.{EVENTS_DOMAIN}.API"), format!("$JS.ACK.{STREAM}"), DELIVER.to_owned()];
    if events.iter().any(|prefix| below(prefix).is_some()) {
        return Some(Permission::AuditRead);
    }
    match below(LIVE_PREFIX)?.strip_prefix("otherix.")?.split('.').next()? {
        "evt" | "out" => Some(Permission::EventRead),
        // Also with wildcards.
        _ => Some(Permission::AuditRead),
    }
}

#[cfg(test)]
#[path = "violation_tests.rs"]
mod tests;
