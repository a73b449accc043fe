//! What the guest filter must be, and what it is.

use otherix_schemas::outcome::Outcome;

use super::action::GUEST_FILTER;
use super::text;
use crate::engine::Subject;
use crate::engine::context::{PlanInputs, SharedValue};
use crate::model::desired::Desired;
use crate::model::firewall::GuestFilter;

/// The state of the guest filter, computed once in a plan.
pub struct GuestFilterState {
    /// It must exist.
    pub(super) is_wanted: bool,
    /// It differs from what it must be.
    pub(super) differs: bool,
    /// It cannot be read for now.
    pub(super) is_unread: bool,
    /// Why it cannot be written for now.
    pub(super) failure: Option<String>,
}

/// Whether networks or NICs require the guest filter.
pub(super) fn is_required(desired: &Desired) -> bool {
    let has_bridges = desired.networks.values().any(|network| network.want.managed_bridge().is_some());
    has_bridges || desired.nics.values().any(|nic| nic.tap.is_some())
}

impl SharedValue for GuestFilterState {
    fn compute(inputs: &PlanInputs<'_>) -> Self {
        let PlanInputs { desired, observed, failures, .. } = *inputs;
        let current = observed.firewall.guest_filter;
        // Once written it stays, because to write it takes longer than to create a bridge. A node that was removed
        // from the cluster keeps it while devices are still to be removed, or their deletion is held.
        let may_stay = || desired.is_member || observed.owners().next().is_some();
        let is_wanted = is_required(desired) || (current != Some(GuestFilter::Absent) && may_stay());
        let differs = match current {
            None => false,
            Some(GuestFilter::Absent) => is_wanted,
            Some(GuestFilter::Intact) => !is_wanted,
            Some(GuestFilter::Altered | GuestFilter::Unread) => true,
        };
        Self {
            is_wanted,
            // Another cluster determines it once the node has left this one.
            differs: differs && !desired.has_left,
            is_unread: current == Some(GuestFilter::Unread),
            failure: failures.get(Subject::Node(GUEST_FILTER)).cloned(),
        }
    }
}

impl GuestFilterState {
    /// Whether a step is to remove it.
    pub(super) fn is_to_be_removed(&self) -> bool {
        self.differs && !self.is_wanted && self.failure.is_none()
    }

    /// Returns the outcome of resources whose guests it must separate from the node, while it differs from what it must
    /// be.
    pub fn unprotected(&self) -> Option<Outcome> {
        let error = self.failure.as_ref().map(|error| Outcome::Failed(error.clone()));
        let waiting = if self.is_unread { text::UNREAD } else { text::UNPROTECTED };
        self.differs.then(|| error.unwrap_or_else(|| Outcome::Pending(waiting.to_owned())))
    }
}
