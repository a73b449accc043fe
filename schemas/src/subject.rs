//! NATS subjects: built here, parsed here, and nowhere else.

use std::str::FromStr;

use crate::event::{Event, Family};
use crate::id::NodeId;
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

/// The subject of an event in the stream.
pub fn event(event: &Event) -> String {
    let family = match event.family() {
        Family::Decision => "evt",
        Family::Outcome => "out",
    };
    format!("otherix.{family}.v1.{}.{}.{}", event.aggregate(), event.name(), event.aggregate_id())
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

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Make a network.
    NetworkCreate,
    /// Remove a network.
    NetworkDelete,
    /// Look a network up by its id.
    NetworkGet,
    /// Look a network up by its name.
    NetworkFind,
    /// A page of networks.
    NetworkList,
    /// Make a VM.
    VmCreate,
    /// Remove a VM.
    VmDelete,
    /// Look a VM up by its id.
    VmGet,
    /// Look a VM up by its name.
    VmFind,
    /// A page of VMs.
    VmList,
    /// Remove a node from the cluster.
    NodeDelete,
    /// Look a node up by its id.
    NodeGet,
    /// Look a node up by its name.
    NodeFind,
    /// A page of nodes.
    NodeList,
    /// Become a node of the cluster.
    NodeJoin,
    /// A node's outcomes.
    NodeReport,
}

/// A subject that is no request's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the subject of a request")]
pub struct SubjectError(String);

impl Request {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::NetworkCreate,
        Self::NetworkDelete,
        Self::NetworkGet,
        Self::NetworkFind,
        Self::NetworkList,
        Self::VmCreate,
        Self::VmDelete,
        Self::VmGet,
        Self::VmFind,
        Self::VmList,
        Self::NodeDelete,
        Self::NodeGet,
        Self::NodeFind,
        Self::NodeList,
        Self::NodeJoin,
        Self::NodeReport,
    ];

    /// The last two tokens of the subject: `<resource>.<verb>`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NetworkCreate => "network.create",
            Self::NetworkDelete => "network.delete",
            Self::NetworkGet => "network.get",
            Self::NetworkFind => "network.find",
            Self::NetworkList => "network.list",
            Self::VmCreate => "vm.create",
            Self::VmDelete => "vm.delete",
            Self::VmGet => "vm.get",
            Self::VmFind => "vm.find",
            Self::VmList => "vm.list",
            Self::NodeDelete => "node.delete",
            Self::NodeGet => "node.get",
            Self::NodeFind => "node.find",
            Self::NodeList => "node.list",
            Self::NodeJoin => "node.join",
            Self::NodeReport => "node.report",
        }
    }
}

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
