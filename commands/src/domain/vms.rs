//! VMs and their NICs: what is known of them, and decisions about them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use otherix_schemas::cloudevent::Header;
use otherix_schemas::event::Event;
use otherix_schemas::id::{NetworkId, NicId, NodeId, VmId};
use otherix_schemas::nic::{GeneratedNic, NicAttached, NicBound, NicDetached, NicEvent, tap_name};
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::{ImageUrl, MacAddress, VmName};
use otherix_schemas::vm::{Arch, NewVm, VmCreated, VmDeleted, VmEvent};

use super::said::Said;
use super::{Decision, Rejection, State};

/// A VM that is not deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// Its name.
    pub name: VmName,
    /// Where its disk image is.
    pub image_url: ImageUrl,
    /// What it runs on.
    pub arch: Arch,
    /// The node that it is on.
    pub node_id: NodeId,
    /// When it was created.
    pub created_at: Timestamp,
    pub(super) version: u32,
}

/// A NIC, kept until its node has confirmed that its tap is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// The VM that it is part of.
    pub vm_id: VmId,
    /// The network that it is on.
    pub network_id: NetworkId,
    /// Its hardware address.
    pub mac: MacAddress,
    /// The node that its tap is on.
    pub node_id: Option<NodeId>,
    /// It is gone, and its tap may still be there.
    pub detached: bool,
    /// The position of the last decision about it.
    pub generation: Position,
    pub(super) version: u32,
    /// What nodes last said of it.
    pub outcomes: BTreeMap<NodeId, Said>,
}

impl Nic {
    /// Whether there is to be a tap on the node.
    pub(super) fn is_wanted_on(&self, node_id: NodeId) -> bool {
        !self.detached && self.node_id == Some(node_id)
    }
}

/// All NICs, and who has what of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nics {
    all: BTreeMap<NicId, Nic>,
    /// Those that are not detached.
    of_network: HashMap<NetworkId, BTreeSet<NicId>>,
    of_vm: HashMap<VmId, BTreeSet<NicId>>,
    on_node: HashMap<NodeId, BTreeSet<NicId>>,
    /// Addresses, also of detached NICs: until its node has removed the tap, a guest may still speak from it.
    macs: HashMap<MacAddress, NicId>,
    /// Names of taps, also of detached NICs: the old one must be gone first.
    taps: HashMap<String, NicId>,
}

impl Nics {
    /// A NIC that is known.
    pub fn get(&self, id: NicId) -> Option<&Nic> {
        self.all.get(&id)
    }

    /// How many NICs are on the network.
    pub fn count_of_network(&self, id: NetworkId) -> usize {
        self.of_network.get(&id).map_or(0, BTreeSet::len)
    }

    /// How many NICs have their tap on the node.
    pub fn count_on_node(&self, id: NodeId) -> usize {
        self.on_node.get(&id).map_or(0, BTreeSet::len)
    }

    /// The VM's NICs.
    pub fn of_vm(&self, id: VmId) -> impl Iterator<Item = (NicId, &Nic)> {
        self.of_vm.get(&id).into_iter().flatten().filter_map(|id| Some((*id, self.all.get(id)?)))
    }

    /// The first address that no NIC has, from a number on, and round.
    fn free_mac(&self, from: u32) -> Option<MacAddress> {
        let numbers = (0..MacAddress::ASSIGNABLE).map(|step| from.wrapping_add(step));
        numbers.map(MacAddress::assigned).find(|mac| !self.macs.contains_key(mac))
    }

    pub(super) fn attach(&mut self, header: &Header, event: &NicAttached) {
        let NicAttached { nic_id, vm_id, network_id, mac } = *event;
        self.of_network.entry(network_id).or_default().insert(nic_id);
        self.of_vm.entry(vm_id).or_default().insert(nic_id);
        self.macs.insert(mac, nic_id);
        self.taps.insert(tap_name(nic_id), nic_id);
        let nic = Nic {
            vm_id,
            network_id,
            mac,
            node_id: None,
            detached: false,
            generation: header.position,
            version: header.stream_version,
            outcomes: BTreeMap::new(),
        };
        self.all.insert(nic_id, nic);
    }

    pub(super) fn bind(&mut self, header: &Header, event: &NicBound) {
        let NicBound { nic_id, node_id } = *event;
        let Some(nic) = self.all.get_mut(&nic_id) else { return };
        nic.version = header.stream_version;
        nic.generation = header.position;
        if let Some(before) = nic.node_id.replace(node_id) {
            take(&mut self.on_node, before, nic_id);
        }
        self.on_node.entry(node_id).or_default().insert(nic_id);
    }

    pub(super) fn detach(&mut self, header: &Header, nic_id: NicId) {
        let Some(nic) = self.all.get_mut(&nic_id) else { return };
        nic.version = header.stream_version;
        nic.generation = header.position;
        nic.detached = true;
        take(&mut self.of_network, nic.network_id, nic_id);
        take(&mut self.of_vm, nic.vm_id, nic_id);
        match nic.node_id {
            Some(node_id) => take(&mut self.on_node, node_id, nic_id),
            None => self.forget(nic_id),
        }
    }

