//! The difference between desired and observed state of the packet filter and of NAT egress.

use std::collections::BTreeMap;

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;

use super::action::PACKET_FILTER;
use super::conflict::{Conflicts, conflicts};
use super::ruleset::ruleset;
use super::text;
use super::uplink::{Uplinks, uplinks};
use crate::engine::Subject;
use crate::engine::context::{PlanInputs, SharedValue};
use crate::model::firewall::{Ruleset, TableState};
use crate::model::ip::Gateway;
use crate::model::link::Link;
use crate::model::observed::Observed;
use crate::model::route::{LOCAL_TABLE, MAIN_TABLE, Prefix, RouteKind};

/// The state of NAT egress, computed once in a plan.
pub struct NatState {
    /// What our table must have. Absent if the plan is for a cluster that the node has left.
    pub(super) ruleset: Option<Ruleset>,
    /// The table differs from `ruleset`.
    pub(super) differs: bool,
    /// The table has, or may have, more than `ruleset`.
    has_obsolete_rules: bool,
    /// The table cannot be read for now.
    pub(super) is_unread: bool,
    /// Why the table cannot be written for now.
    pub(super) failure: Option<String>,
    /// There is a network with NAT egress.
    pub(super) is_used: bool,
    /// Of the networks with NAT egress that have some.
    conflicts: BTreeMap<NetworkId, Conflicts>,
    /// The way of guests' packets to the outside.
    pub(super) uplinks: Uplinks,
    /// Uplinks on which forwarding must be turned on.
    pub(super) non_forwarding_uplinks: Vec<UplinkToChange>,
    /// Links that forward only because this agent turned it on, if there is no network with NAT egress any more.
    pub(super) former_uplinks: Vec<UplinkToChange>,
}

/// A link whose forwarding is to be turned on or off.
pub(super) struct UplinkToChange {
    pub(super) index: u32,
    pub(super) name: String,
    /// Why it cannot be changed for now.
    pub(super) failure: Option<String>,
}

impl SharedValue for NatState {
    fn compute(inputs: &PlanInputs<'_>) -> Self {
        let PlanInputs { desired, observed, failures, .. } = *inputs;
        let table = &observed.firewall.table;
        let conflicts = conflicts(inputs);
        let mut ruleset = (!desired.has_left).then(|| ruleset(inputs, &conflicts));
        let is_used = ruleset.as_ref().is_some_and(|ruleset| !ruleset.nat_networks.is_empty());
        let uplinks = if is_used { uplinks(inputs) } else { Uplinks::default() };
        let links = uplinks.links.iter().filter_map(|index| observed.link(*index));
        let non_forwarding: Vec<_> = links.filter(|link| !observed.ip.forwarding.contains(&link.index)).collect();
        let recorded = observed.ip.turned_on.keys().filter(|index| observed.ip.forwards_for_us(**index));
        let forwarding_for_us: Vec<_> = recorded.filter_map(|index| observed.link(*index)).collect();
        if let Some(ruleset) = &mut ruleset {
            let links = non_forwarding.iter().chain(&forwarding_for_us);
            ruleset.uplinks = links.map(|link| (link.name.clone(), link.is_bridge())).collect();
        }
        let differs = ruleset.as_ref().is_some_and(|ruleset| !table.has_exactly(ruleset));
        let is_unread = *table == TableState::Unread;
        let has_obsolete_rules = match (&ruleset, table.ruleset()) {
            (Some(wanted), Some(current)) => {
                current.nat_networks.keys().any(|name| !wanted.nat_networks.contains_key(name))
                    || (current.vteps.is_some() && wanted.vteps.is_none())
                    || !current.vnis.is_subset(&wanted.vnis)
            }
            (Some(_), None) => is_unread,
            (None, _) => false,
        };
        let uplink = |link: &&Link| UplinkToChange {
            index: link.index,
            name: link.name.clone(),
            failure: failures.get(Subject::Device(link.index)).cloned(),
        };
        let is_former = ruleset.is_some() && !is_used;
        Self {
            ruleset,
            differs,
            has_obsolete_rules,
            is_unread,
            failure: failures.get(Subject::Node(PACKET_FILTER)).cloned(),
            is_used,
            conflicts,
            non_forwarding_uplinks: non_forwarding.iter().map(uplink).collect(),
            former_uplinks: forwarding_for_us.iter().filter(|_| is_former).map(uplink).collect(),
            uplinks,
        }
    }
}

impl NatState {
    /// Whether a step is to remove obsolete rules from the table.
    pub(super) fn has_obsolete_rules(&self) -> bool {
        self.has_obsolete_rules && self.failure.is_none()
    }

    /// Returns the outcome of resources that the table must protect, while it differs from what it must be.
    pub fn unprotected(&self) -> Option<Outcome> {
        let error = self.failure.as_ref().map(|error| Outcome::Failed(error.clone()));
        let waiting = if self.is_unread { text::UNREAD } else { text::UNPROTECTED };
        self.differs.then(|| error.unwrap_or_else(|| Outcome::Pending(waiting.to_owned())))
    }

    /// Returns why the network must not be made on this node, if its bridge has no address yet.
    pub fn conflict(&self, network: NetworkId) -> Option<Outcome> {
        self.conflicts.get(&network)?.outcome()
    }

    /// Returns the indexes of the links that the network's packets leave by if no specific route leads elsewhere.
    pub fn default_uplinks(&self, network: NetworkId) -> impl Iterator<Item = u32> {
        self.uplinks.defaults(network)
    }

    /// Whether the node is not, or must not remain, the gateway of this network with NAT egress. The table has no rules
    /// for its bridge then.
    pub fn is_kept_out(&self, network: NetworkId) -> bool {
        self.conflicts.get(&network).is_some_and(|conflicts| conflicts.keeps_out() || conflicts.cuts_off())
    }

    /// Returns what of this node conflicts with the network's subnet.
    pub(super) fn conflicts(&self, network: NetworkId) -> Option<&Conflicts> {
        self.conflicts.get(&network)
    }
}

/// Whether the bridge has the routes that follow from the gateway's address.
pub(super) fn has_connected_routes(observed: &Observed, index: u32, gateway: Gateway) -> bool {
    let has = |to: Prefix, table: u32, kind: RouteKind| {
        let mut routes = observed.ip.routes.to(to);
        routes.any(|route| (route.table, route.kind) == (table, kind) && route.links.contains(&index))
    };
    has(gateway.subnet.into(), MAIN_TABLE, RouteKind::Unicast)
        && has(Prefix::host(gateway.address), LOCAL_TABLE, RouteKind::Local)
}
