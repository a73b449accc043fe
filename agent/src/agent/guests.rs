//! The guests whose DHCP and DNS the node answers, and the names that they can ask for, as the decisions have them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use otherix_responder::dns::{Gateway, Names, Relay, Zone};
use otherix_responder::{Guest, GuestNames, Lease};
use otherix_schemas::id::{NetworkId, NicId};
use otherix_schemas::network::Dhcp;
use otherix_schemas::position::Position;
use otherix_schemas::value::Ipv4Subnet;
use otherix_vm::seed::{hostname, label, label_of_id};

use crate::model::cluster_view::{ClusterView, NetworkState};
use crate::model::desired::{Desired, DesiredBridge, DesiredLease, DesiredTap, GATEWAY_MAC};

/// Whom the node answers.
#[derive(Debug, Default)]
pub(super) struct AnsweredGuests {
    /// The guests on networks that assign addresses, by the names of their taps.
    pub(super) guests: BTreeMap<String, Guest>,
    /// The gateways that answer over TCP, by the names of their bridges.
    pub(super) gateways: BTreeMap<String, Gateway>,
}

/// The names of the networks that this node has guests of.
#[derive(Debug)]
pub(super) struct Zones {
    relay: Arc<Relay>,
    zones: BTreeMap<NetworkId, NetworkZone>,
}

#[derive(Debug)]
struct NetworkZone {
    zone: Arc<Zone>,
    basis: ZoneBasis,
    /// Of the names that it has.
    revision: Revision,
}

/// What a zone is made from: the subnet, and whether the network has egress.
type ZoneBasis = (Ipv4Subnet, bool);

/// What tells whether a network has other names: how many, and the position of the last NIC. A NIC that is attached
/// has a later position than all others, and one that is detached leaves fewer.
type Revision = (usize, Position);

impl Zones {
    /// Returns no zones; other names are relayed by `relay`, where that is permitted.
    pub(super) fn new(relay: Arc<Relay>) -> Self {
        Self { relay, zones: BTreeMap::new() }
    }

    /// Brings the names up to date, and returns whom the node answers. What has not changed is not touched.
    pub(super) fn update(&mut self, view: &ClusterView, desired: &Desired) -> AnsweredGuests {
        self.update_zones(view, desired);
        let mut answered = AnsweredGuests::default();
        for (id, nic) in &desired.nics {
            if let Some(tap) = &nic.tap
                && let Some(guest) = self.guest(view, desired, *id, tap)
            {
                answered.guests.insert(tap.name.clone(), guest);
            }
        }
        for (id, NetworkZone { zone, .. }) in &self.zones {
            let bridge = desired.networks.get(id).and_then(|network| network.want.managed_bridge());
            if let Some(DesiredBridge { name, nat: Some(gateway), dns: true, .. }) = bridge {
                let gateway = Gateway { address: gateway.address, zone: Arc::clone(zone) };
                answered.gateways.insert(name.clone(), gateway);
            }
        }
        answered
    }

    fn update_zones(&mut self, view: &ClusterView, desired: &Desired) {
        let taps = desired.nics.values().filter_map(|nic| nic.tap.as_ref()).filter(|tap| tap.lease.is_some());
        let networks: BTreeSet<_> = taps.map(|tap| tap.network).filter(|id| dns(view, *id).is_some()).collect();
        self.zones.retain(|id, _| networks.contains(id));
        if networks.is_empty() {
            return;
        }
        let mut revisions: BTreeMap<NetworkId, Revision> = BTreeMap::new();
        for (_, nic) in view.nics().filter(|(_, nic)| nic.detached_at.is_none()) {
            let attached = &nic.attached;
            if networks.contains(&attached.network_id) && view.names().contains_key(&attached.vm_id) {
                let (count, last) = revisions.entry(attached.network_id).or_default();
                (*count, *last) = (*count + 1, nic.attached_at.max(*last));
            }
        }
        let mut changed = BTreeSet::new();
        for id in networks {
            let revision = revisions.remove(&id).unwrap_or_default();
            let basis = basis(view, id);
            // The network was changed.
            self.zones.retain(|other, known| *other != id || Some(known.basis) == basis);
            if let Some(known) = self.zones.get_mut(&id) {
                if std::mem::replace(&mut known.revision, revision) != revision {
                    changed.insert(id);
                }
            } else if let Some((zone, basis)) = zone(view, id, &self.relay).zip(basis) {
                self.zones.insert(id, NetworkZone { zone: Arc::new(zone), basis, revision });
                changed.insert(id);
            }
        }
        if !changed.is_empty() {
            self.set_names(view, &changed);
        }
    }

