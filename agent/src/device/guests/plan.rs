//! Plans the guest filter.

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;

use super::action::{ChangeLocks, WriteGuestFilter};
use super::observe::GuestFilterState;
use super::text;
use crate::engine::PlanContext;
use crate::engine::kind::PlannedOutcome;
use crate::model::desired::{DesiredNetwork, DesiredTap};
use crate::model::link::BRIDGE;
use crate::model::tap_lock::{TapLocks, difference};

pub(super) fn node(context: &mut PlanContext<'_>) {
    let state = context.shared::<GuestFilterState>();
    let GuestFilterState { is_wanted, differs, is_unread, locks, failure } = state.as_ref();
    if *is_unread || failure.is_some() {
        return;
    }
    if *differs {
        let locks = if *is_wanted { locks.clone() } else { TapLocks::new() };
        context.add(WriteGuestFilter { is_wanted: *is_wanted, locks });
    } else if let Some(current) = state.current_locks(context.observed)
        && !context.desired.has_left
    {
        let (remove, add) = (difference(current, locks), difference(locks, current));
        if !(remove.is_empty() && add.is_empty()) {
            context.add(ChangeLocks { remove, add });
        }
    }
}

/// Returns the outcome of a NIC, which is ready when the guest filter has its addresses.
pub(super) fn nic(context: &PlanContext<'_>, tap: &DesiredTap) -> PlannedOutcome {
    let state = context.shared::<GuestFilterState>();
    let Some(current) = state.current_locks(context.observed) else { return Some(Outcome::Ready) };
    if current.get(&tap.name) == state.locks.get(&tap.name) {
        return Some(Outcome::Ready);
    }
    state.failure.clone().map(Outcome::Failed)
}

/// Returns the outcome of a network, and warns if the node has an address on a bridge without a gateway.
pub(super) fn network(context: &mut PlanContext<'_>, id: NetworkId, network: &DesiredNetwork) -> PlannedOutcome {
    if let Some(bridge) = network.want.managed_bridge().filter(|bridge| bridge.nat.is_none())
        && let Some(link) = context.survey.best_of(id.uuid(), BRIDGE, &bridge.name).0
        && let Some(address) = context.observed.ip.addresses.get(&link.index).and_then(|addresses| addresses.first())
    {
        context.warn(id, text::has_address(link, *address));
    }
    let unprotected = context.shared::<GuestFilterState>().unprotected();
    Some(unprotected.unwrap_or(Outcome::Ready))
}
