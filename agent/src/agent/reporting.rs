//! Sends reports: one is in flight, and is sent again until it is answered.

use otherix_schemas::error::{Causes, ErrorCode};
use otherix_schemas::node::ReportReceipt;
use otherix_transport::request::CallError;
use tokio::task::JoinError;
use tokio::time::Instant;

use super::Agent;
use crate::control;

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
                let settled = self.reporter.answered(&receipt);
                let Some(ledger) = &mut self.ledger else { return };
                for id in settled {
                    if ledger.view_mut().forget(id) {
                        self.reporter.forget(id);
                        self.ledger_saver.changed();
                    }
                }
            }
            Ok(Err(error)) if control::is_removed(&error) => {
                tracing::debug!(error = %Causes(&error), "a report was refused because this node was removed");
                self.shared.request_membership();
                self.resend_at = Some(Instant::now() + control::REMOVED_RETRY);
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
}
