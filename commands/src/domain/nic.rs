//! NICs: their state, what is decided about them with their VM, and their part of the reply.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::event::Event;
use otherix_schemas::id::{NetworkId, NicId, NodeId, VmId};
use otherix_schemas::nic::{GeneratedNic, NicAttached, NicBound, NicDetached, NicEvent, NicView, tap_name};
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_schemas::value::MacAddress;
use serde::{Deserialize, Serialize};

use super::address_pool::AddressPool;
use super::network::Network;
use super::reported_status::ReportedStatus;
use super::{Rejection, State};

/// A NIC, kept until its node has reported that its tap is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    pub vm_id: VmId,
    pub network_id: NetworkId,
    pub mac: MacAddress,
    /// Present if the network assigns addresses.
    pub ip: Option<Ipv4Addr>,
    /// The node that its tap is on.
    pub node_id: Option<NodeId>,
    /// It is deleted; its tap may still exist.
    pub detached: bool,
    /// Position of the last decision about it.
    pub generation: Position,
    pub(super) version: u32,
    /// The last status that each node reported.
    pub outcomes: BTreeMap<NodeId, ReportedStatus>,
}

impl Nic {
    /// Returns whether its tap belongs on the node.
    pub(super) fn is_wanted_on(&self, node_id: NodeId) -> bool {
        !self.detached && self.node_id == Some(node_id)
    }
}

/// All NICs, with indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SavedNics")]
pub struct Nics {
    by_id: BTreeMap<NicId, Nic>,
    /// NICs that are not detached.
    #[serde(skip_serializing)]
    by_network: HashMap<NetworkId, BTreeSet<NicId>>,
    /// NICs that are not detached.
    #[serde(skip_serializing)]
    by_vm: HashMap<VmId, BTreeSet<NicId>>,
    /// Detached ones included: until its tap is removed, a guest may still send from the address.
    #[serde(skip_serializing)]
    by_mac: HashMap<MacAddress, NicId>,
    /// Detached ones included, for the same reason.
    #[serde(skip_serializing)]
    addresses: HashMap<NetworkId, AddressPool>,
    /// Detached ones included: the old tap must be removed first.
    #[serde(skip_serializing)]
    by_tap: HashMap<String, NicId>,
}

/// What a state snapshot holds of [`Nics`].
#[derive(Deserialize)]
struct SavedNics {
    by_id: BTreeMap<NicId, Nic>,
}

impl From<SavedNics> for Nics {
    fn from(SavedNics { by_id }: SavedNics) -> Self {
        let mut nics = Self::default();
        by_id.iter().for_each(|(id, nic)| nics.index(*id, nic));
        nics.by_id = by_id;
        nics
    }
}

impl Nics {
    /// Returns a NIC, detached or not.
    pub fn get(&self, id: NicId) -> Option<&Nic> {
        self.by_id.get(&id)
    }

    /// Returns how many NICs are attached to the network.
    pub fn count_of_network(&self, id: NetworkId) -> usize {
        self.by_network.get(&id).map_or(0, BTreeSet::len)
    }

    /// The addresses of the network that NICs have, detached ones included.
    pub(super) fn addresses_of_network(&self, id: NetworkId) -> impl Iterator<Item = (Ipv4Addr, NicId)> {
        self.addresses.get(&id).into_iter().flat_map(AddressPool::iter)
    }

    /// Returns the VM's NICs.
    pub fn of_vm(&self, id: VmId) -> impl Iterator<Item = (NicId, &Nic)> {
        self.by_vm.get(&id).into_iter().flatten().filter_map(|id| Some((*id, self.by_id.get(id)?)))
    }

    /// Returns the first unused address from this number on, continuing at zero after the last.
    fn free_mac(&self, from: u32) -> Option<MacAddress> {
        let numbers = (0..MacAddress::ASSIGNABLE).map(|step| from.wrapping_add(step));
        numbers.map(MacAddress::assigned).find(|mac| !self.by_mac.contains_key(mac))
    }

    fn index(&mut self, id: NicId, nic: &Nic) {
        if !nic.detached {
            self.by_network.entry(nic.network_id).or_default().insert(id);
            self.by_vm.entry(nic.vm_id).or_default().insert(id);
        }
        self.by_mac.insert(nic.mac, id);
        if let Some(ip) = nic.ip {
            self.addresses.entry(nic.network_id).or_default().insert(ip, id);
        }
        self.by_tap.insert(tap_name(id), id);
    }

