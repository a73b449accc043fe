//! The ruleset that our table of the packet filter must have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use otherix_schemas::id::NetworkId;

use super::conflict::Conflicts;
use crate::engine::context::PlanInputs;
use crate::engine::survey::NameHolder;
use crate::model::desired::{Desired, DesiredBridge};
use crate::model::firewall::{ClusterAddresses, Ruleset, VNI_BLOCK};
use crate::model::ip::Gateway;
use crate::model::link::{BRIDGE, Link};
use crate::model::observed::Observed;
use crate::model::vxlan::PORT;

/// Returns the ruleset, without uplinks. It has:
///
/// - all networks with NAT egress, by the name that their bridge must get, unless another device has that name, and by
///   the name that the bridge has meanwhile; not those that conflict with what the node has or needs, because the rules
///   apply to the gateway's address, which may be one of the node's own;
/// - bridges of ours that no network requires, or whose deletion is held, while they exist: those that the table is
///   known to protect, and those that have an address and forward;
/// - bridges whose network has no NAT egress any more, until they are no gateways;
/// - of the first, those whose gateway resolves names;
/// - with such networks, the addresses of the cluster.
pub(super) fn ruleset(inputs: &PlanInputs<'_>, conflicts: &BTreeMap<NetworkId, Conflicts>) -> Ruleset {
    let PlanInputs { desired, observed, survey, .. } = *inputs;
    let is_kept_out = |id: &NetworkId| conflicts.get(id).is_some_and(Conflicts::keeps_out);
    let with_nat = || {
        let networks = desired.networks.iter().filter(|(id, _)| !is_kept_out(id));
        networks.filter_map(|(id, network)| {
            let DesiredBridge { name, nat, dns, .. } = network.want.managed_bridge()?;
            Some((*id, name, (*nat)?, *dns))
        })
    };
    let ours = with_nat().filter(|(id, name, ..)| match survey.named(name) {
        None => true,
        Some(NameHolder::Ours(owned)) => owned.link.is_bridge() && NetworkId::new(owned.owner) == *id,
        Some(NameHolder::Incomplete(_) | NameHolder::Foreign(_) | NameHolder::Alternative(_)) => false,
    });
    let (mut nat_networks, mut resolvers) = (BTreeMap::new(), BTreeSet::new());
    let mut add = |name: &String, gateway, dns: bool| {
        nat_networks.insert(name.clone(), gateway);
        resolvers.extend(dns.then(|| name.clone()));
    };
    ours.for_each(|(_, name, gateway, dns)| add(name, gateway, dns));
    for (id, name, gateway, dns) in with_nat() {
        let (ours, _) = survey.best_of(id.uuid(), BRIDGE, name);
        ours.iter().for_each(|link| add(&link.name, gateway, dns));
    }
    for link in obsolete_bridges(desired, observed) {
        let addresses = observed.ip.addresses.get(&link.index);
        let addresses = addresses.filter(|_| observed.ip.forwarding.contains(&link.index));
        let gateway = addresses.into_iter().flatten().find_map(|address| Gateway::of_address(*address));
        nat_networks.extend(gateway.map(|gateway| (link.name.clone(), gateway)));
    }
    let known = observed.firewall.table.ruleset();
    for (name, gateway) in known.iter().flat_map(|ruleset| &ruleset.nat_networks) {
        if matches!(survey.named(name), Some(NameHolder::Ours(owned))
            if owned.link.is_bridge()
                && (!is_kept_out(&NetworkId::new(owned.owner)) || observed.ip.forwarding.contains(&owned.link.index))
                && may_be_gateway(desired, observed, owned.link, (NetworkId::new(owned.owner), *gateway)))
        {
            nat_networks.entry(name.clone()).or_insert(*gateway);
        }
    }
    let cluster = if nat_networks.is_empty() { ClusterAddresses::default() } else { desired.cluster_addresses.clone() };
    let vteps = vteps(desired, observed);
    let vnis = vteps.map(|_| vnis(desired, observed)).unwrap_or_default();
    let port = desired.overlays().next().map(|overlay| overlay.vtep.port);
    let current = || observed.firewall.table.ruleset().and_then(|ruleset| ruleset.vxlan_port);
    let vxlan_port = vteps.and_then(|_| port.map_or_else(current, |port| Some(port).filter(|port| *port != PORT)));
    Ruleset { nat_networks, resolvers, vteps, vxlan_port, vnis, uplinks: BTreeMap::new(), cluster }
}

/// Whether the bridge of a network without NAT egress still is the gateway, or what the network requires is not known.
fn may_be_gateway(desired: &Desired, observed: &Observed, link: &Link, (id, gateway): (NetworkId, Gateway)) -> bool {
    let bridge = desired.networks.get(&id).and_then(|network| network.want.managed_bridge());
    bridge.is_none()
        || observed.ip.forwarding.contains(&link.index)
        || observed.ip.has(link.index, gateway.bridge_address())
}

/// Returns bridges with an alias of ours that no network of this cluster requires.
fn obsolete_bridges<'a>(desired: &'a Desired, observed: &'a Observed) -> impl Iterator<Item = &'a Link> {
    let owners = observed.owners().filter(|owner| {
        let network = desired.networks.get(&NetworkId::new(owner.id));
        owner.cluster != desired.cluster || network.is_none_or(|network| network.want.bridge().is_none())
    });
    owners.flat_map(|owner| observed.owned(owner)).filter(|link| link.is_bridge())
}

/// Returns the source address of the VTEPs, if some are required, or if some still exist that the table protects.
fn vteps(desired: &Desired, observed: &Observed) -> Option<Ipv4Addr> {
    let wanted = desired.overlays().next().map(|overlay| overlay.vtep.local);
    let current = observed.firewall.table.ruleset().and_then(|ruleset| ruleset.vteps);
    let still_exist = || observed.links().any(|link| link.is_vtep() && observed.owner(link).is_some());
    wanted.or_else(|| current.filter(|_| still_exist()))
}

/// Returns the blocks with VNIs of the VTEPs that are required, and of those that still exist.
fn vnis(desired: &Desired, observed: &Observed) -> BTreeSet<u32> {
    let wanted = desired.overlays().map(|overlay| overlay.vtep.vni.get());
    let ours = observed.links().filter(|link| observed.owner(link).is_some());
    let vnis = wanted.chain(ours.filter_map(|link| link.vxlan.map(|vxlan| vxlan.vni)));
    vnis.map(|vni| vni / VNI_BLOCK * VNI_BLOCK).collect()
}