    /// Takes in what a node says of a NIC. Gives what it said before.
    pub(super) fn said(&mut self, nic_id: NicId, node_id: NodeId, word: Said) -> Option<Said> {
        let nic = self.all.get_mut(&nic_id)?;
        let gone = nic.detached && nic.node_id == Some(node_id) && word.outcome == Outcome::Removed;
        let before = nic.outcomes.insert(node_id, word);
        if gone {
            self.forget(nic_id);
        }
        before
    }

    /// What the node said is nobody's word any more, and taps that were to go from it are not waited for.
    pub(super) fn node_removed(&mut self, node_id: NodeId) {
        let mut gone = Vec::new();
        for (nic_id, nic) in &mut self.all {
            nic.outcomes.remove(&node_id);
            if nic.detached && nic.node_id == Some(node_id) {
                gone.push(*nic_id);
            }
        }
        gone.into_iter().for_each(|nic_id| self.forget(nic_id));
    }

    fn forget(&mut self, nic_id: NicId) {
        let Some(nic) = self.all.remove(&nic_id) else { return };
        self.macs.remove(&nic.mac);
        self.taps.remove(&tap_name(nic_id));
    }
}

fn take<Key: std::hash::Hash + Eq>(sets: &mut HashMap<Key, BTreeSet<NicId>>, key: Key, nic_id: NicId) {
    if let Some(set) = sets.get_mut(&key) {
        set.remove(&nic_id);
        if set.is_empty() {
            sets.remove(&key);
        }
    }
}

impl State {
    /// The VMs.
    pub fn vms(&self) -> &BTreeMap<VmId, Vm> {
        &self.vms
    }

    /// The NICs.
    pub fn nics(&self) -> &Nics {
        &self.nics
    }

    pub(super) fn vm_created(&mut self, header: &Header, event: &VmCreated) {
        let VmCreated { vm_id, name, image_url, arch, node_id } = event.clone();
        self.vm_names.insert(name.key(), vm_id);
        let (version, created_at) = (header.stream_version, header.time);
        self.vms.insert(vm_id, Vm { name, image_url, arch, node_id, created_at, version });
        if let Some(node) = self.nodes.get_mut(&node_id) {
            node.vms += 1;
        }
    }

    pub(super) fn vm_deleted(&mut self, event: &VmDeleted) {
        let Some(vm) = self.vms.remove(&event.vm_id) else { return };
        self.vm_names.remove(&vm.name.key());
        if let Some(node) = self.nodes.get_mut(&vm.node_id) {
            node.vms = node.vms.saturating_sub(1);
        }
    }

    /// The ready node with the fewest NICs, then the fewest VMs: one that is heard of, and on which the network has not failed.
    fn place(&self, network_id: Option<NetworkId>) -> Option<NodeId> {
        let network = network_id.and_then(|id| self.live_network(id));
        let has_failed = |node: &NodeId| {
            let said = network.and_then(|network| Some((network, network.outcomes.get(node)?)));
            said.is_some_and(|(network, said)| {
                said.generation == network.generation && matches!(said.outcome, Outcome::Failed(_))
            })
        };
        let ready = self.roster().members.iter().filter(|(id, reachable)| **reachable && !has_failed(id));
        let load = |id: &NodeId| (self.nics.count_on_node(*id), self.nodes.get(id).map_or(0, |node| node.vms));
        ready.map(|(id, _)| *id).min_by_key(load)
    }
}

/// A VM, its NIC and where both are: all of it or nothing.
pub(super) fn create(state: &State, vm_id: VmId, drawn: GeneratedNic, vm: &NewVm) -> Result<Decision, Rejection> {
    let NewVm { name, image_url, arch, network_id, node_id } = vm.clone();
    if let Some(other) = state.vm_names.get(&name.key()) {
        return Err(Rejection::VmNameTaken { name, other: *other });
    }
    if let Some(network_id) = network_id {
        state.live_network(network_id).ok_or(Rejection::NoSuchNetwork(network_id))?;
    }
    let node_id = match node_id {
        Some(node_id) if state.nodes.contains_key(&node_id) => node_id,
        Some(node_id) => return Err(Rejection::NoSuchNode(node_id)),
        None => state.place(network_id).ok_or(Rejection::NoReadyNode)?,
    };
    let mut events = vec![Event::Vm(VmEvent::Created(VmCreated { vm_id, name, image_url, arch, node_id }))];
    if let Some(network_id) = network_id {
        let GeneratedNic { nic_id, mac } = drawn;
        if state.nics.taps.contains_key(&tap_name(nic_id)) {
            return Err(Rejection::TapTaken);
        }
        let mac = state.nics.free_mac(mac).ok_or(Rejection::MacsUsedUp)?;
        events.push(Event::Nic(NicEvent::Attached(NicAttached { nic_id, vm_id, network_id, mac })));
        events.push(Event::Nic(NicEvent::Bound(NicBound { nic_id, node_id })));
    }
    Ok(events.into())
}

pub(super) fn delete(state: &State, vm_id: VmId) -> Result<Decision, Rejection> {
    let vm = state.vms.get(&vm_id).ok_or(Rejection::NoSuchVm(vm_id))?;
    let nics = state.nics.of_vm(vm_id);
    let detached = nics.map(|(nic_id, nic)| NicDetached { nic_id, vm_id, network_id: nic.network_id });
    let mut events: Vec<Event> = detached.map(Event::from).collect();
    events.push(Event::Vm(VmEvent::Deleted(VmDeleted { vm_id, name: vm.name.clone() })));
    Ok(events.into())
}
