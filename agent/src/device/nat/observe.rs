//! The state of the packet filter and of NAT egress, compared with what is desired.

use otherix_schemas::outcome::Outcome;

use super::action::PACKET_FILTER;
use super::ruleset::ruleset;
use super::text;
use crate::engine::Subject;
use crate::engine::context::{PlanInputs, SharedValue};
use crate::model::desired::DesiredBridge;
use crate::model::firewall::{Ruleset, TableState};
use crate::model::ip::ConnectedRoutes;
use crate::model::link::Link;
use crate::model::observed::Observed;

/// Computed once in a plan.
pub struct NatState {
    /// What our table must hold; absent if this plan is for a cluster that the node has left.
    pub(super) ruleset: Option<Ruleset>,
    /// The table holds something else.
    pub(super) differs: bool,
    /// The table holds more than it must.
    shrinks: bool,
    /// What the table holds is not known for now.
    pub(super) is_unread: bool,
    /// The table cannot be written for now.
    pub(super) failure: Option<String>,
    /// There is a network with NAT egress.
    pub(super) is_used: bool,
    routes: ConnectedRoutes,
    pub(super) has_uplink: bool,
    /// Uplinks that do not forward.
    pub(super) non_forwarding_uplinks: Vec<NonForwardingUplink>,
}

pub(super) struct NonForwardingUplink {
    pub(super) index: u32,
    pub(super) name: String,
    /// Why it cannot be made to forward for now.
    pub(super) failure: Option<String>,
}

impl SharedValue for NatState {
    fn compute(inputs: &PlanInputs<'_>) -> Self {
        let PlanInputs { desired, observed, failures, .. } = *inputs;
        let table = &observed.firewall.table;
        let ruleset = (!desired.has_left).then(|| ruleset(inputs));
        let differs = ruleset.as_ref().is_some_and(|ruleset| !table.has_exactly(ruleset));
        let is_unread = *table == TableState::Unread;
        let shrinks = match (&ruleset, table.ruleset()) {
            (Some(wanted), Some(current)) => {
                current.nat_networks.keys().any(|name| !wanted.nat_networks.contains_key(name))
                    || (current.vteps.is_some() && wanted.vteps.is_none())
            }
            (Some(_), None) => is_unread,
            (None, _) => false,
        };
        let is_used = ruleset.as_ref().is_some_and(|ruleset| !ruleset.nat_networks.is_empty());
        let non_forwarding = uplinks(observed).filter(|link| is_used && !observed.ip.forwarding.contains(&link.index));
        let non_forwarding_uplinks = non_forwarding.map(|link| NonForwardingUplink {
            index: link.index,
            name: link.name.clone(),
            failure: failures.get(Subject::Device(link.index)).cloned(),
        });
        Self {
            ruleset,
            differs,
            shrinks,
            is_unread,
            failure: failures.get(Subject::Node(PACKET_FILTER)).cloned(),
            is_used,
            routes: observed.ip.connected_routes(),
            has_uplink: uplinks(observed).next().is_some(),
            non_forwarding_uplinks: non_forwarding_uplinks.collect(),
        }
    }
}

impl NatState {
    /// Whether the table still guards something that is gone.
    pub(super) fn shrinks(&self) -> bool {
        self.shrinks && self.failure.is_none()
    }

    /// Returns what prevents devices from being guarded, if the table is not what it must be.
    pub fn unguarded(&self) -> Option<Outcome> {
        let error = self.failure.as_ref().map(|error| Outcome::Failed(error.clone()));
        let waiting = if self.is_unread { text::UNREAD } else { text::UNGUARDED };
        self.differs.then(|| error.unwrap_or_else(|| Outcome::Pending(waiting.to_owned())))
    }

    /// Returns the conflict of the network's subnet with an address of another link on the node. `own` is the index of
    /// the network's bridge.
    pub fn conflict(&self, observed: &Observed, bridge: &DesiredBridge, own: Option<u32>) -> Option<Outcome> {
        let gateway = bridge.nat?;
        let (index, address) = self.routes.overlaps(gateway.subnet).find(|(index, _)| Some(*index) != own)?;
        let link = observed.link(index)?;
        let text = text::overlap(gateway.subnet, link, address);
        // A device of ours is being removed, or has an address that it must not have.
        Some(if observed.owner(link).is_some() { Outcome::Pending(text) } else { Outcome::Failed(text) })
    }
}

/// The uplinks. One that is down has no routes, though they may not have been read since it went down.
fn uplinks(observed: &Observed) -> impl Iterator<Item = &Link> {
    observed.ip.uplinks.iter().filter_map(|index| observed.link(*index)).filter(|link| link.up)
}

/// Returns what other programs configure that prevents a network from working.
pub(super) fn warnings(observed: &Observed, bridge: &DesiredBridge) -> Vec<String> {
    let firewall = &observed.firewall;
    let traverses_filter = bridge.nat.is_some() || firewall.bridged;
    let drops = firewall.drops.iter().filter(|_| traverses_filter).map(|chain| text::drops(chain));
    drops.chain(firewall.bridged.then(|| text::BRIDGED.to_owned())).collect()
}