    /// Records a reported status. Returns the previous one.
    pub(super) fn report(&mut self, id: NicId, node_id: NodeId, status: ReportedStatus) -> Option<ReportedStatus> {
        let nic = self.by_id.get_mut(&id)?;
        let is_removed = nic.detached && nic.node_id == Some(node_id) && status.outcome == Outcome::Removed;
        let previous = nic.outcomes.insert(node_id, status);
        if is_removed {
            self.drop_nic(id);
        }
        previous
    }

    /// Drops the statuses of a node that was removed, and the NICs whose taps were still on it.
    pub(super) fn node_removed(&mut self, node_id: NodeId) {
        let mut removed = Vec::new();
        for (id, nic) in &mut self.by_id {
            nic.outcomes.remove(&node_id);
            if nic.detached && nic.node_id == Some(node_id) {
                removed.push(*id);
            }
        }
        removed.into_iter().for_each(|id| self.drop_nic(id));
    }

    fn drop_nic(&mut self, id: NicId) {
        let Some(nic) = self.by_id.remove(&id) else { return };
        self.by_mac.remove(&nic.mac);
        self.by_tap.remove(&tap_name(id));
        if let (Some(ip), Some(pool)) = (nic.ip, self.addresses.get_mut(&nic.network_id)) {
            pool.remove(ip, id);
            if pool.is_empty() {
                self.addresses.remove(&nic.network_id);
            }
        }
    }
}

fn remove<Key: std::hash::Hash + Eq>(sets: &mut HashMap<Key, BTreeSet<NicId>>, key: Key, id: NicId) {
    if let Some(set) = sets.get_mut(&key) {
        set.remove(&id);
        if set.is_empty() {
            sets.remove(&key);
        }
    }
}

impl State {
    /// Returns the NICs.
    pub fn nics(&self) -> &Nics {
        &self.nics
    }

    pub(super) fn evolve_nic(&mut self, header: &Header, event: &NicEvent) {
        match *event {
            NicEvent::Attached(NicAttached { nic_id, vm_id, network_id, mac, ip }) => {
                let nic = Nic {
                    vm_id,
                    network_id,
                    mac,
                    ip,
                    node_id: None,
                    detached: false,
                    generation: header.position,
                    version: header.stream_version,
                    outcomes: BTreeMap::new(),
                };
                self.nics.index(nic_id, &nic);
                self.nics.by_id.insert(nic_id, nic);
            }
            NicEvent::Bound(NicBound { nic_id, node_id }) => self.nic_bound(header, nic_id, node_id),
            NicEvent::Detached(NicDetached { nic_id, .. }) => self.nic_detached(header, nic_id),
        }
    }

    fn nic_bound(&mut self, header: &Header, nic_id: NicId, node_id: NodeId) {
        let Some(nic) = self.nics.by_id.get_mut(&nic_id) else { return };
        nic.version = header.stream_version;
        nic.generation = header.position;
        if let Some(previous) = nic.node_id.replace(node_id) {
            self.nodes.change_load(previous, |node| node.nics = node.nics.saturating_sub(1));
        }
        self.nodes.change_load(node_id, |node| node.nics += 1);
    }

    fn nic_detached(&mut self, header: &Header, nic_id: NicId) {
        let Some(nic) = self.nics.by_id.get_mut(&nic_id) else { return };
        nic.version = header.stream_version;
        nic.generation = header.position;
        nic.detached = true;
        remove(&mut self.nics.by_network, nic.network_id, nic_id);
        remove(&mut self.nics.by_vm, nic.vm_id, nic_id);
        match nic.node_id {
            Some(node_id) => self.nodes.change_load(node_id, |node| node.nics = node.nics.saturating_sub(1)),
            None => self.nics.drop_nic(nic_id),
        }
    }
}

/// A NIC that is to be attached to a network and bound to a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewNic {
    pub(super) generated: GeneratedNic,
    pub(super) vm_id: VmId,
    pub(super) network_id: NetworkId,
    /// The requested address.
    pub(super) ip: Option<Ipv4Addr>,
    pub(super) node_id: NodeId,
}

/// Returns the events that attach a new NIC to a network and bind it to a node.
pub(super) fn attach(state: &State, new: NewNic) -> Result<[Event; 2], Rejection> {
    let NewNic { generated: GeneratedNic { nic_id, mac }, vm_id, network_id, ip, node_id } = new;
    let network = state.live_network(network_id).ok_or(Rejection::NoSuchNetwork(network_id))?;
    if state.nics.by_tap.contains_key(&tap_name(nic_id)) {
        return Err(Rejection::TapTaken);
    }
    let ip = choose_address(state, network_id, network, ip)?;
    let mac = state.nics.free_mac(mac).ok_or(Rejection::MacsUsedUp)?;
    Ok([NicAttached { nic_id, vm_id, network_id, mac, ip }.into(), NicBound { nic_id, node_id }.into()])
}

