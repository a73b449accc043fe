//! The cluster view: the fold of all decisions. Every event can be applied; nothing is decided here.

use std::collections::BTreeMap;

use otherix_schemas::cluster::ClusterEvent;
use otherix_schemas::event::Event;
use otherix_schemas::id::{NetworkId, NicId, NodeId, VmId};
use otherix_schemas::network::{NetworkChanged, NetworkCreated, NetworkDeleted, NetworkEvent};
use otherix_schemas::nic::{NicAttached, NicBound, NicDetached, NicEvent};
use otherix_schemas::node::{MeshPeer, NodeChanged, NodeEvent, NodeRemoved};
use otherix_schemas::outcome::ResourceRef;
use otherix_schemas::position::Position;
use otherix_schemas::value::{NodeName, VmName};
use otherix_schemas::vm::{VmDeleted, VmEvent};

use super::decided_vm::{DecidedVm, MoveEnd, VmBasis};

pub use super::decided_network::{DecidedNetwork, NetworkState};

/// The cluster according to the decisions up to a position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    position: Position,
    networks: BTreeMap<NetworkId, DecidedNetwork>,
    nics: BTreeMap<NicId, DecidedNic>,
    vms: BTreeMap<VmId, DecidedVm>,
    /// Of all VMs of the cluster.
    names: BTreeMap<VmId, VmName>,
    nodes: BTreeMap<NodeId, (MeshPeer, Position)>,
    removed: BTreeMap<NodeId, (NodeName, Position)>,
}

/// A NIC, according to the decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidedNic {
    pub attached: NicAttached,
    pub attached_at: Position,
    /// The node that its VM is placed on, and the position of that decision, once it is made.
    pub bound: Option<(NodeId, Position)>,
    /// The position of the decision that detached it from its network, if there is one.
    pub detached_at: Option<Position>,
}

impl DecidedNic {
    /// Returns the position of the last decision about it.
    pub fn generation(&self) -> Position {
        let bound_at = self.bound.map(|(_, at)| at);
        self.detached_at.or(bound_at).unwrap_or(self.attached_at)
    }

    pub fn node(&self) -> Option<NodeId> {
        self.bound.map(|(node, _)| node)
    }
}

impl ClusterView {
    /// The position of the last decision applied.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The networks, including deleted ones until they are forgotten.
    pub fn networks(&self) -> impl Iterator<Item = (NetworkId, &DecidedNetwork)> {
        self.networks.iter().map(|(id, network)| (*id, network))
    }

    /// Returns a network, unless it is forgotten.
    pub fn network(&self, id: NetworkId) -> Option<&DecidedNetwork> {
        self.networks.get(&id)
    }

    /// The NICs, including detached ones until they are forgotten.
    pub fn nics(&self) -> impl Iterator<Item = (NicId, &DecidedNic)> {
        self.nics.iter().map(|(id, nic)| (*id, nic))
    }

    /// Returns a NIC, unless it is forgotten.
    pub fn nic(&self, id: NicId) -> Option<&DecidedNic> {
        self.nics.get(&id)
    }

    /// The VMs with machines, including deleted ones until they are forgotten.
    pub fn vms(&self) -> impl Iterator<Item = (VmId, &DecidedVm)> {
        self.vms.iter().map(|(id, vm)| (*id, vm))
    }

    /// The names of all VMs, wherever they run, and without a machine, too.
    pub fn names(&self) -> &BTreeMap<VmId, VmName> {
        &self.names
    }

    /// Returns the view with these names of VMs, too.
    #[must_use]
    pub fn with_names(mut self, names: BTreeMap<VmId, VmName>) -> Self {
        self.names.extend(names);
        self
    }

    /// The nodes that are part of the mesh.
    pub fn mesh_peers(&self) -> impl Iterator<Item = (NodeId, &MeshPeer)> {
        self.nodes.iter().map(|(id, (peer, _))| (*id, peer))
    }

    /// Returns the node as a peer of the mesh, if it is part of it.
    pub fn mesh_peer(&self, node: NodeId) -> Option<&MeshPeer> {
        self.nodes.get(&node).map(|(peer, _)| peer)
    }

