//! The links that guests' packets may leave by, according to the rules of policy routing and the routes of all tables
//! that these select. The kernel forwards the answers only if forwarding is on at the links that they are received on.
//! And whether a network's packets have a way out at all, as the kernel looks it up: rule by rule, table by table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use otherix_schemas::id::NetworkId;

use super::text;
use crate::engine::PlanInputs;
use crate::model::observed::Observed;
use crate::model::route::{MAIN_TABLE, Prefix, Route, RouteKind};

/// Destinations that no packet of a guest is forwarded to: the host itself, one link, groups.
const NOT_FORWARDED: [(Ipv4Addr, u8); 3] =
    [(Ipv4Addr::new(127, 0, 0, 0), 8), (Ipv4Addr::new(169, 254, 0, 0), 16), (Ipv4Addr::new(224, 0, 0, 0), 4)];

/// The way of guests' packets to the outside.
#[derive(Debug, Default)]
pub(super) struct Uplinks {
    /// The indexes of the links that they may leave by. A link that is down has no routes, even if they have not been
    /// read since.
    pub(super) links: BTreeSet<u32>,
    /// Of each network, why it has no way out.
    blocked: BTreeMap<NetworkId, String>,
    /// Of each network, the rules that drop packets to some destinations.
    restricted: BTreeMap<NetworkId, Vec<String>>,
    /// Of each network, the table of the default routes that its packets use.
    tables: BTreeMap<NetworkId, u32>,
    /// The default routes of each table that packets of guests may use.
    defaults: BTreeMap<u32, Defaults>,
}

impl Uplinks {
    /// Returns why the network's packets have no way out, if they have none.
    pub(super) fn blocked(&self, network: NetworkId) -> Option<&str> {
        self.blocked.get(&network).map(String::as_str)
    }

    /// Returns the links of the default routes that the network's packets use.
    pub(super) fn defaults(&self, network: NetworkId) -> impl Iterator<Item = u32> {
        let defaults = self.tables.get(&network).and_then(|table| self.defaults.get(table));
        defaults.into_iter().flat_map(Defaults::links)
    }

    /// Returns warnings about destinations that the network's packets do not reach.
    pub(super) fn restricted(&self, network: NetworkId) -> &[String] {
        self.restricted.get(&network).map_or(&[], Vec::as_slice)
    }
}

/// What the default routes of a table do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Defaults {
    /// They lead out by these links.
    Lead(BTreeSet<u32>),
    Drop,
    /// The look-up continues with the next rule.
    None,
}

impl Defaults {
    fn links(&self) -> impl Iterator<Item = u32> {
        let links = match self {
            Self::Lead(links) => Some(links),
            Self::Drop | Self::None => None,
        };
        links.into_iter().flatten().copied()
    }
}

pub(super) fn uplinks(inputs: &PlanInputs<'_>) -> Uplinks {
    let PlanInputs { desired, observed, .. } = inputs;
    let with_nat = desired.networks.iter().filter_map(|(id, network)| {
        let bridge = network.want.managed_bridge()?;
        Some((*id, bridge.name.as_str(), Prefix::from(bridge.nat?.subnet)))
    });
    let with_nat: Vec<_> = with_nat.collect();
    let (bridges, subnets): (BTreeSet<_>, Vec<_>) =
        with_nat.iter().map(|(_, bridge, subnet)| (*bridge, *subnet)).unzip();
    let tables = observed.ip.rules.tables(&bridges, &subnets);
    let mut found = Uplinks::default();
    let forwarding = observed.ip.routes.iter().filter(|route| tables.contains(&route.table) && is_forwarding(route));
    found.links.extend(forwarding.flat_map(|route| uplinks_of(observed, route)));
    found.defaults = tables.into_iter().map(|table| (table, defaults(observed, table))).collect();
    for (id, bridge, subnet) in with_nat {
        found.look_up(observed, id, bridge, subnet);
    }
    found
}

impl Uplinks {
    /// Looks up the way of packets that a network's guests send to the outside.
    fn look_up(&mut self, observed: &Observed, id: NetworkId, bridge: &str, subnet: Prefix) {
        let Some(rules) = observed.ip.rules.of(bridge, subnet) else {
            if let Some(Defaults::Lead(_)) = self.defaults.get(&MAIN_TABLE) {
                self.tables.insert(id, MAIN_TABLE);
            } else {
                self.blocked.insert(id, text::NO_UPLINK.to_owned());
            }
            return;
        };
        for rule in rules {
            match (rule.table, rule.to) {
                (Some(table), None) if !rule.ignores_defaults => match self.defaults.get(&table) {
                    Some(Defaults::Lead(_)) => {
                        self.tables.insert(id, table);
                        return;
                    }
                    Some(Defaults::Drop) if rule.matches(bridge, subnet) => {
                        self.blocked.insert(id, text::default_route_drops(table));
                        return;
                    }
                    Some(Defaults::Drop | Defaults::None) | None => {}
                },
                (None, to) if rule.matches(bridge, subnet) => match to.filter(|to| !to.is_default()) {
                    Some(to) => self.restricted.entry(id).or_default().push(text::rule_drops_to(rule.priority, to)),
                    None => {
                        self.blocked.insert(id, text::rule_drops(rule.priority));
                        return;
                    }
                },
                (Some(_) | None, _) => {}
            }
        }
        self.blocked.insert(id, text::NO_UPLINK.to_owned());
    }
}

/// Returns what the default routes of a table do, or the pair of routes that VPNs use instead of one.
fn defaults(observed: &Observed, table: u32) -> Defaults {
    let to = |prefix: Prefix| {
        let routes = observed.ip.routes.to(prefix).filter(|route| route.table == table && route.tos == 0);
        // Routes through a link that is down are not used.
        let usable = routes.filter(|route| match route.kind {
            RouteKind::Unicast => uplinks_of(observed, route).next().is_some(),
            RouteKind::Drop | RouteKind::Throw => true,
            RouteKind::Local => false,
        });
        usable.min_by_key(|route| route.metric).map_or(Defaults::None, |route| match route.kind {
            RouteKind::Unicast | RouteKind::Local => Defaults::Lead(uplinks_of(observed, route).collect()),
            RouteKind::Drop => Defaults::Drop,
            RouteKind::Throw => Defaults::None,
        })
    };
    let halves = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(128, 0, 0, 0)].map(|half| to(Prefix::of(half, 1)));
    match halves {
        [Defaults::Lead(low), Defaults::Lead(high)] => Defaults::Lead(&low | &high),
        [Defaults::Drop, Defaults::Drop] => Defaults::Drop,
        _ => to(Prefix::ALL),
    }
}

fn is_forwarding(route: &Route) -> bool {
    let is_excluded =
        || NOT_FORWARDED.iter().any(|(first, length)| Prefix::of(*first, *length).contains(route.to.first()));
    route.kind == RouteKind::Unicast && (route.to.is_default() || !is_excluded())
}

fn uplinks_of(observed: &Observed, route: &Route) -> impl Iterator<Item = u32> {
    route.links.iter().copied().filter(|index| is_uplink(observed, route, *index))
}

/// Whether the route leads away from the node's guests. Devices of ours have routes to them, unless an operator has
/// made one of them an uplink.
fn is_uplink(observed: &Observed, route: &Route, index: u32) -> bool {
    let Some(link) = observed.link(index).filter(|link| link.up) else { return false };
    let is_ours = observed.owner(link).is_some() || observed.mesh().is_some_and(|mesh| mesh.index == index);
    !is_ours || !route.gateways.is_empty() || route.to.is_default()
}
