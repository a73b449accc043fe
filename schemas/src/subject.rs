//! NATS subjects: built here, parsed here, and nowhere else.

use std::str::FromStr;

use crate::event::Event;
use crate::id::NodeId;
use crate::request::Request;
use crate::value::UserId;

/// The stream that holds every event; also the name of its mirror in the clients' account.
pub const STREAM: &str = "OTHERIX_EVENTS";

/// What the stream takes in.
pub const STREAM_SUBJECTS: [&str; 3] = ["otherix.evt.v1.>", "otherix.out.v1.>", "otherix.adm.v1.>"];

/// Every decision, as the stream stores it.
pub const DECISIONS: &str = "otherix.evt.v1.>";

/// Every outcome, as the stream stores it.
pub const OUTCOMES: &str = "otherix.out.v1.>";

/// What comes in front of an event's subject where followers are told of it live.
pub const LIVE_PREFIX: &str = "live";

/// What every request begins with; behind it come user, resource and verb.
pub const REQUESTS: &str = "otherix.req.v1";

/// What every heartbeat begins with; behind it comes the node.
pub const HEARTBEATS: &str = "otherix.hb.v1";

/// The subject of an event in the stream: `otherix.<family>.v1.<aggregate>.<event>.<id>`.
pub fn event(event: &Event) -> String {
    let (declaration, stream) = (event.declaration(), event.stream_id());
    let (family, name) = (declaration.family.token(), declaration.event_name());
    format!("otherix.{family}.v1.{}.{name}.{}", stream.aggregate(), stream.aggregate_id())
}

/// Where followers are told live of what the stream stores under `subject`.
pub fn live(subject: &str) -> String {
    format!("{LIVE_PREFIX}.{subject}")
}

/// Where a node's heartbeats go.
pub fn heartbeat(node: NodeId) -> String {
    format!("{HEARTBEATS}.{node}")
}

/// A request's subject: `otherix.req.v1.<user>.<resource>.<verb>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestSubject {
    /// Who says to be asking; the server's attestation must agree.
    pub user: UserId,
    /// What is asked of it.
    pub request: Request,
}

/// A subject that is no request's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the subject of a request")]
pub struct SubjectError(String);

impl std::fmt::Display for RequestSubject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{REQUESTS}.{}.{}", self.user, self.request.as_str())
    }
}

impl FromStr for RequestSubject {
    type Err = SubjectError;
    fn from_str(subject: &str) -> Result<Self, SubjectError> {
        let error = || SubjectError(subject.to_owned());
        let rest = subject.strip_prefix(REQUESTS).and_then(|rest| rest.strip_prefix('.')).ok_or_else(error)?;
        let (user, request) = rest.split_once('.').ok_or_else(error)?;
        let request = Request::ALL.into_iter().find(|known| known.as_str() == request).ok_or_else(error)?;
        Ok(Self { user: user.parse().map_err(|_| error())?, request })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_way_there_and_back() {
        for request in Request::ALL {
            let subject = RequestSubject { user: "admin".parse().unwrap(), request };
            assert_eq!(subject.to_string().parse::<RequestSubject>().unwrap(), subject);
        }
    }

    #[test]
    fn what_is_no_request() {
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
