//! Requests, what they have in common, and the envelope of their answers.

mod page;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::page::{ByName, PAGE_DEFAULT, PAGE_MAX, PageRequest};
use crate::position::Position;

/// Header with the idempotency key, which makes a command safe to retry: for 24 hours, the same key and body return the
/// first success again.
pub const IDEMPOTENCY_KEY: &str = "Otherix-Idempotency-Key";

/// Maximum length of an idempotency key in bytes.
pub const IDEMPOTENCY_KEY_MAX: usize = 128;

/// Header that makes a query return at once, even if the read models lag behind acknowledged writes; `meta.position`
/// tells how far the answer goes. Any value.
pub const STALE: &str = "Otherix-Stale";

/// Header with the W3C trace context of a request.
pub const TRACEPARENT: &str = "traceparent";

/// The body of a successful answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Answer<Data> {
    pub data: Data,
    pub meta: Meta,
}

/// What an answer is based on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Meta {
    /// The position of the last event that the answer takes into account.
    pub position: Position,
    /// The `cursor` of the next page; absent on the last page and in answers that are not a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

impl Meta {
    /// For an answer that is not a page.
    pub fn at(position: Position) -> Self {
        Self { position, next_cursor: None }
    }
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