    /// Whether the node was removed from the cluster. [`ClusterView::forget_elsewhere`] forgets that of other nodes.
    pub fn is_removed(&self, node: NodeId) -> bool {
        self.removed.contains_key(&node)
    }

    /// Forgets detached NICs that were not on `node`, which reports nothing about them, VMs of other nodes, and removed
    /// nodes other than `node`, which do not join again.
    pub fn forget_elsewhere(&mut self, node: NodeId) {
        self.vms.retain(|_, vm| vm.role(node).is_some());
        self.removed.retain(|id, _| *id == node);
        self.nics.retain(|_, nic| nic.detached_at.is_none() || nic.node() == Some(node));
    }

    /// Applies an event, unless it is at or before the view's position.
    pub fn apply(&mut self, position: Position, event: Event) {
        if position <= self.position {
            return;
        }
        self.position = position;
        match event {
            Event::Network(NetworkEvent::Created(NetworkCreated { network_id, name, spec })) => {
                let network = DecidedNetwork::new(name, position, NetworkState::Defined(spec));
                self.networks.insert(network_id, network);
            }
            Event::Network(NetworkEvent::Changed(NetworkChanged { network_id, name, spec, metadata: _ })) => {
                self.networks.entry(network_id).and_modify(|network| network.change(position, name, spec));
            }
            Event::Network(NetworkEvent::Deleted(NetworkDeleted { network_id, name })) => {
                let network = DecidedNetwork::new(name, position, NetworkState::Deleted);
                self.networks.insert(network_id, network);
            }
            Event::Nic(NicEvent::Attached(attached)) => {
                let nic = DecidedNic { attached, attached_at: position, bound: None, detached_at: None };
                self.nics.insert(nic.attached.nic_id, nic);
            }
            Event::Nic(NicEvent::Bound(NicBound { nic_id, node_id })) => {
                self.nics.entry(nic_id).and_modify(|nic| nic.bound = Some((node_id, position)));
            }
            Event::Nic(NicEvent::Detached(NicDetached { nic_id, vm_id: _, network_id: _ })) => {
                self.nics.entry(nic_id).and_modify(|nic| nic.detached_at = Some(position));
            }
            Event::Node(NodeEvent::Changed(NodeChanged { node_id, mesh })) => {
                self.nodes.insert(node_id, (mesh, position));
            }
            Event::Node(NodeEvent::Removed(NodeRemoved { node_id, name })) => {
                self.nodes.remove(&node_id);
                self.removed.insert(node_id, (name, position));
            }
            Event::Vm(event) => self.apply_vm(position, event),
            Event::Node(NodeEvent::Joined(_))
            | Event::Node(NodeEvent::Unreachable(_))
            | Event::Node(NodeEvent::Reachable(_))
            | Event::Node(NodeEvent::Reconciled(_))
            | Event::Node(NodeEvent::Described(_))
            | Event::Node(NodeEvent::ConditionsChanged(_))
            | Event::Node(NodeEvent::Cordoned(_))
            | Event::Node(NodeEvent::Uncordoned(_))
            | Event::Node(NodeEvent::CapacityReported(_))
            | Event::Node(NodeEvent::Labelled(_))
            | Event::User(_)
            | Event::Enrollment(_)
            | Event::Cluster(ClusterEvent::Restored(_)) => {}
        }
    }

    fn apply_vm(&mut self, position: Position, event: VmEvent) {
        match event {
            VmEvent::Created(created) => {
                self.names.insert(created.vm_id, created.name.clone());
                if created.machine.is_some() {
                    let id = created.vm_id;
                    self.vms.insert(id, DecidedVm::new(VmBasis::Created(created), position));
                }
            }
            VmEvent::Instructed(event) => {
                self.vms.entry(event.vm_id).and_modify(|vm| vm.instructed = Some((position, event)));
            }
            VmEvent::MoveStarted(started) => {
                self.vms.insert(started.vm_id, DecidedVm::new(VmBasis::Moving(started), position));
            }
            VmEvent::Moved(moved) => {
                let vm = self.vms.entry(moved.vm_id);
                vm.and_modify(|vm| vm.ended = Some((position, MoveEnd::Moved(moved))));
            }
            VmEvent::MoveCancelled(cancelled) => {
                let vm = self.vms.entry(cancelled.vm_id);
                vm.and_modify(|vm| vm.ended = Some((position, MoveEnd::Cancelled(cancelled))));
            }
            VmEvent::Deleted(VmDeleted { vm_id, name: _ }) => {
                self.names.remove(&vm_id);
                self.vms.entry(vm_id).and_modify(|vm| vm.deleted_at = Some(position));
            }
            VmEvent::ConsoleOpened(_) | VmEvent::Labelled(_) => {}
        }
    }