/// Returns the address of a new NIC on a network: the requested one, or the lowest that is free. `None` if the network
/// assigns none.
fn choose_address(
    state: &State,
    network_id: NetworkId,
    network: &Network,
    requested: Option<Ipv4Addr>,
) -> Result<Option<Ipv4Addr>, Rejection> {
    let Some(dhcp) = network.spec.dhcp() else {
        let name = network.name.clone();
        return if requested.is_some() { Err(Rejection::NoDhcp(name)) } else { Ok(None) };
    };
    let none_in_use = AddressPool::default();
    let pool = state.nics.addresses.get(&network_id).unwrap_or(&none_in_use);
    let Some(ip) = requested else {
        let full = || Rejection::AddressesUsedUp {
            network: network.name.clone(),
            subnet: dhcp.subnet.subnet(),
            addresses: dhcp.subnet.guest_addresses(),
            used: pool.used(),
            detached: pool.used().saturating_sub(state.nics.count_of_network(network_id)),
        };
        return pool.lowest_free(dhcp.subnet).ok_or_else(full).map(Some);
    };
    dhcp.subnet.check_guest(ip).map_err(Rejection::AddressRefused)?;
    match pool.holder(ip).and_then(|id| state.nics.get(id)) {
        Some(holder) => Err(address_taken(state, network, ip, holder)),
        None => Ok(Some(ip)),
    }
}

/// Returns why an address that a NIC has cannot be given to another.
fn address_taken(state: &State, network: &Network, ip: Ipv4Addr, holder: &Nic) -> Rejection {
    let network = network.name.clone();
    let node = holder.node_id.and_then(|id| state.nodes().get(&id)).map(|node| node.name.clone());
    match state.vms().get(&holder.vm_id) {
        Some(vm) => Rejection::AddressTaken { ip, network, vm: vm.name.clone() },
        None => Rejection::AddressNotFree { ip, network, node },
    }
}

/// Returns the events that detach a VM's NICs.
pub(super) fn detach(nics: &Nics, vm_id: VmId) -> Vec<Event> {
    nics.of_vm(vm_id).map(|(nic_id, nic)| NicDetached { nic_id, vm_id, network_id: nic.network_id }.into()).collect()
}

/// Returns the events that bind a VM's NICs to another node.
pub(super) fn rebind(nics: &Nics, vm_id: VmId, node_id: NodeId) -> impl Iterator<Item = Event> + '_ {
    nics.of_vm(vm_id).map(move |(nic_id, _)| NicBound { nic_id, node_id }.into())
}

/// Returns the NIC that the events attach or detach.
pub(super) fn view(before: &State, envelopes: &[EventEnvelope]) -> Option<NicView> {
    let mut view: Option<NicView> = None;
    for EventEnvelope { header, event } in envelopes {
        let event = match event {
            Event::Nic(event) => event,
            Event::Network(_)
            | Event::Vm(_)
            | Event::Node(_)
            | Event::User(_)
            | Event::Enrollment(_)
            | Event::Cluster(_) => continue,
        };
        match *event {
            NicEvent::Attached(ref attached) => view = new_view(before, attached),
            NicEvent::Detached(NicDetached { nic_id, vm_id, network_id }) => {
                let Nic { mac, ip, .. } = *before.nics.get(nic_id)?;
                view = new_view(before, &NicAttached { nic_id, vm_id, network_id, mac, ip });
            }
            NicEvent::Bound(_) => {}
        }
        if let Some(view) = &mut view {
            view.generation = header.position;
        }
    }
    view
}

/// Returns the NIC of a VM that keeps it.
pub(super) fn current_view(before: &State, vm_id: VmId) -> Option<NicView> {
    let (nic_id, nic) = before.nics.of_vm(vm_id).next()?;
    let Nic { network_id, mac, ip, node_id, generation, ref outcomes, .. } = *nic;
    let observed_generation = node_id.and_then(|node| outcomes.get(&node)).map(|status| status.generation);
    let view = new_view(before, &NicAttached { nic_id, vm_id, network_id, mac, ip })?;
    Some(NicView { generation, observed_generation, ..view })
}

fn new_view(before: &State, attached: &NicAttached) -> Option<NicView> {
    let NicAttached { nic_id: id, vm_id: _, network_id, mac, ip } = *attached;
    let network = before.live_network(network_id)?;
    Some(NicView {
        id,
        network_id,
        network_name: network.name.clone(),
        bridge_name: network.spec.bridge_name(),
        mac,
        ip,
        tap: tap_name(id),
        generation: Position::ZERO,
        observed_generation: None,
        reconciled_at: None,
    })
}
