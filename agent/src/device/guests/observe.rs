//! What the guest filter must be, and what it is.

use otherix_schemas::outcome::Outcome;

use super::action::GUEST_FILTER;
use super::text;
use crate::engine::Subject;
use crate::engine::context::{PlanInputs, SharedValue};
use crate::model::desired::Desired;
use crate::model::firewall::GuestFilter;
use crate::model::observed::Observed;
use crate::model::tap_lock::TapLocks;

/// The state of the guest filter, computed once in a plan.
pub struct GuestFilterState {
    /// It must exist.
    pub(super) is_wanted: bool,
    /// It differs from what it must be.
    pub(super) differs: bool,
    /// It cannot be read for now.
    pub(super) is_unread: bool,
    /// What it must have about single taps.
    pub(super) locks: TapLocks,
    /// Why it cannot be written for now.
    pub(super) failure: Option<String>,
}

/// Whether networks or NICs require the guest filter.
pub(super) fn is_required(desired: &Desired) -> bool {
    let has_bridges = desired.networks.values().any(|network| network.want.managed_bridge().is_some());
    has_bridges || desired.nics.values().any(|nic| nic.tap.is_some())
}

/// Returns what the guest filter must have about single taps. Until all decisions are known, it keeps what it has about
/// others.
fn locks(inputs: &PlanInputs<'_>) -> TapLocks {
    let PlanInputs { desired, observed, is_current, .. } = *inputs;
    let taps = desired.nics.values().filter_map(|nic| nic.tap.as_ref());
    let locks = taps.map(|tap| (tap.name.clone(), tap.locks(desired.networks.get(&tap.network))));
    let mut locks: TapLocks = locks.filter(|(_, locks)| !locks.is_empty()).collect();
    let kept = observed.firewall.locks.iter().flatten().filter(|_| !is_current);
    for (tap, current) in kept.filter(|(tap, _)| observed.named(tap).is_some()) {
        locks.entry(tap.clone()).or_insert_with(|| current.clone());
    }
    locks
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
            locks: locks(inputs),
            failure: failures.get(Subject::Node(GUEST_FILTER)).cloned(),
        }
    }
}

impl GuestFilterState {
    /// Returns what the guest filter has about single taps, if it is as it must be otherwise.
    pub(super) fn current_locks<'a>(&self, observed: &'a Observed) -> Option<&'a TapLocks> {
        let is_intact = self.is_wanted && observed.firewall.guest_filter == Some(GuestFilter::Intact);
        observed.firewall.locks.as_ref().filter(|_| is_intact)
    }

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
