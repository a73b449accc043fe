//! Outcomes that the control plane has confirmed, and those still to be reported.
//!
//! One report is in flight at a time. It is sent again unchanged, with the same sequence number, until it is answered;
//! outcomes that change meanwhile are coalesced into the next. An outcome is reported only if it differs from the
//! confirmed one.

use std::collections::BTreeMap;

use otherix_schemas::id::NodeId;
use otherix_schemas::node::{NodeReport, ReportNumber, ReportReceipt};
use otherix_schemas::outcome::{OutcomeStatus, ResourceOutcome, ResourceRef};

/// Most outcomes in one report. With a text of at most 1,024 characters of 4 bytes and 4 warnings of 256 in each, a
/// report stays below the 1 MiB that NATS accepts.
const RESULTS_MAX: usize = 100;

/// Determines what to report, for one incarnation of the agent.
#[derive(Clone, Debug)]
pub struct OutcomeReporter {
    node_id: NodeId,
    incarnation: u64,
    sequence: u64,
    confirmed: BTreeMap<ResourceRef, ResourceOutcome>,
    /// The latest outcome of each resource that differs from the one reported last.
    waiting: BTreeMap<ResourceRef, ResourceOutcome>,
    in_flight: Option<NodeReport>,
    /// How often the report in flight was sent.
    attempts: u32,
    /// A report was accepted, or an outdated one led to a newer incarnation, since the agent started.
    is_established: bool,
}

/// Why a report was outdated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutdatedCause {
    /// The first report since the agent started: it started with an older copy of its state, or another agent uses the
    /// node's id.
    SetBack,
    /// Reports of another agent that uses the node's id are recorded.
    OtherAgent,
}

impl OutcomeReporter {
    pub fn new(node_id: NodeId, incarnation: u64) -> Self {
        Self {
            node_id,
            incarnation,
            sequence: 0,
            confirmed: BTreeMap::new(),
            waiting: BTreeMap::new(),
            in_flight: None,
            attempts: 0,
            is_established: false,
        }
    }

    /// Records the outcome of a network or NIC.
    pub fn observe(&mut self, outcome: ResourceOutcome) {
        let id = outcome.resource;
        if self.reported(id) == Some(&outcome) {
            self.waiting.remove(&id);
        } else {
            self.waiting.insert(id, outcome);
        }
    }

    /// Returns the outcome that the control plane will have once the report in flight is answered.
    fn reported(&self, id: ResourceRef) -> Option<&ResourceOutcome> {
        let in_flight = self.in_flight.iter().flat_map(|report| &report.results).find(|outcome| outcome.resource == id);
        in_flight.or_else(|| self.confirmed.get(&id))
    }

    /// Returns the report to send: the one in flight, or a new one.
    pub fn report(&mut self) -> Option<&NodeReport> {
        if self.in_flight.is_none() {
            self.in_flight = self.begin();
            self.attempts = 0;
        }
        self.attempts = self.attempts.saturating_add(1);
        self.in_flight.as_ref()
    }

    /// Returns why the report in flight is outdated, if `last`, the last report that the control plane recorded, is not
    /// this one, sent before without an answer.
    pub fn outdated_by(&self, last: ReportNumber) -> Option<OutdatedCause> {
        let report = self.in_flight.as_ref()?;
        let is_own = self.attempts > 1 && last == report.number();
        let cause = if self.is_established { OutdatedCause::OtherAgent } else { OutdatedCause::SetBack };
        (!is_own).then_some(cause)
    }

    /// Continues as another incarnation, and reports all outcomes again when they are next observed.
    pub fn renew(&mut self, incarnation: u64) {
        (self.incarnation, self.sequence, self.is_established) = (incarnation, 0, true);
        for outcome in self.in_flight.take().into_iter().flat_map(|report| report.results) {
            self.waiting.entry(outcome.resource).or_insert(outcome);
        }
        self.resend_all();
    }

    /// Applies the answer to the report in flight. Returns the resources that need not be reported again: those whose
    /// removal is confirmed, and those that the control plane does not know.
    pub fn answered(&mut self, receipt: &ReportReceipt) -> Vec<ResourceRef> {
        let Some(report) = self.in_flight.take() else { return Vec::new() };
        self.is_established = true;
        let mut settled = Vec::new();
        for outcome in report.results {
            let id = outcome.resource;
            if outcome.outcome.status() == OutcomeStatus::Removed || receipt.unknown.contains(&id) {
                settled.push(id);
            }
            self.confirmed.insert(id, outcome);
        }
        settled
    }

    /// Reports all outcomes again when they are next observed, because the control plane may have lost them.
    pub fn resend_all(&mut self) {
        self.confirmed.clear();
    }

    /// Forgets a resource that is no longer reported.
    pub fn forget(&mut self, id: ResourceRef) {
        self.confirmed.remove(&id);
        self.waiting.remove(&id);
    }

    fn begin(&mut self) -> Option<NodeReport> {
        let ids: Vec<_> = self.waiting.keys().copied().take(RESULTS_MAX).collect();
        if ids.is_empty() {
            return None;
        }
        self.sequence += 1;
        let results = ids.iter().filter_map(|id| self.waiting.remove(id)).collect();
        Some(NodeReport { node_id: self.node_id, incarnation: self.incarnation, sequence: self.sequence, results })
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
