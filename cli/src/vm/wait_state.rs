//! Determines whether a wait for a VM is over. Pure: depends on the view only.

use otherix_schemas::outcome::OutcomeStatus;
use otherix_schemas::vm::VmView;

use crate::resource::wait_state::{self, WaitProgress, WaitState, node_failure};

/// Whether the VM's NIC is ready.
pub(super) fn readiness(view: &VmView) -> WaitState {
    state(view, OutcomeStatus::Ready)
}

/// Whether the VM's node has removed its NIC.
pub(super) fn removal(view: &VmView) -> WaitState {
    state(view, OutcomeStatus::Removed)
}

fn state(view: &VmView, goal: OutcomeStatus) -> WaitState {
    if view.status == goal {
        return WaitState::Done;
    }
    match view.status {
        OutcomeStatus::Failed => {
            wait_state::failed(view, &node_failure(&view.node_name, view.node_reachable, view.error.as_deref()))
        }
        OutcomeStatus::Pending | OutcomeStatus::Ready | OutcomeStatus::Removed => {
            WaitState::Pending(WaitProgress { done: 0, of: 1, message: pending(view) })
        }
    }
}

/// `node-1: pending: error`.
pub(super) fn pending(view: &VmView) -> String {
    let unreachable = if view.node_reachable { "" } else { " (unreachable)" };
    let error = view.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    format!("{}: {}{unreachable}{error}", view.node_name, view.status.as_str())
}
