//! Plans the guest filter.

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;

use super::action::WriteGuestFilter;
use super::observe::GuestFilterState;
use super::text;
use crate::engine::PlanContext;
use crate::engine::kind::PlannedOutcome;
use crate::model::desired::DesiredNetwork;
use crate::model::link::BRIDGE;

pub(super) fn node(context: &mut PlanContext<'_>) {
    let state = context.shared::<GuestFilterState>();
    let GuestFilterState { is_wanted, differs, is_unread, failure } = state.as_ref();
    if *differs && !is_unread && failure.is_none() {
        context.add(WriteGuestFilter { is_wanted: *is_wanted });
    }
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
