//! Judges whether a wait for a VM is over. Pure: depends on the view only.

use otherix_schemas::outcome::OutcomeStatus;
use otherix_schemas::vm::VmView;

use crate::resource::verdict::{self, Progress, Verdict, node_failure};

/// Whether the VM's NIC is ready.
pub(super) fn readiness(view: &VmView) -> Verdict {
    judge(view, OutcomeStatus::Ready)
}

/// Whether the VM's node has removed its NIC.
pub(super) fn removal(view: &VmView) -> Verdict {
    judge(view, OutcomeStatus::Removed)
}

fn judge(view: &VmView, goal: OutcomeStatus) -> Verdict {
    if view.status == goal {
        return Verdict::Done;
    }
    match view.status {
        OutcomeStatus::Failed => {
            verdict::failed(view, &node_failure(&view.node_name, view.node_reachable, view.error.as_deref()))
        }
        OutcomeStatus::Pending | OutcomeStatus::Ready | OutcomeStatus::Removed => {
            Verdict::Pending(Progress { done: 0, of: 1, message: pending(view) })
        }
    }
}

/// `node-1: pending: error`.
pub(super) fn pending(view: &VmView) -> String {
    let unreachable = if view.node_reachable { "" } else { " (unreachable)" };
    let error = view.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    format!("{}: {}{unreachable}{error}", view.node_name, view.status.as_str())
}