    /// Sets the names of these networks. A VM has the label that follows from its name, unless that is the name of
    /// another, or was given to one before.
    fn set_names(&self, view: &ClusterView, networks: &BTreeSet<NetworkId>) {
        let mut names: BTreeMap<NetworkId, Vec<(bool, Position, String, Ipv4Addr)>> = BTreeMap::new();
        for (_, nic) in view.nics().filter(|(_, nic)| nic.detached_at.is_none()) {
            let attached = &nic.attached;
            if networks.contains(&attached.network_id)
                && let Some(address) = attached.ip
                && let Some(name) = view.names().get(&attached.vm_id)
            {
                let label = hostname(name.as_str(), attached.vm_id.uuid());
                let is_derived = !name.as_str().eq_ignore_ascii_case(&label);
                let of_network = names.entry(attached.network_id).or_default();
                of_network.push((is_derived, nic.attached_at, label, address));
            }
        }
        for id in networks {
            let mut names = names.remove(id).unwrap_or_default();
            names.sort_by_key(|(is_derived, at, ..)| (*is_derived, *at));
            if let Some(NetworkZone { zone, .. }) = self.zones.get(id) {
                zone.set_names(Names::new(names.into_iter().map(|(_, _, label, address)| (label, address))));
            }
        }
    }

    fn guest(&self, view: &ClusterView, desired: &Desired, id: NicId, tap: &DesiredTap) -> Option<Guest> {
        let DesiredLease { address, gateway } = tap.lease?;
        let bridge = desired.networks.get(&tap.network)?.want.managed_bridge()?;
        // With NAT egress the bridge has the address of the gateway.
        let of_bridge = bridge.nat.and(bridge.mac);
        let lease = Lease {
            address,
            netmask: gateway.subnet.netmask(),
            server: gateway.address,
            is_router: bridge.nat.is_some(),
            mtu: u16::try_from(bridge.mtu).unwrap_or(u16::MAX),
        };
        let names = self.zones.get(&tap.network).and_then(|NetworkZone { zone, .. }| {
            let vm = view.nic(id)?.attached.vm_id;
            let name = view.names().get(&vm).map_or("", |name| name.as_str());
            Some(GuestNames { host: hostname(name, vm.uuid()), zone: Arc::clone(zone) })
        });
        Some(Guest {
            mac: tap.mac.octets(),
            lease,
            gateway_mac: of_bridge.map_or(GATEWAY_MAC, |mac| mac.octets()),
            answers_for_gateway: bridge.nat.is_none(),
            names,
        })
    }
}

/// Returns what a network assigns, if it also resolves names.
fn dns(view: &ClusterView, id: NetworkId) -> Option<Dhcp> {
    match &view.network(id)?.state {
        NetworkState::Defined(spec) => spec.dhcp().filter(|dhcp| dhcp.dns),
        NetworkState::Deleted => None,
    }
}

fn basis(view: &ClusterView, id: NetworkId) -> Option<ZoneBasis> {
    let NetworkState::Defined(spec) = &view.network(id)?.state else { return None };
    Some((spec.dhcp()?.subnet.subnet(), spec.nat().is_some()))
}

/// Returns the zone of a network, without names yet.
fn zone(view: &ClusterView, id: NetworkId, relay: &Arc<Relay>) -> Option<Zone> {
    let network = view.network(id)?;
    let NetworkState::Defined(spec) = &network.state else { return None };
    let subnet = spec.dhcp()?.subnet.subnet();
    let label = label(network.name.as_str()).unwrap_or_else(|| label_of_id("net", id.uuid()));
    // A relay on a network without egress would be a way out of it.
    let relay = spec.nat().is_some().then(|| Arc::clone(relay));
    Some(Zone::new(label, (subnet.network(), subnet.prefix()), relay))
}

#[cfg(test)]
#[path = "guests_tests.rs"]
mod tests;
