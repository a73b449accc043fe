//! The links that guests' packets may leave by, according to the rules of policy routing and the routes of all tables
//! that these select. The kernel forwards the answers only if forwarding is on at the links that they are received on.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::engine::PlanInputs;
use crate::model::desired::Want;
use crate::model::observed::Observed;
use crate::model::route::{Prefix, Route, RouteKind};

/// Destinations that no packet of a guest is forwarded to: the host itself, one link, groups.
const NOT_FORWARDED: [(Ipv4Addr, u8); 3] =
    [(Ipv4Addr::new(127, 0, 0, 0), 8), (Ipv4Addr::new(169, 254, 0, 0), 16), (Ipv4Addr::new(224, 0, 0, 0), 4)];

/// Returns the indexes of the uplinks that are up, and whether they lead everywhere. A link that is down has no routes,
/// even if they have not been read since.
pub(super) fn uplinks(inputs: &PlanInputs<'_>) -> (BTreeSet<u32>, bool) {
    let PlanInputs { desired, observed, .. } = inputs;
    let with_nat = desired.networks.values().filter_map(|network| match &network.want {
        Want::Bridge(bridge) => Some((bridge.name.as_str(), Prefix::from(bridge.nat?.subnet))),
        Want::Overlay(_) | Want::Unmanaged(_) | Want::Unsupported(_) | Want::Nothing => None,
    });
    let (bridges, subnets): (BTreeSet<_>, Vec<_>) = with_nat.unzip();
    let tables = observed.ip.rules.tables(&bridges, &subnets);
    let mut uplinks = BTreeSet::new();
    let mut defaults = BTreeSet::new();
    for route in observed.ip.routes.iter().filter(|route| tables.contains(&route.table) && is_forwarding(route)) {
        let used: Vec<_> = route.links.iter().filter(|index| is_uplink(observed, route, **index)).collect();
        if !used.is_empty() && route.to.is_default() {
            defaults.insert(route.to);
        }
        uplinks.extend(used);
    }
    let halves = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(128, 0, 0, 0)].map(|half| Prefix::of(half, 1));
    let leads_everywhere = defaults.contains(&Prefix::ALL) || halves.iter().all(|half| defaults.contains(half));
    (uplinks, leads_everywhere)
}

fn is_forwarding(route: &Route) -> bool {
    let is_excluded =
        || NOT_FORWARDED.iter().any(|(first, length)| Prefix::of(*first, *length).contains(route.to.first()));
    route.kind == RouteKind::Unicast && (route.to.is_default() || !is_excluded())
}

/// Whether the route leads away from the node's guests. Devices of ours have routes to them, unless an operator has
/// made one of them an uplink.
fn is_uplink(observed: &Observed, route: &Route, index: u32) -> bool {
    let Some(link) = observed.link(index).filter(|link| link.up) else { return false };
    let is_ours = observed.owner(link).is_some() || observed.mesh().is_some_and(|mesh| mesh.index == index);
    !is_ours || !route.gateways.is_empty() || route.to.is_default()
}
