//! What a network's subnet would take away from the node: addresses that it must be able to reach, and addresses and
//! routes that it has. The bridge's address makes the kernel deliver packets to the whole subnet through the bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::value::Ipv4Subnet;

use super::text;
use crate::engine::PlanInputs;
use crate::model::desired::{DesiredBridge, Want};
use crate::model::ip::{Address, AddressIndex, Gateway};
use crate::model::link::BRIDGE;
use crate::model::need::Need;
use crate::model::observed::Observed;
use crate::model::route::{Prefix, Route, RouteKind};

/// What of the node conflicts with a network's subnet.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    /// The bridge has its address, or forwards.
    is_configured: bool,
    /// An address in the subnet that the node must be able to reach.
    need: Option<(Ipv4Addr, Need)>,
    /// An address in the subnet, or a route to a part of it: guests, or a part of them, cannot be reached.
    taken: Option<Obstacle>,
    /// An address or route whose prefix contains the subnet: with the network, a part of that prefix is not reached.
    around: Option<Obstacle>,
    subnet: Option<Ipv4Subnet>,
}

#[derive(Debug)]
struct Obstacle {
    text: String,
    /// It is of a device of ours, which is being removed, or has what it must not have.
    is_temporary: bool,
}

impl Conflicts {
    /// Why the network must not be made. A prefix around the subnet is no obstacle for a bridge that has its address:
    /// the more specific route is used.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        let need = self.need.zip(self.subnet).map(|((address, need), subnet)| text::needed(subnet, address, need));
        let obstacle = self.taken.as_ref().or(self.around.as_ref().filter(|_| !self.is_configured));
        let obstacle =
            obstacle.map(
                |Obstacle { text, is_temporary }| {
                    if *is_temporary { Outcome::Pending(text.clone()) } else { Outcome::Failed(text.clone()) }
                },
            );
        need.map(Outcome::Failed).or(obstacle)
    }

    /// Whether the bridge must lose its address, because with it the node cannot reach the control plane.
    pub(super) fn cuts_off(&self) -> bool {
        self.need.is_some_and(|(_, need)| need == Need::ControlPlane)
    }

    /// Whether nothing of the network may be made, and nothing is.
    pub(super) fn keeps_out(&self) -> bool {
        !self.is_configured && self.outcome().is_some()
    }

    /// What works against the node, and not against the network.
    pub(super) fn warning(&self) -> Option<&str> {
        self.around.as_ref().filter(|_| self.is_configured).map(|around| around.text.as_str())
    }
}

/// Returns the conflicts of each network with NAT egress that has some.
pub(super) fn conflicts(inputs: &PlanInputs<'_>) -> BTreeMap<NetworkId, Conflicts> {
    let with_nat = inputs.desired.networks.iter().filter_map(|(id, network)| match &network.want {
        Want::Bridge(bridge) => Some((*id, bridge, bridge.nat?)),
        Want::Overlay(_) | Want::Unmanaged(_) | Want::Unsupported(_) | Want::Nothing => None,
    });
    let mut with_nat = with_nat.peekable();
    if with_nat.peek().is_none() {
        return BTreeMap::new();
    }
    let node = NodeAddresses::of(inputs.observed);
    with_nat.filter_map(|(id, bridge, gateway)| Some((id, node.conflicts(inputs, id, bridge, gateway)?))).collect()
}

/// The addresses of the node and of what it uses, ordered to look up those in a subnet.
struct NodeAddresses {
    own: AddressIndex,
    /// The next hops of routes, with the links of these routes.
    next_hops: BTreeSet<(Ipv4Addr, u32)>,
}

impl NodeAddresses {
    fn of(observed: &Observed) -> Self {
        let routes = observed.ip.routes.iter().filter(|route| !route.gateways.is_empty());
        let next_hops =
            routes.flat_map(|route| route.gateways.iter().flat_map(|hop| route.links.iter().map(|link| (*hop, *link))));
        Self { own: observed.ip.address_index(), next_hops: next_hops.collect() }
    }

    fn conflicts(
        &self,
        inputs: &PlanInputs<'_>,
        id: NetworkId,
        bridge: &DesiredBridge,
        gateway: Gateway,
    ) -> Option<Conflicts> {
        let PlanInputs { observed, survey, .. } = inputs;
        let subnet = gateway.subnet;
        let prefix = Prefix::from(subnet);
        let own = survey.best_of(id.uuid(), BRIDGE, &bridge.name).0.map(|link| link.index);
        let is_configured = own.is_some_and(|index| {
            observed.ip.has(index, gateway.bridge_address()) || observed.ip.forwarding.contains(&index)
        });
        let mut found = Conflicts { is_configured, subnet: Some(subnet), ..Conflicts::default() };
        let needs = observed.needs.range(prefix.first()..=prefix.last());
        found.need = needs.map(|(address, need)| (*need, *address)).min().map(|(need, address)| (address, need));
        for (index, address) in self.own.overlaps(prefix).filter(|(index, _)| Some(*index) != own) {
            found.add_address(observed, index, address, prefix);
        }
        let foreign = observed.ip.routes.overlaps(prefix).filter(|route| !is_own(route, own));
        foreign.for_each(|route| found.add_route(observed, route, prefix));
        if found.taken.is_none() {
            let hops = self.next_hops.range((prefix.first(), 0)..=(prefix.last(), u32::MAX));
            let hop = hops.into_iter().find(|(_, link)| Some(*link) != own);
            found.taken = hop.and_then(|(hop, link)| {
                let text = text::next_hop(subnet, *hop, observed.link(*link)?);
                Some(Obstacle { text, is_temporary: false })
            });
        }
        (found.need.is_some() || found.taken.is_some() || found.around.is_some()).then_some(found)
    }
}

/// Whether it leads through the network's own bridge, or only says what follows from an address.
fn is_own(route: &Route, own: Option<u32>) -> bool {
    route.follows_from_address() || own.is_some_and(|own| route.links.iter().eq([&own]))
}

impl Conflicts {
    fn add_address(&mut self, observed: &Observed, index: u32, address: Address, prefix: Prefix) {
        let (Some(link), Some(subnet)) = (observed.link(index), self.subnet) else { return };
        let obstacle =
            Obstacle { text: text::overlap(subnet, link, address), is_temporary: observed.owner(link).is_some() };
        let is_within = prefix.contains(address.address) || prefix.contains(address.network().first());
        let place = if is_within { &mut self.taken } else { &mut self.around };
        place.get_or_insert(obstacle);
    }

    fn add_route(&mut self, observed: &Observed, route: &Route, prefix: Prefix) {
        let Some(subnet) = self.subnet else { return };
        // It follows from an address whose text says more.
        let follows = route.kind == RouteKind::Unicast
            && route.gateways.is_empty()
            && route.links.iter().any(|link| {
                let addresses = observed.ip.addresses.get(link);
                addresses.is_some_and(|addresses| addresses.iter().any(|address| address.network() == route.to))
            });
        if follows {
            return;
        }
        let links: Vec<_> = route.links.iter().filter_map(|index| observed.link(*index)).collect();
        let is_temporary = !links.is_empty() && links.iter().all(|link| observed.owner(link).is_some());
        let obstacle = Obstacle { text: text::route_overlap(subnet, route, &links), is_temporary };
        let is_within = prefix.contains(route.to.first()) && route.to.length() >= prefix.length();
        let place = if is_within { &mut self.taken } else { &mut self.around };
        place.get_or_insert(obstacle);
    }
}