    /// Returns the decisions that produce this view, oldest first; see [`ClusterView::restored`].
    pub fn decisions(&self) -> impl Iterator<Item = (Position, Event)> {
        let networks = self.networks.iter().flat_map(|(id, network)| network.decisions(*id));
        let nics = self.nics.values().flat_map(|nic| {
            let DecidedNic { attached, attached_at, bound, detached_at } = nic;
            let NicAttached { nic_id, vm_id, network_id, mac: _, ip: _ } = *attached;
            let bound = bound.map(|(node_id, at)| (at, Event::Nic(NicEvent::Bound(NicBound { nic_id, node_id }))));
            let detached =
                detached_at.map(|at| (at, Event::Nic(NicEvent::Detached(NicDetached { nic_id, vm_id, network_id }))));
            let attached = (*attached_at, Event::Nic(NicEvent::Attached(attached.clone())));
            [Some(attached), bound, detached].into_iter().flatten()
        });
        let nodes = self.nodes.iter().map(|(node_id, (mesh, at))| {
            (*at, Event::Node(NodeEvent::Changed(NodeChanged { node_id: *node_id, mesh: *mesh })))
        });
        let removed = self.removed.iter().map(|(node_id, (name, at))| {
            let removed = NodeRemoved { node_id: *node_id, name: name.clone() };
            (*at, Event::Node(NodeEvent::Removed(removed)))
        });
        let vms = self.vms.iter().flat_map(|(id, vm)| vm.decisions(*id));
        let mut decisions: Vec<_> = networks.chain(nics).chain(vms).chain(nodes).chain(removed).collect();
        decisions.sort_by_key(|(position, _)| *position);
        decisions.into_iter()
    }

    /// Returns the view at `position` that these decisions produce, without the names of other nodes' VMs
    /// ([`ClusterView::with_names`]). They must be ordered by position.
    pub fn restored(position: Position, decisions: impl IntoIterator<Item = (Position, Event)>) -> Self {
        let mut view = Self::default();
        for (generation, event) in decisions {
            view.apply(generation, event);
        }
        view.position = view.position.max(position);
        view
    }

