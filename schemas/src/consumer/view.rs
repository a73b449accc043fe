//! A consumer as requests return it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConsumerName;
use crate::position::Position;
use crate::timestamp::Timestamp;

/// A consumer of the user that asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConsumerView {
    pub name: ConsumerName,
    /// The JetStream domain to read in.
    pub domain: String,
    pub stream: String,
    /// The name of the JetStream consumer.
    pub consumer: String,
    /// The event that it began with: `all`, `new`, a position, or a time.
    pub from: String,
    /// The subjects of the events that it delivers; empty is all.
    pub subjects: Vec<String>,
    pub ack_wait_seconds: u64,
    pub max_ack_pending: u64,
    /// Seconds without a reader after which it is removed.
    pub inactive_seconds: u64,
    /// The position of the last event that was delivered.
    pub delivered: Position,
    /// The position up to which every event that it delivers is acknowledged.
    pub acknowledged: Position,
    /// Number of events that are delivered and not acknowledged.
    pub ack_pending: u64,
    /// Number of stored events that are still to be delivered.
    pub pending: u64,
    pub created_at: Timestamp,
}
