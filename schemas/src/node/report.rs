//! Reports: the outcomes of a node's reconciliation passes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::outcome::{ResourceOutcome, ResourceRef};

/// Maximum number of results in one report.
pub const REPORT_RESULTS_MAX: usize = 1_000;

/// Maximum size of a report in bytes. The resulting event must fit into the 1 MiB that NATS carries: it is longer than
/// the report by its header and, for each result, by what a report may omit (`"error":null`).
pub const REPORT_BYTES_MAX: usize = 960 * 1024;

/// The outcomes of a node's passes that the control plane has not confirmed yet. At most 983,040 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeReport {
    pub node_id: NodeId,
    /// Number of the agent's start on this node, from 1.
    pub incarnation: u64,
    /// Number of the report within the incarnation, from 1. A repeated report keeps its number.
    pub sequence: u64,
    /// At most one for each resource, and at most 1,000.
    pub results: Vec<ResourceOutcome>,
}

/// What the control plane did with a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportReceipt {
    /// Resources that do not exist, or no longer exist: nothing was recorded for them, and the node need not report on
    /// them again.
    pub unknown: Vec<ResourceRef>,
}
