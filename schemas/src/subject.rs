//! NATS subjects. They are built and parsed only here.

use std::str::FromStr;

use crate::event::{Event, StoredError};
use crate::request::Request;
use crate::value::UserId;

/// The stream of all events, and its mirror in the clients' account.
pub const STREAM: &str = "OTHERIX_EVENTS";

/// The JetStream domain in which people and programs read the stream: the prefix of its API is `$JS.<domain>.API`.
pub const EVENTS_DOMAIN: &str = "events";

/// The subjects of the stream.
pub const STREAM_SUBJECTS: [&str; 3] = [DECISIONS, OUTCOMES, ADMINISTRATION];

/// The subjects of decisions on the stream.
pub const DECISIONS: &str = "otherix.evt.v1.>";

/// The subjects of outcomes on the stream.
pub const OUTCOMES: &str = "otherix.out.v1.>";

/// The subjects of events about users, join tokens and keys of nodes on the stream.
pub const ADMINISTRATION: &str = "otherix.adm.v1.>";

/// The prefix of the subjects on which events are published once they are durable.
pub const LIVE_PREFIX: &str = "live";

/// The prefix of requests; user, resource and verb follow.
pub const REQUESTS: &str = "otherix.req.v1";

/// The prefix of heartbeats; the key of the node's NATS user follows.
pub const HEARTBEATS: &str = "otherix.hb.v1";

/// The prefix of requests to nodes; the key of the node's NATS user follows.
pub const ASKS: &str = "otherix.ask.v1";

/// The prefix of nodes' answers to them; the key of the node's NATS user follows.
pub const ASK_ANSWERS: &str = "otherix.ans.v1";

/// The subject of an event in the stream: `otherix.<family>.v1.<aggregate>.<event>.<id>`.
pub fn event(event: &Event) -> String {
    let (declaration, stream) = (event.declaration(), event.stream_id());
    let (family, name) = (declaration.family.token(), declaration.event_name());
    format!("otherix.{family}.v1.{}.{name}.{}", stream.aggregate(), stream.aggregate_id())
}

/// The subject of an event that is stored with this `type`, and belongs to the aggregate `<type>/<id>`.
///
/// # Errors
/// If the type is unknown to this version.
pub fn stored_event(type_name: &str, stream: &str) -> Result<String, StoredError> {
    let declaration = Event::declaration_of(type_name)?;
    let (family, name) = (declaration.family.token(), declaration.event_name());
    let id = stream.split_once('/').map_or(stream, |(_, id)| id);
    Ok(format!("otherix.{family}.v1.{}.{name}.{id}", declaration.aggregate()))
}

/// The subject on which the event of a stream's `subject` is published live.
pub fn live(subject: &str) -> String {
    format!("{LIVE_PREFIX}.{subject}")
}

/// The subject of the heartbeats of the node with this key.
pub fn heartbeat(key: &UserId) -> String {
    format!("{HEARTBEATS}.{key}")
}

/// The subject of requests to the node with this key.
pub fn ask(key: &UserId) -> String {
    format!("{ASKS}.{key}")
}

/// The subject of the answers of the node with this key.
pub fn ask_answer(key: &UserId) -> String {
    format!("{ASK_ANSWERS}.{key}")
}

/// A request's subject: `otherix.req.v1.<user>.<resource>.<verb>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestSubject {
    /// As claimed by the client; the NATS server's attestation must agree.
    pub user: UserId,
    pub request: Request,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the subject of a request")]
pub struct SubjectError(String);

impl std::fmt::Display for RequestSubject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{REQUESTS}.{}.{}", self.user, self.request.name)
    }
}

impl FromStr for RequestSubject {
    type Err = SubjectError;
    fn from_str(subject: &str) -> Result<Self, SubjectError> {
        let error = || SubjectError(subject.to_owned());
        let rest = subject.strip_prefix(REQUESTS).and_then(|rest| rest.strip_prefix('.')).ok_or_else(error)?;
        let (user, request) = rest.split_once('.').ok_or_else(error)?;
        let request = Request::named(request).ok_or_else(error)?;
        Ok(Self { user: user.parse().map_err(|_| error())?, request })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_subjects_round_trip() {
        for request in Request::all() {
            let subject = RequestSubject { user: "admin".parse().unwrap(), request };
            assert_eq!(subject.to_string().parse::<RequestSubject>().unwrap(), subject);
        }
    }

    #[test]
    fn rejects_unknown_request_subjects() {
        for bad in [
            "",
            "otherix.req.v1",
            "otherix.req.v1.a",
            "otherix.req.v1.a.network.paint",
            "otherix.req.v2.a.network.get",
            "otherix.req.v1..network.get",
        ] {
            assert!(bad.parse::<RequestSubject>().is_err(), "{bad}");
        }
    }
}
