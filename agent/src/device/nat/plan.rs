//! Plans our table of the packet filter, and the gateways of networks with NAT egress.

use std::collections::BTreeSet;

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;

use super::action::{ConfigureGateway, ForwardUplink, WriteTable};
use super::observe::{NatState, UplinkToChange, has_connected_routes};
use super::text;
use crate::engine::kind::PlannedOutcome;
use crate::engine::{PlanContext, Subject};
use crate::model::desired::DesiredBridge;
use crate::model::firewall::Ruleset;
use crate::model::ip::Address;
use crate::model::link::{BRIDGE, Link};
use crate::model::observed::Observed;
use crate::model::route::Prefix;

/// Plans the table, and forwarding on the uplinks once the table protects them.
pub(super) fn node(context: &mut PlanContext<'_>) {
    let state = context.shared::<NatState>();
    let NatState { ruleset, differs, is_unread, failure, non_forwarding_uplinks, former_uplinks, .. } = state.as_ref();
    if let Some(ruleset) = ruleset
        && *differs
        && !is_unread
        && failure.is_none()
    {
        let forget_connections = unprotected_subnets(context.observed, ruleset);
        context.add(WriteTable { ruleset: ruleset.clone(), forget_connections });
    }
    for UplinkToChange { index, name, failure } in non_forwarding_uplinks {
        if !differs && failure.is_none() {
            context.add(ForwardUplink { index: *index, name: name.clone(), on: true });
        }
    }
    for UplinkToChange { index, name, failure } in former_uplinks {
        if failure.is_none() {
            context.add(ForwardUplink { index: *index, name: name.clone(), on: false });
        }
    }
}

/// Returns the subnets of existing bridges that our table is not known to have protected.
fn unprotected_subnets(observed: &Observed, ruleset: &Ruleset) -> BTreeSet<Prefix> {
    if observed.firewall.table.ruleset().is_some() {
        return BTreeSet::new();
    }
    let existing = ruleset.nat_networks.iter().filter(|(name, _)| observed.named(name).is_some());
    existing.map(|(_, gateway)| gateway.subnet.into()).collect()
}

/// Plans the gateway on the network's bridge.
pub(super) fn network(context: &mut PlanContext<'_>, id: NetworkId, bridge: &DesiredBridge) -> PlannedOutcome {
    if context.observed.firewall.bridged {
        context.warn(id, text::BRIDGED.to_owned());
    }
    let state = context.shared::<NatState>();
    if let Some(conflicts) = state.conflicts(id) {
        conflicts.warnings().for_each(|warning| context.warn(id, warning.clone()));
        conflicts.withdrawal().into_iter().for_each(|reason| context.withdraw(id, reason.clone()));
    }
    state.uplinks.restricted(id).iter().for_each(|warning| context.warn(id, warning.clone()));
    let Some(link) = context.survey.best_of(id.uuid(), BRIDGE, &bridge.name).0 else { return Some(Outcome::Ready) };
    let (changes, outcome) = changes(context, id, bridge, link);
    let ConfigureGateway { network: _, index: _, address, remove, routes, forwarding } = &changes;
    if address.is_none() && remove.is_none() && routes.is_none() && forwarding.is_none() {
        return Some(outcome);
    }
    if let Some(failure) = context.failure(Subject::Network(id)) {
        return Some(failure);
    }
    context.add(changes);
    None
}

/// Returns what to change, and the outcome if nothing is.
fn changes(
    context: &PlanContext<'_>,
    id: NetworkId,
    bridge: &DesiredBridge,
    link: &Link,
) -> (ConfigureGateway, Outcome) {
    let (observed, state, index) = (context.observed, context.shared::<NatState>(), link.index);
    let mut changes =
        ConfigureGateway { network: id, index, address: None, remove: None, routes: None, forwarding: None };
    let forwards = observed.ip.forwarding.contains(&index);
    let Some(gateway) = bridge.nat else {
        let is_uplink = state.is_used && state.uplinks.links.contains(&index);
        changes.forwarding = (forwards && !is_uplink).then_some(false);
        changes.remove = former_address(context, id, index);
        return (changes, Outcome::Ready);
    };
    changes.remove = former_address(context, id, index);
    if let Some(conflicts) = state.conflicts(id)
        && (conflicts.cuts_off() || conflicts.keeps_out())
    {
        let own = Some(gateway.bridge_address()).filter(|address| observed.ip.has(index, *address));
        changes.remove = own.or(changes.remove);
        changes.forwarding = forwards.then_some(false);
    }
    if let Some(outcome) = state.conflict(id).or_else(|| state.unprotected()) {
        return (changes, outcome);
    }
    changes.address = Some(gateway.bridge_address()).filter(|address| !observed.ip.has(index, *address));
    let lacks_routes = link.up && changes.address.is_none() && !has_connected_routes(observed, index, gateway);
    changes.routes = lacks_routes.then(|| gateway.bridge_address());
    changes.forwarding = (!forwards).then_some(true);
    let outcome = match (state.uplinks.blocked(id), state.non_forwarding_uplinks.first()) {
        (Some(why), _) => Outcome::Pending(why.to_owned()),
        (None, Some(UplinkToChange { failure: Some(error), .. })) => Outcome::Failed(error.clone()),
        (None, Some(UplinkToChange { name, failure: None, .. })) => {
            Outcome::Pending(text::waiting_for_forwarding(name))
        }
        (None, None) => Outcome::Ready,
    };
    (changes, outcome)
}

/// Returns an address that the bridge has because it was the gateway with it. Others are removed in the next passes.
fn former_address(context: &PlanContext<'_>, id: NetworkId, index: u32) -> Option<Address> {
    let former = context.desired.former_addresses.get(&id)?;
    former.iter().find(|address| context.observed.ip.has(index, **address)).copied()
}
