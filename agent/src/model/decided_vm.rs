//! A VM whose machine nodes run, according to the decisions.

use otherix_schemas::event::Event;
use otherix_schemas::id::{NodeId, VmId};
use otherix_schemas::position::Position;
use otherix_schemas::value::{ImageUrl, VmName};
use otherix_schemas::vm::{
    Arch, Machine, Power, SHUTDOWN_S, VmCreated, VmDeleted, VmEvent, VmInstructed, VmMoveCancelled, VmMoveStarted,
    VmMoved,
};

/// A VM whose node runs a machine, according to the decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidedVm {
    /// The last decision that says what it is, and its position.
    pub basis: VmBasis,
    pub basis_at: Position,
    /// How the move that is the basis has ended, if it has.
    pub ended: Option<(Position, MoveEnd)>,
    /// The last instruction after the basis.
    pub instructed: Option<(Position, VmInstructed)>,
    /// The position of the decision that deleted it, if there is one. Forgotten once the control plane has confirmed
    /// that this node has removed it.
    pub deleted_at: Option<Position>,
}

/// A decision that says what a VM is. That it begins to move repeats what its creation has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmBasis {
    Created(VmCreated),
    Moving(VmMoveStarted),
}

/// The end of a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MoveEnd {
    Moved(VmMoved),
    Cancelled(VmMoveCancelled),
}

/// What a node has to do with a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmRole {
    /// It runs it.
    Home,
    /// It gives its disk to another node.
    Source { to: NodeId },
    /// It takes its disk from another node.
    Target { from: NodeId },
    /// It removes what it has of it, because of the decision at this position.
    Former(Position),
}

impl VmBasis {
    pub fn name(&self) -> &VmName {
        match self {
            Self::Created(created) => &created.name,
            Self::Moving(started) => &started.name,
        }
    }

    pub fn image_url(&self) -> &ImageUrl {
        match self {
            Self::Created(created) => &created.image_url,
            Self::Moving(started) => &started.image_url,
        }
    }

    pub fn arch(&self) -> Arch {
        match self {
            Self::Created(created) => created.arch,
            Self::Moving(started) => started.arch,
        }
    }

    pub fn machine(&self) -> Option<&Machine> {
        match self {
            Self::Created(created) => created.machine.as_ref(),
            Self::Moving(started) => Some(&started.machine),
        }
    }

    /// How long the guest may take to shut down, in seconds, unless it was told something else since.
    pub fn timeout_s(&self) -> u32 {
        match self {
            Self::Created(_) => SHUTDOWN_S,
            Self::Moving(started) => started.timeout_s,
        }
    }

    /// Whether it is to run, unless it was told something else since.
    pub fn power(&self) -> Power {
        match self {
            Self::Created(_) => Power::Running,
            Self::Moving(started) => started.power,
        }
    }
}

impl DecidedVm {
    pub fn new(basis: VmBasis, basis_at: Position) -> Self {
        Self { basis, basis_at, ended: None, instructed: None, deleted_at: None }
    }

    /// Returns the position of the last decision about it.
    pub fn generation(&self) -> Position {
        let ended_at = self.ended.as_ref().map(|(at, _)| *at);
        let instructed_at = self.instructed.as_ref().map(|(at, _)| *at);
        self.deleted_at.or(instructed_at).or(ended_at).unwrap_or(self.basis_at)
    }

    /// What the node has to do with it; `None` if nothing.
    pub fn role(&self, node: NodeId) -> Option<VmRole> {
        let VmMoveStarted { from_node_id: from, node_id: to, .. } = match &self.basis {
            VmBasis::Created(created) => return (created.node_id == node).then_some(VmRole::Home),
            VmBasis::Moving(started) => started,
        };
        let (role_of_source, role_of_target) = match &self.ended {
            None => (VmRole::Source { to: *to }, VmRole::Target { from: *from }),
            Some((at, MoveEnd::Moved(_))) => (VmRole::Former(*at), VmRole::Home),
            Some((at, MoveEnd::Cancelled(_))) => (VmRole::Home, VmRole::Former(*at)),
        };
        if node == *from {
            Some(role_of_source)
        } else if node == *to {
            Some(role_of_target)
        } else {
            None
        }
    }

    /// Whether the node has to remove what it has of it.
    pub fn is_to_be_removed(&self, node: NodeId) -> bool {
        self.deleted_at.is_some() || matches!(self.role(node), Some(VmRole::Former(_)))
    }

    /// The decisions that produce it, oldest first.
    pub(super) fn decisions(&self, id: VmId) -> impl Iterator<Item = (Position, Event)> {
        let Self { basis, basis_at, ended, instructed, deleted_at } = self.clone();
        let name = basis.name().clone();
        let event = |(at, event)| (at, Event::Vm(event));
        let basis = match basis {
            VmBasis::Created(created) => (basis_at, VmEvent::Created(created)),
            VmBasis::Moving(started) => (basis_at, VmEvent::MoveStarted(started)),
        };
        let ended = ended.map(|(at, end)| match end {
            MoveEnd::Moved(moved) => (at, VmEvent::Moved(moved)),
            MoveEnd::Cancelled(cancelled) => (at, VmEvent::MoveCancelled(cancelled)),
        });
        let instructed = instructed.map(|(at, instructed)| (at, VmEvent::Instructed(instructed)));
        let deleted = deleted_at.map(|at| (at, VmEvent::Deleted(VmDeleted { vm_id: id, name })));
        [Some(basis), ended, instructed, deleted].into_iter().flatten().map(event)
    }
}

