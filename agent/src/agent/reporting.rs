//! Sends reports: one is in flight, and is sent again until it is answered. If the control plane has recorded later
//! ones, this agent continues as a newer incarnation; see docs/adr/0023.

use std::time::Duration;

use otherix_schemas::error::{Causes, ErrorBody, ErrorCode, LAST_REPORT};
use otherix_schemas::node::{ReportNumber, ReportReceipt};
use otherix_transport::request::CallError;
use tokio::task::JoinError;
use tokio::time::Instant;

use super::Agent;
use crate::control;
use crate::model::report::OutdatedCause;
use crate::status::{self, Problem};

/// Delay before this agent reports again while another one uses the node's id: however often their reports supersede
/// each other, that is not more often.
const OTHER_AGENT_DELAY: Duration = Duration::from_secs(60);

/// What to do if two agents use one node's id.
const OTHER_AGENT_HINT: &str = "on the machine that is the copy, stop the agent, empty its state folder, and run \
    `otherix-agent join` there with a new token and another name";

impl Agent {
    /// Sends the next report, if none is in flight.
    pub(super) fn send(&mut self) {
        if self.sending.is_empty()
            && self.resend_at.is_none()
            && self.joined.is_some()
            && !self.is_removed
            && let Some(report) = self.reporter.report()
        {
            tracing::debug!(sequence = report.sequence, results = report.results.len(), "reporting");
            let report = control::report(self.connection.clone(), report.clone());
            self.sending.add(self.connection.runtime().spawn("report", report));
        }
    }

    /// Handles the answer to the report in flight.
    pub(super) fn answered(&mut self, answer: Result<Result<ReportReceipt, CallError>, JoinError>) {
        match answer {
            Ok(Ok(receipt)) => {
                self.backoff.reset();
                if let Some(last) = receipt.outdated
                    && let Some(cause) = self.reporter.outdated_by(last)
                {
                    self.outdated(last, cause);
                    return;
                }
                let settled = self.reporter.answered(&receipt);
                let node = self.identity.node_id;
                let Some(ledger) = &mut self.ledger else { return };
                for id in settled {
                    if ledger.view_mut().forget(id, node) {
                        self.reporter.forget(id);
                        self.ledger_saver.changed();
                    }
                }
            }
            Ok(Err(error)) if self.is_removed => {
                tracing::debug!(error = %Causes(&error), "a report was refused because this node was removed");
            }
            Ok(Err(CallError::Refused(body))) if body.error.details.contains_key(LAST_REPORT) => {
                self.out_of_range(&body)
            }
            Ok(Err(error)) => {
                tracing::warn!(error = %Causes(&error), "a report failed; sending it again");
                if matches!(&error, CallError::Refused(body) if body.error.code == ErrorCode::NotFound) {
                    // A restored control plane may not know this node.
                    self.shared.request_membership();
                }
                self.resend_at = Some(Instant::now() + self.backoff.next_delay());
            }
            // The runtime is shutting down.
            Err(_) => {}
        }
    }

    /// Continues as a newer incarnation than the last recorded one.
    fn outdated(&mut self, last: ReportNumber, cause: OutdatedCause) {
        let before = self.identity.incarnation;
        if !self.renew(last.incarnation) {
            return;
        }
        let incarnation = self.identity.incarnation;
        let problem = match cause {
            OutdatedCause::SetBack => {
                let problem = format!(
                    "this node was set back to an older copy of its state, or another agent uses its id: the control \
                     plane has recorded {last}, and this agent started as incarnation {before}; it continues as \
                     {incarnation} and reports everything again"
                );
                tracing::warn!(%last, before, incarnation, "{problem}");
                let told = format!("report {last} was recorded, and it started as incarnation {before}");
                self.shared.note_set_back(told);
                // The control plane records it.
                self.shared.head_wanted.notify_one();
                problem
            }
            OutdatedCause::OtherAgent => {
                self.resend_at = Some(Instant::now() + OTHER_AGENT_DELAY);
                let delay = OTHER_AGENT_DELAY.as_secs();
                let problem = format!(
                    "another agent uses the id of this node: the control plane has recorded its report ({last}); this \
                     agent reports again in {delay} s: {OTHER_AGENT_HINT}"
                );
                let hint = OTHER_AGENT_HINT;
                tracing::error!(%last, before, incarnation, hint, "another agent uses this node's id");
                problem
            }
        };
        self.note_problem(problem);
    }

    /// The number of the report is out of range, because the file with the incarnation was altered.
    fn out_of_range(&mut self, refusal: &ErrorBody) {
        let last = refusal.error.details.get(LAST_REPORT).cloned().unwrap_or_default();
        let last: Option<ReportNumber> = serde_json::from_value(last).unwrap_or_default();
        let before = self.identity.incarnation;
        if self.renew(last.map_or(0, |last| last.incarnation)) {
            let incarnation = self.identity.incarnation;
            tracing::error!(error = %refusal, before, incarnation, "continuing as another incarnation");
            self.note_problem(format!("{refusal}; this agent continues as incarnation {incarnation}"));
            self.resend_at = Some(Instant::now() + self.backoff.next_delay());
        }
    }

    /// Takes an incarnation after `recorded`, and reports everything again. If it cannot be written, the report in
    /// flight is sent again later: the answer will be the same.
    fn renew(&mut self, recorded: u64) -> bool {
        if let Err(error) = self.identity.renew(recorded, self.connection.runtime().as_ref()) {
            tracing::error!(error = %Causes(&error), "cannot take another incarnation: trying again");
            self.resend_at = Some(Instant::now() + self.backoff.next_delay());
            return false;
        }
        self.shared.incarnation.send_replace(self.identity.incarnation);
        // What an earlier incarnation had on disk is not compared with what this agent was started with, again.
        let saved = *self.shared.saved.borrow();
        self.shared.started_with.send_modify(|started| *started = started.map(|started| started.max(saved)));
        self.reporter.renew(self.identity.incarnation);
        self.reconciler.report_all();
        self.needs_pass = true;
        true
    }

    /// Says that another agent sends heartbeats as this node.
    pub(super) fn other_agent_changed(&mut self) {
        let Some(other) = *self.other_agent.borrow_and_update() else { return };
        let own = self.identity.incarnation;
        if let Some(hits) = self.other_agent_log.hit() {
            tracing::error!(own, other, hits, hint = OTHER_AGENT_HINT, "another agent sends heartbeats as this node");
        }
        self.note_problem(format!(
            "another agent sends heartbeats as this node (its incarnation is {other}, and that of this one {own}): \
             {OTHER_AGENT_HINT}"
        ));
    }

    fn note_problem(&self, text: String) {
        status::note(&self.state, &Problem { at: self.connection.runtime().now().ok(), text });
    }
}
