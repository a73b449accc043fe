//! Requests: their declarations, headers, and the envelope of their answers.

mod as_of;
mod body;
mod declaration;
mod page;
mod trace;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::as_of::{AsOf, AsOfError};
pub use self::body::parse_body;
pub use self::declaration::{Request, RequestKind, RequestType, ServiceKind};
pub use self::page::{ByName, PAGE_DEFAULT, PAGE_MAX, PageRequest};
pub use self::trace::is_traceparent;
use crate::position::Position;

/// Header with the idempotency key, which makes a command safe to retry: for 24 hours, the same key and body return the
/// first success again.
pub const IDEMPOTENCY_KEY: &str = "Otherix-Idempotency-Key";

/// Maximum length of an idempotency key in bytes.
pub const IDEMPOTENCY_KEY_MAX: usize = 128;

/// Header that makes a command be decided and not recorded: the answer or the refusal is what the command would get
/// now, and nothing changes. Any value.
pub const DRY_RUN: &str = "Otherix-Dry-Run";

/// Header that makes a query return at once, even if the read models lag behind acknowledged writes; `meta.position`
/// is the last event that the answer takes into account. Any value.
pub const STALE: &str = "Otherix-Stale";

/// Header that makes a query about networks, VMs or nodes be answered as it was at an [`AsOf`]; `meta.position`
/// is the position of the last event that the answer takes into account.
pub const AT: &str = "Otherix-At";

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