#[cfg(test)]
mod tests {
    use otherix_schemas::outcome::ResourceRef;
    use otherix_schemas::vm::{Instruction, PullPolicy};
    use uuid::Uuid;

    use super::super::cluster_view::ClusterView;
    use super::*;

    fn node(number: u128) -> NodeId {
        NodeId::new(Uuid::from_u128(number))
    }

    fn vm_id() -> VmId {
        VmId::new(Uuid::from_u128(9))
    }

    fn machine() -> Machine {
        let (disk_gib, image_sha256, cloud_init) = (None, None, None);
        Machine { vcpus: 1, memory_mb: 64, disk_gib, image_sha256, pull_policy: PullPolicy::IfNotPresent, cloud_init }
    }

    fn created() -> Event {
        let (name, image_url) = ("web".parse().unwrap(), "http://images.example/a.img".parse().unwrap());
        let (vm_id, arch, machine) = (vm_id(), Arch::Amd64, Some(machine()));
        VmCreated { vm_id, name, image_url, arch, node_id: node(1), owner: None, machine }.into()
    }

    fn started(from: u128, to: u128) -> Event {
        let (name, image_url) = ("web".parse().unwrap(), "http://images.example/a.img".parse().unwrap());
        let (from_node_id, node_id) = (node(from), node(to));
        let (vm_id, arch, machine, power, timeout_s) = (vm_id(), Arch::Amd64, machine(), Power::Stopped, 5);
        VmMoveStarted { vm_id, name, image_url, arch, machine, from_node_id, node_id, power, timeout_s }.into()
    }

    fn moved(from: u128, to: u128) -> Event {
        VmMoved { vm_id: vm_id(), from_node_id: node(from), node_id: node(to) }.into()
    }

    fn cancelled(to: u128) -> Event {
        VmMoveCancelled { vm_id: vm_id(), node_id: node(to), reason: None }.into()
    }

    fn stopped() -> Event {
        VmInstructed { vm_id: vm_id(), instruction: Instruction::Stop, timeout_s: Some(1) }.into()
    }

    /// The view of a node, which keeps what concerns it, after events from position 1 on.
    fn view(of: u128, events: &[Event]) -> ClusterView {
        let mut view = ClusterView::default();
        for (position, event) in (1..).zip(events) {
            view.apply(Position::new(position), event.clone());
            view.forget_elsewhere(node(of));
        }
        let restored = ClusterView::restored(view.position(), view.decisions());
        assert_eq!(restored.with_names(view.names().clone()), view, "a ledger has all of it");
        view
    }

    fn role(of: u128, events: &[Event]) -> Option<VmRole> {
        view(of, events).vms().next().and_then(|(_, vm)| vm.role(node(of)))
    }

    #[test]
    fn a_vm_is_at_home_on_one_node_at_every_position() {
        let histories = [
            vec![created(), started(1, 2), moved(1, 2), stopped(), started(2, 3), moved(2, 3)],
            vec![created(), stopped(), started(1, 2), cancelled(2), started(1, 3), cancelled(3)],
        ];
        for events in histories {
            for length in 1..=events.len() {
                let events = events.get(..length).unwrap();
                let roles = [1, 2, 3].map(|of| role(of, events));
                let homes = roles.iter().flatten().filter(|role| matches!(role, VmRole::Home | VmRole::Source { .. }));
                assert_eq!(homes.count(), 1, "{length}: {roles:?}");
            }
        }
    }

    #[test]
    fn each_node_knows_what_it_has_to_do() {
        let moving = [created(), started(1, 2)];
        let roles = |events: &[Event]| [1, 2, 3].map(|of| role(of, events));
        assert_eq!(
            roles(&moving),
            [Some(VmRole::Source { to: node(2) }), Some(VmRole::Target { from: node(1) }), None]
        );
        let former = Some(VmRole::Former(Position::new(3)));
        assert_eq!(roles(&[created(), started(1, 2), moved(1, 2)]), [former, Some(VmRole::Home), None]);
        assert_eq!(roles(&[created(), started(1, 2), cancelled(2)]), [Some(VmRole::Home), former, None]);
        // What its new node is told, is no matter of the old one, whose report names the decision that it moved.
        let later = [created(), started(1, 2), moved(1, 2), stopped()];
        assert_eq!(roles(&later), [former, Some(VmRole::Home), None]);
        let [old, new] = [1, 2].map(|of| view(of, &later));
        let generation = |view: &ClusterView| view.vms().next().map(|(_, vm)| vm.generation().get());
        assert_eq!(generation(&new), Some(4));
        let mut forgetful = old.clone();
        assert!(forgetful.forget(ResourceRef::Vm(vm_id()), node(1)) && forgetful.vms().count() == 0);
        let mut kept = new;
        assert!(!kept.forget(ResourceRef::Vm(vm_id()), node(2)), "its disk is all that there is of it");
    }
}
