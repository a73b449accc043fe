//! What a network's subnet would take away from the node: addresses that it must be able to reach, and addresses and
//! routes that it has. The bridge's address makes the kernel deliver packets to the whole subnet through the bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::value::Ipv4Subnet;

use super::observe::has_connected_routes;
use super::text;
use crate::engine::PlanInputs;
use crate::model::desired::DesiredBridge;
use crate::model::ip::{Address, AddressIndex, Gateway};
use crate::model::link::BRIDGE;
use crate::model::observed::Observed;
use crate::model::route::{Prefix, Route, RouteKind};
use crate::model::route_lookup::RouteLookup;

/// What of the node conflicts with a network's subnet.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    /// The bridge has its address, or forwards.
    is_configured: bool,
    /// The network was withdrawn from this node, for this reason.
    withdrawn: Option<String>,
    /// What the node must be able to reach, and cannot because of the bridge's address.
    cut_off: Option<String>,
    /// An address in the subnet that the node must be able to reach.
    need: Option<String>,
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
    /// Why the network must not be made. For a bridge that has its address already, a prefix around the subnet is no
    /// obstacle, because the more specific route is used; nor is a need: others than the node may cause it.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        let withdrawn = self.withdrawn.as_deref().or(self.cut_off.as_deref()).map(text::withdrawn);
        let need = self.need.clone().filter(|_| !self.is_configured);
        let obstacle = self.taken.as_ref().or(self.around.as_ref().filter(|_| !self.is_configured));
        let obstacle =
            obstacle.map(
                |Obstacle { text, is_temporary }| {
                    if *is_temporary { Outcome::Pending(text.clone()) } else { Outcome::Failed(text.clone()) }
                },
            );
        withdrawn.or(need).map(Outcome::Failed).or(obstacle)
    }

    /// Whether the bridge must lose its address, because with it the node cannot reach what it must, or could not.
    pub(super) fn cuts_off(&self) -> bool {
        self.withdrawn.is_some() || self.cut_off.is_some()
    }

    /// Why the network is to be withdrawn, if it is not known to have been.
    pub(super) fn withdrawal(&self) -> Option<&String> {
        self.cut_off.as_ref().filter(|_| self.withdrawn.is_none())
    }

    /// Whether nothing of the network may be made, and nothing is.
    pub(super) fn keeps_out(&self) -> bool {
        !self.is_configured && self.outcome().is_some()
    }

    /// What works against the node, and not against the network.
    pub(super) fn warnings(&self) -> impl Iterator<Item = &String> {
        let around = self.around.as_ref().map(|around| &around.text);
        self.need.iter().chain(around).filter(|_| self.is_configured && !self.cuts_off())
    }

    fn is_some(&self) -> bool {
        let Self { is_configured: _, withdrawn, cut_off, need, taken, around, subnet: _ } = self;
        withdrawn.is_some() || cut_off.is_some() || need.is_some() || taken.is_some() || around.is_some()
    }
}

/// Returns an address that a guest of the network may have.
pub(super) fn guest_address(gateway: Gateway) -> Ipv4Addr {
    let broadcast = Prefix::from(gateway.subnet).last();
    let last = Ipv4Addr::from_bits(broadcast.to_bits().saturating_sub(1));
    if last == gateway.address { gateway.subnet.first_host() } else { last }
}

