//! What requests about refused commands return.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ErrorCode;
use crate::timestamp::Timestamp;
use crate::value::UserId;

/// Most refusals in an answer.
pub const REFUSALS_MAX: usize = 200;

/// Refusals; of too many, the callers take turns, from the latest one of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusals {
    /// The oldest first.
    pub refusals: Vec<RefusalView>,
    /// Whether there are more.
    pub is_truncated: bool,
}

/// A refused command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefusalView {
    /// When it was refused first.
    pub time: Timestamp,
    /// The same command of the same caller, refused with the same code again within a minute, is counted here.
    pub count: u32,
    /// When it was refused last.
    pub last_time: Timestamp,
    /// The id of the caller, as in the `actor` of events.
    pub actor: UserId,
    /// Its name then.
    pub actor_name: String,
    /// The name of the request, such as `network.delete`.
    pub request: String,
    pub code: ErrorCode,
    /// Human-readable; that of the last one.
    pub message: String,
}
