//! What a look at a VM says to somebody who waits for it. Pure: judges a view, looks at nothing else.

use otherix_schemas::outcome::OutcomeStatus;
use otherix_schemas::vm::VmView;

use crate::thing::verdict::{self, Progress, Verdict, why};

/// Whether its NIC is ready.
pub(super) fn readiness(view: &VmView) -> Verdict {
    judge(view, OutcomeStatus::Ready)
}

/// Whether nothing of it is left on its node.
pub(super) fn removal(view: &VmView) -> Verdict {
    judge(view, OutcomeStatus::Removed)
}

fn judge(view: &VmView, wanted: OutcomeStatus) -> Verdict {
    if view.status == wanted {
        return Verdict::Done;
    }
    match view.status {
        OutcomeStatus::Failed => {
            verdict::failed(view, &why(&view.node_name, view.node_reachable, view.error.as_deref()))
        }
        OutcomeStatus::Pending | OutcomeStatus::Ready | OutcomeStatus::Removed => {
            Verdict::NotYet(Progress { done: 0, of: 1, words: missing(view) })
        }
    }
}

/// `node-1: pending: why`.
pub(super) fn missing(view: &VmView) -> String {
    let unreachable = if view.node_reachable { "" } else { " (unreachable)" };
    let error = view.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    format!("{}: {}{unreachable}{error}", view.node_name, view.status.as_str())
}
