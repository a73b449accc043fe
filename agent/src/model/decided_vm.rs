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