/// Returns the conflicts of each network with NAT egress that has some.
pub(super) fn conflicts(inputs: &PlanInputs<'_>) -> BTreeMap<NetworkId, Conflicts> {
    let with_nat = inputs.desired.networks.iter().filter_map(|(id, network)| {
        let bridge = network.want.managed_bridge()?;
        Some((*id, bridge, bridge.nat?))
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
    /// The other ends of tunnels, with the tunnels.
    tunnels: BTreeSet<(Ipv4Addr, u32)>,
}

impl NodeAddresses {
    fn of(observed: &Observed) -> Self {
        let routes = observed.ip.routes.iter().filter(|route| !route.gateways.is_empty());
        let next_hops =
            routes.flat_map(|route| route.gateways.iter().flat_map(|hop| route.links.iter().map(|link| (*hop, *link))));
        let tunnels = observed.links().filter_map(|link| Some((link.remote?, link.index))).collect();
        Self { own: observed.ip.address_index(), next_hops: next_hops.collect(), tunnels }
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
        let link = survey.best_of(id.uuid(), BRIDGE, &bridge.name).0;
        let own = link.map(|link| link.index);
        let has_address = own.is_some_and(|index| observed.ip.has(index, gateway.bridge_address()));
        // A bridge that was another gateway before forwards because of that.
        let was_another = inputs.desired.former_addresses.contains_key(&id);
        let forwards = own.is_some_and(|index| observed.ip.forwarding.contains(&index));
        let is_configured = has_address || (forwards && !was_another);
        let generation = inputs.desired.networks.get(&id).map(|network| network.generation);
        let withdrawal = observed.withdrawn.get(&id).filter(|withdrawal| Some(withdrawal.generation) == generation);
        let withdrawn = withdrawal.map(|withdrawal| withdrawal.reason.clone());
        let mut found = Conflicts { is_configured, withdrawn, subnet: Some(subnet), ..Conflicts::default() };
        found.cut_off = own.filter(|_| has_address).and_then(|own| cut_off(observed, own, gateway));
        let needs = observed.needs.range(prefix.first()..=prefix.last());
        let need = needs.map(|(address, need)| (*need, *address)).min();
        let tunnel = || {
            let mut ends = self.tunnels.range((prefix.first(), 0)..=(prefix.last(), u32::MAX));
            ends.find_map(|(remote, link)| Some(text::tunnel(subnet, *remote, observed.link(*link)?)))
        };
        found.need = need.map(|(need, address)| text::needed(subnet, address, need)).or_else(tunnel);
        if link.is_none_or(|link| !has_address || (link.up && has_connected_routes(observed, link.index, gateway))) {
            found.taken = led_away(observed, own.filter(|_| has_address), gateway);
        }
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
        found.taken = found.taken.or_else(|| needed_hop(observed, own, subnet));
        found.is_some().then_some(found)
    }
}

/// Returns what the node must be able to reach and cannot because of the address of its bridge. A vital address in the
/// subnet that is reached by another link, such as by a route to it alone, is not cut off.
fn cut_off(observed: &Observed, own: u32, gateway: Gateway) -> Option<String> {
    let prefix = Prefix::from(gateway.subnet);
    observed.vital_needs().find_map(|(address, need)| {
        let needed = || text::needed(gateway.subnet, address, need);
        match observed.route_lookups.get(&address) {
            Some(RouteLookup::Through { link, .. }) if *link == own && prefix.contains(address) => Some(needed()),
            Some(RouteLookup::Through { link, source, .. }) if *link != own && *source == Some(gateway.address) => {
                Some(text::stolen_source(gateway.address, address, need))
            }
            Some(RouteLookup::Through { link, gateway: Some(hop), is_answered: false, .. })
                if *link != own && prefix.contains(*hop) =>
            {
                Some(text::needed_hop(gateway.subnet, *hop, address, need))
            }
            Some(RouteLookup::Through { link, .. }) if *link != own => {
                let tunnel = observed.link(*link)?;
                let remote = tunnel.remote.filter(|remote| prefix.contains(*remote))?;
                let lookup = observed.route_lookups.get(&remote);
                let is_led_here = matches!(lookup, Some(RouteLookup::Through { link, .. }) if *link == own);
                is_led_here.then(|| text::tunnel(gateway.subnet, remote, tunnel))
            }
            Some(RouteLookup::Local) | None if prefix.contains(address) => Some(needed()),
            Some(RouteLookup::Through { .. } | RouteLookup::Local | RouteLookup::Dropped | RouteLookup::NoRoute)
            | None => None,
        }
    })
}

/// Returns where the rules of policy routing lead packets to guests, unless to the bridge `own`, if that has its
/// address.
fn led_away(observed: &Observed, own: Option<u32>, gateway: Gateway) -> Option<Obstacle> {
    let guest = guest_address(gateway);
    let what = match (observed.route_lookups.get(&guest)?, own) {
        (RouteLookup::Dropped, _) | (RouteLookup::NoRoute, Some(_)) => "drops packets".to_owned(),
        (RouteLookup::Through { link, .. }, Some(own)) if *link != own => {
            format!("sends packets through `{}`", observed.link(*link)?.name)
        }
        (RouteLookup::Through { .. } | RouteLookup::Local | RouteLookup::NoRoute, _) => return None,
    };
    Some(Obstacle { text: text::led_away(gateway.subnet, guest, &what), is_temporary: false })
}

/// Returns the next hop of the route to what the node needs that is in the subnet. Not every route that is listed has
/// its next hops.
fn needed_hop(observed: &Observed, own: Option<u32>, subnet: Ipv4Subnet) -> Option<Obstacle> {
    observed.needs.iter().find_map(|(address, need)| match observed.route_lookups.get(address)? {
        RouteLookup::Through { link, gateway: Some(hop), .. }
            if Some(*link) != own && Prefix::from(subnet).contains(*hop) =>
        {
            Some(Obstacle { text: text::needed_hop(subnet, *hop, *address, *need), is_temporary: false })
        }
        RouteLookup::Through { .. } | RouteLookup::Local | RouteLookup::Dropped | RouteLookup::NoRoute => None,
    })
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