    /// Forgets a resource whose removal from `node` is confirmed. Returns `false` unless it was deleted or detached, or
    /// is on another node.
    pub fn forget(&mut self, resource: ResourceRef, node: NodeId) -> bool {
        match resource {
            ResourceRef::Network(id) => {
                let deleted = self.networks.get(&id).is_some_and(|network| network.state == NetworkState::Deleted);
                deleted && self.networks.remove(&id).is_some()
            }
            ResourceRef::Nic(id) => {
                let detached = self.nics.get(&id).is_some_and(|nic| nic.detached_at.is_some());
                detached && self.nics.remove(&id).is_some()
            }
            ResourceRef::Vm(id) => {
                let removed = self.vms.get(&id).is_some_and(|vm| vm.is_to_be_removed(node));
                removed && self.vms.remove(&id).is_some()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use otherix_schemas::id::VmId;
    use otherix_schemas::network::{BridgeSpec, NetworkSpec, Ownership};
    use otherix_schemas::value::{MacAddress, Mtu};

    use super::*;

    fn id() -> NetworkId {
        "01890a5d-ac96-774b-bcce-b302099a8058".parse().unwrap()
    }

    fn created() -> Event {
        let spec = NetworkSpec::Bridge(BridgeSpec {
            bridge_name: "br-app".parse().unwrap(),
            ownership: Ownership::Unmanaged,
            mtu: Mtu::DEFAULT,
            vlan: None,
            dhcp: None,
            allow_spoofing: false,
        });
        Event::Network(NetworkEvent::Created(NetworkCreated { network_id: id(), name: "net".parse().unwrap(), spec }))
    }

    fn deleted() -> Event {
        Event::Network(NetworkEvent::Deleted(NetworkDeleted { network_id: id(), name: "net".parse().unwrap() }))
    }

    #[test]
    fn ignores_repeated_events() {
        let mut view = ClusterView::default();
        view.apply(Position::new(4), created());
        view.apply(Position::new(7), deleted());
        let before = view.clone();
        view.apply(Position::new(4), created());
        view.apply(Position::new(7), deleted());
        assert_eq!(view, before);
        assert_eq!(view.position(), Position::new(7));
    }

    #[test]
    fn restores_nics_from_decisions() {
        let (nic_id, vm_id, node_id) = (NicId::new(id().uuid()), VmId::new(id().uuid()), NodeId::new(id().uuid()));
        let mac = MacAddress::assigned(7);
        let attached = |number| {
            let nic_id = NicId::new(uuid::Uuid::from_u128(number));
            Event::Nic(NicEvent::Attached(NicAttached { nic_id, vm_id, network_id: id(), mac, ip: None }))
        };
        let mut view = ClusterView::default();
        for (position, event) in [
            (2, Event::Nic(NicEvent::Attached(NicAttached { nic_id, vm_id, network_id: id(), mac, ip: None }))),
            (3, Event::Nic(NicEvent::Bound(NicBound { nic_id, node_id }))),
            (4, created()),
            (6, attached(9)),
            (8, Event::Nic(NicEvent::Detached(NicDetached { nic_id, vm_id, network_id: id() }))),
            (9, attached(8)),
        ] {
            view.apply(Position::new(position), event);
        }
        assert_eq!(ClusterView::restored(Position::new(12), view.decisions()).decisions().count(), 6);
        assert_eq!(ClusterView::restored(Position::new(9), view.decisions()), view);
        let mut elsewhere = view.clone();
        elsewhere.forget_elsewhere(NodeId::new(uuid::Uuid::nil()));
        assert_eq!(elsewhere.nics().count(), 2);
        view.forget_elsewhere(node_id);
        assert_eq!(view.nics().count(), 3, "this node has yet to report the removal of its tap");
        assert!(view.forget(ResourceRef::Nic(nic_id), node_id));
        assert_eq!(view, elsewhere);
    }

    #[test]
    fn forgets_removed_nodes_other_than_this_one() {
        let node = |number| NodeId::new(uuid::Uuid::from_u128(number));
        let in_mesh = |number: u8| {
            let mesh = MeshPeer {
                address: [10, 42, 0, number].into(),
                public_key: [number; 32].try_into().unwrap(),
                endpoint: "192.0.2.1:51820".parse().unwrap(),
            };
            Event::Node(NodeEvent::Changed(NodeChanged { node_id: node(number.into()), mesh }))
        };
        let removed = |number| {
            let name = format!("node-{number}").parse().unwrap();
            Event::Node(NodeEvent::Removed(NodeRemoved { node_id: node(number), name }))
        };
        let mut view = ClusterView::default();
        for (position, event) in (1..).zip([in_mesh(1), in_mesh(2), in_mesh(3), removed(2), removed(1)]) {
            view.apply(Position::new(position), event);
        }
        let peers = |view: &ClusterView| view.mesh_peers().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(peers(&view), [node(3)]);
        assert_eq!([1, 2, 3].map(|number| view.is_removed(node(number))), [true, true, false]);
        assert_eq!(ClusterView::restored(Position::new(5), view.decisions()), view);
        view.forget_elsewhere(node(1));
        assert_eq!([1, 2, 3].map(|number| view.is_removed(node(number))), [true, false, false]);
        assert_eq!(ClusterView::restored(Position::new(5), view.decisions()), view);
    }

    #[test]
    fn forgets_deleted_networks_only() {
        let mut view = ClusterView::default();
        view.apply(Position::new(1), created());
        let here = NodeId::new(id().uuid());
        assert!(!view.forget(ResourceRef::Network(id()), here));
        assert_eq!(view.networks().count(), 1);
        view.apply(Position::new(2), deleted());
        let (_, network) = view.networks().next().unwrap();
        assert_eq!((network.generation, &network.state), (Position::new(2), &NetworkState::Deleted));
        assert!(view.forget(ResourceRef::Network(id()), here));
        assert_eq!(view.networks().count(), 0);
    }
}
