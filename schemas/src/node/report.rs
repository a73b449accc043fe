//! Reports: the outcomes of a node's reconciliation passes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::outcome::{ResourceOutcome, ResourceRef};

/// Maximum number of results in one report.
pub const REPORT_RESULTS_MAX: usize = 1_000;

/// Maximum size of a report in bytes: a request is one message, and NATS carries 1 MiB.
pub const REPORT_BYTES_MAX: usize = 960 * 1024;

/// Maximum size of the outcomes in one event in bytes; a report with more is recorded as several events with its
/// number. An entry of the transparency log has at most 65,535 bytes, and 8 KiB are left for the rest of the event. One
/// outcome has at most 13 KiB.
pub const EVENT_RESULTS_BYTES_MAX: usize = 56 * 1024 - 1;

/// The highest incarnation and sequence: the largest integer that every JSON parser reads exactly.
pub const REPORT_NUMBER_MAX: u64 = (1 << 53) - 1;

/// How far an incarnation may be ahead of the last one that was recorded. Each start of an agent adds at most 65,536:
/// this is enough for 16 million starts whose reports were lost, and one wrong report does not use up the range.
pub const INCARNATION_AHEAD_MAX: u64 = 1 << 40;

/// The number of a report. Later reports of a node have greater ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct ReportNumber {
    /// Number of the agent's start on this node.
    pub incarnation: u64,
    /// Number of the report within the incarnation.
    pub sequence: u64,
}

impl ReportNumber {
    /// Returns the highest incarnation that a report may have after the one that was recorded `last`.
    pub fn incarnation_max(last: Option<Self>) -> u64 {
        let last = last.map_or(0, |last| last.incarnation);
        last.saturating_add(INCARNATION_AHEAD_MAX).min(REPORT_NUMBER_MAX)
    }

    /// Whether a report may have this number after the one that was recorded `last`.
    pub fn is_in_range(self, last: Option<Self>) -> bool {
        self.incarnation <= Self::incarnation_max(last) && self.sequence <= REPORT_NUMBER_MAX
    }
}

impl std::fmt::Display for ReportNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "incarnation {}, sequence {}", self.incarnation, self.sequence)
    }
}

/// The outcomes of a node's passes that the control plane has not confirmed yet. At most 983,040 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeReport {
    pub node_id: NodeId,
    /// Number of the agent's start on this node, from 1: higher than at any earlier start, and at most 2^40 higher than
    /// the last that was recorded.
    pub incarnation: u64,
    /// Number of the report within the incarnation, from 1. A repeated report keeps its number.
    pub sequence: u64,
    /// At most one for each resource, and at most 1,000.
    pub results: Vec<ResourceOutcome>,
}

impl NodeReport {
    /// The number of the report.
    pub fn number(&self) -> ReportNumber {
        ReportNumber { incarnation: self.incarnation, sequence: self.sequence }
    }
}

/// What the control plane did with a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportReceipt {
    /// Resources that do not exist, or no longer exist: nothing was recorded for them, and the node need not report on
    /// them again.
    pub unknown: Vec<ResourceRef>,
    /// Present if nothing was recorded because a report with this number, the same or a later one, was recorded before:
    /// this one is a duplicate, or its node was set back to an older copy of its state, or another agent uses its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outdated: Option<ReportNumber>,
}
